"""What a node takes up when it starts again on what lies on its disk."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from examples import matrix
from rig import PLEDGE_BYTES, Rig, RigNode, fails_with, until

from sedmad.errors import BytesCorrupt
from sedmad.store import holdings
from sedmad.store.holdings import Holding, Kind, State

RigFactory = Callable[..., Any]
W = matrix(300, 50)
SIZE = W.nbytes


def path_of(node: RigNode, digest: bytes) -> Path:
    return node.blobs.directory / digest.hex()[:2] / digest.hex()


async def restarted(nodes: Rig, name: str, pledge_bytes: int = PLEDGE_BYTES) -> RigNode:
    node = nodes[name]
    await nodes.stop(name)
    return await nodes.restart(name, node, pledge_bytes)


async def test_copies_are_what_they_were(rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        await nodes["ann"].put("w", W, survive=1)
        before = {node.name: (node.used(), await node.held()) for node in nodes}
        for name in ("ann", "ben"):
            node = await restarted(nodes, name)
            assert (node.used(), await node.held()) == before[name]
        for node in nodes:
            assert await node.get("w") == W.tobytes()
        await nodes["ben"].removing.remove("w")
        for node in nodes:
            await node.is_empty()


async def test_a_copy_of_no_matrix_is_dropped_and_its_bytes_deleted(rig: RigFactory) -> None:
    async with rig("ann") as nodes:
        ann = nodes["ann"]
        _, manifest, _ = await ann.put("w", W)
        async with ann.blobs.create(4) as writer:
            await writer.write(b"four")
            digest = await writer.commit()
        pending = Holding(b"p" * 16, 0, digest, Kind.RESIDENT, 4, State.PENDING)
        shared = Holding(b"p" * 16, 1, manifest.digests[0], Kind.STANDBY, SIZE, State.PENDING)
        for holding in (pending, shared):
            await ann.database.write(partial(holdings.hold, holding=holding))
        ann = await restarted(nodes, "ann")
        await ann.settled()
        assert [holding.state for holding in await ann.held()] == [State.ACTIVE]
        assert ann.used() == (SIZE, 0, SIZE, 0)
        assert ann.blobs.digests() == {manifest.digests[0]}


async def test_bytes_that_nothing_names_are_deleted(rig: RigFactory) -> None:
    async with rig("ann") as nodes:
        async with nodes["ann"].blobs.create(4) as writer:
            await writer.write(b"four")
            await writer.commit()
        ann = await restarted(nodes, "ann")
        await ann.is_empty()


@pytest.mark.parametrize("place", [0, 1], ids=["resident", "standby"])
@pytest.mark.parametrize("damage", ["gone", "changed"])
async def test_a_copy_whose_bytes_are_gone_or_changed_is_fetched_again(
    damage: str, place: int, rig: RigFactory
) -> None:
    async with rig("ann", "ben") as nodes:
        _, manifest, _ = await nodes["ann"].put("w", W, survive=1)
        holder = list(manifest.copies[0])[place]
        (node,) = [node for node in nodes if node.peer_id == holder]
        before = (node.used(), await node.held())
        path = path_of(node, manifest.digests[0])
        if damage == "gone":
            path.unlink()
        else:
            path.chmod(0o600)
            path.write_bytes(bytes(SIZE))
        node = await restarted(nodes, node.name)
        assert await node.get("w") == W.tobytes()

        async def healed() -> bool:
            return (node.used(), await node.held()) == before and path.exists()

        if damage == "gone" or manifest.copies[0][holder] is Kind.RESIDENT:
            await until(healed)
            assert path.read_bytes() == W.tobytes()


async def test_a_standby_copy_whose_bytes_changed_never_answers(rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        _, manifest, _ = await nodes["ann"].put("w", W, survive=1)
        standby = list(manifest.copies[0])[1]
        (node,) = [node for node in nodes if node.peer_id == standby]
        path = path_of(node, manifest.digests[0])
        path.chmod(0o600)
        path.write_bytes(bytes(SIZE))
        await fails_with(BytesCorrupt, partial(node.residents.get, manifest.digests[0], 300, 50, "float32"))


@pytest.mark.parametrize("pledge_bytes", [0, SIZE, 2 * SIZE])
async def test_with_a_lowered_pledge_copies_stay_and_fewer_are_resident(
    pledge_bytes: int, rig: RigFactory
) -> None:
    async with rig("ann") as nodes:
        matrices = {f"w{seed}": matrix(300, 50, seed=seed) for seed in range(3)}
        for name, w in matrices.items():
            await nodes["ann"].put(name, w)
        ann = await restarted(nodes, "ann", pledge_bytes)
        assert ann.used() == (pledge_bytes, 0, 3 * SIZE, 0)
        for name, w in matrices.items():
            assert await ann.get(name) == w.tobytes()
        # Nothing was forgotten: with the old pledge all are resident again.
        ann = await restarted(nodes, "ann")
        assert ann.used() == (3 * SIZE, 0, 3 * SIZE, 0)
        ann = await restarted(nodes, "ann", pledge_bytes)
        for name in matrices:
            await ann.removing.remove(name)
        await ann.is_empty()
