"""Partitions on a node's simulated devices: programmed, counted, kept, aged and let go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from rig import ReadyKernels, until

import crossbar
from crossbar.devices import DeviceProfile
from crossbar.errors import KernelsUnavailable
from sedmad.core.accuracy import EXACT, Accuracy
from sedmad.core.capacity import CapacityLedger
from sedmad.core.cells import CellLedger
from sedmad.errors import SedmadError, TargetUnreachable
from sedmad.node import devices as devices_module
from sedmad.node import programming
from sedmad.node.devices import Devices
from sedmad.node.noise import keys_of, noise_keys
from sedmad.node.programming import PartitionKey, simulated_age_s
from sedmad.store import programmed as programmed_table
from sedmad.store.blobs import BlobStore, open_blobs
from sedmad.store.database import Database, open_database
from sedmad.wire import messages as wire

ROWS, COLUMNS = 96, 80
W = np.random.default_rng(0).standard_normal((ROWS, COLUMNS)).astype(np.float32)
TARGET = Accuracy(0.1)
# Without wires, whose resistance takes seconds to plan for.
PLAIN = replace(crossbar.profile("generic"), name="plain", word_line_ohm=0.0, bit_line_ohm=0.0, drift=None)
DRIFTING = replace(
    crossbar.profile("pcm_nandakumar2019"), name="drifting", word_line_ohm=0.0, bit_line_ohm=0.0
)


@dataclass(slots=True)
class Node:
    """What devices stand on."""

    database: Database
    blobs: BlobStore
    digest: bytes
    ledger: CapacityLedger

    def key(self, accuracy: Accuracy = TARGET) -> PartitionKey:
        return PartitionKey(self.digest, ROWS, COLUMNS, "float32", accuracy)

    async def devices(
        self, profile: DeviceProfile = PLAIN, *, cells: int = 1 << 24, kernels: Any = None
    ) -> Devices:
        """Return the devices as they are when the node starts."""
        self.ledger = CapacityLedger(memory_pledged_bytes=1 << 28, disk_pledged_bytes=1 << 28)
        devices = Devices(
            own_peer_id="ann",
            profile=profile,
            cells=CellLedger(cells, "ann"),
            ledger=self.ledger,
            database=self.database,
            blobs=self.blobs,
            kernels=kernels or ReadyKernels(),
        )
        await devices.load()
        return devices


@asynccontextmanager
async def open_node(folder: Path) -> AsyncIterator[Node]:
    async with open_database(folder / "store.db") as database:
        blobs = await open_blobs(folder / "blobs")
        async with blobs.create(W.nbytes) as writer:
            await writer.write(memoryview(W.tobytes()))
            await writer.commit()
        yield Node(database, blobs, writer.digest, None)  # type: ignore[arg-type]


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with open_node(tmp_path) as opened:
        yield opened


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The wall clock of devices, to be set."""
    now = [1e9]
    monkeypatch.setattr(devices_module, "wall_time_s", lambda: now[0])
    return now


def answer(devices: Devices, key: PartitionKey, request: int, columns: int = 3) -> np.ndarray[Any, Any]:
    partition = devices.get(key)
    assert partition is not None
    panel = np.random.default_rng(1).standard_normal((columns, COLUMNS)).astype(np.float32)
    return partition.multiply(panel, noise_keys(TARGET, columns, request))


async def test_a_partition_is_programmed_within_its_target_and_counted(node: Node) -> None:
    devices = await node.devices()
    await devices.program(node.key())
    state = devices.state(node.key())
    assert state is not None
    assert state.planned is not None
    assert 0 < state.planned.error <= TARGET.target_error
    assert devices.cells.usage.used == state.cells > 0
    assert node.ledger.memory.used_bytes == state.memory_bytes > 0
    panel = np.random.default_rng(2).standard_normal((200, COLUMNS)).astype(np.float32)
    partition = devices.get(node.key())
    assert partition is not None
    for got, exact in (
        (partition.multiply(panel, noise_keys(TARGET, 200, 5)), panel @ W.T),
        (partition.multiply_transposed(panel[:, :1] * np.ones((1, ROWS), np.float32), noise_keys(TARGET, 200, 6)),
         panel[:, :1] * W.sum(axis=0)),
    ):  # fmt: skip
        # Inputs that are all alike are not white: the second may be off by more than the plan says.
        assert 0 < np.linalg.norm(got - exact) / np.linalg.norm(exact) < 3 * TARGET.target_error
    devices.drop(node.digest)
    assert devices.get(node.key()) is None
    assert (devices.cells.usage.used, node.ledger.memory.used_bytes) == (0, 0)


async def test_without_a_target_or_for_other_devices_nothing_is_programmed(node: Node) -> None:
    devices = await node.devices()
    for accuracy in (EXACT, Accuracy(0.1, "other")):
        await devices.program(node.key(accuracy))
        assert devices.state(node.key(accuracy)) is None
    ideal = await node.devices(crossbar.profile("ideal"))
    await ideal.program(node.key())
    assert ideal.state(node.key()) is None


async def test_noise_belongs_to_the_column_not_to_its_company(node: Node) -> None:
    devices = await node.devices()
    await devices.program(node.key())
    partition = devices.get(node.key())
    assert partition is not None
    panel = np.random.default_rng(1).standard_normal((5, COLUMNS)).astype(np.float32)
    keys = noise_keys(TARGET, 5, request=9)
    joined = partition.multiply(panel, keys)
    scale = float(np.abs(joined).max())
    for column in range(5):
        alone = partition.multiply(panel[column : column + 1], keys[column : column + 1])
        # An ADC may round a tie the other way where sums are added in another order.
        assert np.mean(np.abs(alone[0] - joined[column]) > 1e-5 * scale) < 0.02
    assert not np.allclose(partition.multiply(panel, noise_keys(TARGET, 5, request=10)), joined)


async def test_a_node_that_starts_again_has_the_same_devices(node: Node, wall: list[float]) -> None:
    first = await node.devices()
    await first.program(node.key())
    before = answer(first, node.key(), request=3)
    wall[0] += 30 * 86400
    second = await node.devices()
    await second.program(node.key())
    assert np.array_equal(answer(second, node.key(), request=3), before)
    assert second.age_s(second.state(node.key())) == 30 * 86400  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [programming.ENGINE_VERSION - 1, programming.ENGINE_VERSION + 1])
async def test_state_of_another_version_is_made_anew(node: Node, version: int, wall: list[float]) -> None:
    first = await node.devices()
    await first.program(node.key())
    (row,) = await node.database.read(programmed_table.load)
    wall[0] += 100
    other = replace(row, engine_version=version, plan="{}")
    await node.database.write(lambda connection: programmed_table.keep(connection, other))
    second = await node.devices()
    await second.program(node.key())
    (row,) = await node.database.read(programmed_table.load)
    assert (row.engine_version, row.programmed_at_s) == (programming.ENGINE_VERSION, wall[0])


async def test_a_damaged_row_or_an_edited_profile_is_planned_anew(node: Node, wall: list[float]) -> None:
    first = await node.devices()
    await first.program(node.key())
    (row,) = await node.database.read(programmed_table.load)
    damaged = replace(row, plan="nonsense")
    await node.database.write(lambda connection: programmed_table.keep(connection, damaged))
    wall[0] += 100
    second = await node.devices()
    await second.program(node.key())
    assert second.state(node.key()).programmed_at_s == wall[0]  # type: ignore[union-attr]
    wall[0] += 100
    edited = await node.devices(replace(PLAIN, adc_bits=10))
    await edited.program(node.key())
    assert edited.state(node.key()).programmed_at_s == wall[0]  # type: ignore[union-attr]


async def test_too_few_cells_are_computed_exactly(node: Node) -> None:
    devices = await node.devices(cells=10)
    await devices.program(node.key())
    state = devices.state(node.key())
    assert state is not None
    assert state.digital_because
    assert devices.get(node.key()) is None
    assert devices.cells.usage.used == 0


async def test_demanded_devices_that_cannot_are_an_error(node: Node) -> None:
    devices = await node.devices(cells=10)
    with pytest.raises(TargetUnreachable):
        await devices.program(node.key(Accuracy(0.1, "plain")))


async def test_without_kernels_arithmetic_is_exact_and_a_demand_fails(node: Node) -> None:
    devices = await node.devices(kernels=ReadyKernels(KernelsUnavailable("no compiler", why="gone")))
    await devices.program(node.key())
    assert devices.state(node.key()).digital_because == "no compiler"  # type: ignore[union-attr]
    with pytest.raises(SedmadError, match="cannot be simulated"):
        await devices.program(node.key(Accuracy(0.1, "plain")))


async def test_devices_that_drifted_are_programmed_again(node: Node, wall: list[float]) -> None:
    devices = await node.devices(DRIFTING)
    await devices.program(node.key())
    young = devices.state(node.key())
    assert young is not None
    assert young.partition is not None
    wall[0] += 600
    await devices.look_at_ages()
    aged = devices.state(node.key())
    assert aged is not None
    assert (aged.seed, aged.simulated_age_s) == (young.seed, 480)
    assert not np.array_equal(answer(devices, node.key(), 3), _answer_of(young))
    wall[0] += programming.PLANNED_AGE_S
    await devices.look_at_ages()
    again = devices.state(node.key())
    assert again is not None
    assert again.seed != young.seed
    assert (again.programmed_at_s, again.simulated_age_s) == (wall[0], 0)
    assert devices.cells.usage.used == again.cells


def _answer_of(state: programming.Programmed) -> np.ndarray[Any, Any]:
    assert state.partition is not None
    panel = np.random.default_rng(1).standard_normal((3, COLUMNS)).astype(np.float32)
    return state.partition.multiply(panel, noise_keys(TARGET, 3, 3))


async def test_rows_of_bytes_that_left_are_forgotten(node: Node) -> None:
    devices = await node.devices()

    async def programmed() -> bool:
        return devices.state(node.key()) is not None

    async def forgotten() -> bool:
        return not await node.database.read(programmed_table.load)

    async with trio.open_nursery() as nursery:
        await nursery.start(devices.run)
        devices.program_soon(node.key())
        await until(programmed)
        devices.drop(node.digest)
        await until(forgotten)
        nursery.cancel_scope.cancel()


def test_ages_are_simulated_in_steps() -> None:
    assert [simulated_age_s(age) for age in (0, 59, 60, 119, 120, 3600)] == [0, 0, 60, 60, 120, 1920]


def test_noise_keys_are_one_for_each_column() -> None:
    request = wire.MultiplyPartitionsRequest(columns=3, request_id=7)
    assert len(keys_of(request, EXACT)) == 0
    assert np.array_equal(keys_of(request, TARGET), noise_keys(TARGET, 3, 7))
    request.noise_keys.extend([1, 2**64 - 1])
    with pytest.raises(SedmadError):
        keys_of(request, TARGET)
    request.noise_keys.append(5)
    assert keys_of(request, TARGET).tolist() == [1, 2**64 - 1, 5]
