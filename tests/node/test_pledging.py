"""Under pressure a node gives memory back before the kernel takes it, says what it is short of, and recovers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from examples import matrix
from rig import PLEDGE_BYTES, RigNode, until

from sedmad.core.pressure import MemoryReading
from sedmad.node import machine
from sedmad.node.machine import read_memory
from sedmad.node.pledging import PledgingService
from sedmad.sizes import GIB, MIB

RigFactory = Callable[..., Any]
W = matrix(300, 50)
SIZE = W.nbytes


class Machine:
    """A machine with as much memory left as a test says."""

    def __init__(self, available_bytes: int) -> None:
        self.available_bytes = available_bytes

    def read(self) -> MemoryReading:
        return MemoryReading(GIB, self.available_bytes)


def service_of(node: RigNode, machine: Machine) -> PledgingService:
    membership: Any = node.membership
    return PledgingService(
        pledged_bytes=PLEDGE_BYTES,
        read=machine.read,
        database=node.database,
        membership=membership,
        manifests=node.manifests,
        holding=node.holding,
        healing=node.healing,
    )


async def test_what_others_take_is_given_up_and_had_again(rig: RigFactory) -> None:
    async with rig("ann") as nodes:
        ann = nodes["ann"]
        matrices = {f"w{seed}": matrix(300, 50, seed=seed) for seed in range(4)}
        for name, w in matrices.items():
            await ann.put(name, w)
        reserve_bytes = MemoryReading(GIB, 0).reserve_bytes
        machine = Machine(reserve_bytes - 2 * SIZE)
        service = service_of(ann, machine)
        await service.look()
        assert ann.used() == (2 * SIZE, 0, 4 * SIZE, 0)
        assert service.lowered_bytes == PLEDGE_BYTES - 2 * SIZE
        advert = ann.membership.core.advert
        assert (advert.memory_pledged_bytes, advert.memory_short_bytes) == (2 * SIZE, 2 * SIZE)
        for name, w in matrices.items():
            assert await ann.get(name) == w.tobytes()
        # A little more changes nothing; plenty brings everything back.
        machine.available_bytes = reserve_bytes + SIZE
        await service.look()
        assert ann.used()[0] == 2 * SIZE
        machine.available_bytes = GIB
        await service.look()

        async def back() -> bool:
            return ann.used() == (4 * SIZE, 0, 4 * SIZE, 0)

        await until(back)
        assert service.lowered_bytes == 0


async def test_a_put_that_was_promised_more_memory_is_kept_and_gives_it_up_then(
    rig: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig("ann") as nodes:
        ann = nodes["ann"]
        service = service_of(ann, Machine(0))
        hold = ann.holding.hold

        async def hold_under_pressure(*arguments: Any) -> None:
            await service.look()
            await hold(*arguments)

        monkeypatch.setattr(ann.holding, "hold", hold_under_pressure)
        await ann.put("w", W)
        assert ann.ledger.memory.pledged_bytes == 0
        assert ann.used() == (SIZE, 0, SIZE, 0)
        await service.look()
        assert ann.used() == (0, 0, SIZE, 0)
        assert await ann.get("w") == W.tobytes()


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


@pytest.mark.parametrize("version", [1, 2])
def test_a_container_bounds_what_there_is(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "memory_total_bytes", lambda: 16 * GIB)
    monkeypatch.setattr(machine, "memory_free_bytes", lambda: 8 * GIB)
    own = tmp_path / "self"
    if version == 2:
        own.write_text("0::/box/inner\n")
        group(tmp_path / "box" / "inner", memory__max="max\n", memory__current="1\n", memory__stat="")
        group(
            tmp_path / "box",
            memory__max=str(GIB),
            memory__current=str(900 * MIB),
            memory__stat=f"anon 5\ninactive_file {100 * MIB}\nactive_file 7\n",
        )
    else:
        own.write_text("4:memory:/box\n3:cpu:/\n")
        group(
            tmp_path / "memory" / "box",
            memory__limit_in_bytes=str(GIB),
            memory__usage_in_bytes=str(900 * MIB),
            memory__stat=f"inactive_file 3\ntotal_inactive_file {100 * MIB}\n",
        )
        group(tmp_path / "memory", memory__limit_in_bytes=str(1 << 62), memory__usage_in_bytes="1")
    assert read_memory(tmp_path, own) == MemoryReading(GIB, 224 * MIB)


def test_without_groups_the_machine_counts(tmp_path: Path) -> None:
    reading = read_memory(tmp_path, tmp_path / "missing")
    assert 0 < reading.available_bytes <= reading.limit_bytes == machine.memory_total_bytes()
