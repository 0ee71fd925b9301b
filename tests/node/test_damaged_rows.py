"""Rows whose bits flipped in a database that is sound as such: found by signatures, and never the end of the rest."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from examples import matrix
from rig import Rig, RigNode

from sedmad.store.database import Connection

RigFactory = Callable[..., Any]
W, OTHER = matrix(300, 50), matrix(300, 50, seed=1)


async def restarted(nodes: Rig, name: str) -> RigNode:
    node = nodes[name]
    await nodes.stop(name)
    return await nodes.restart(name, node)


def flip_manifest(connection: Connection, digest: bytes) -> None:
    (signed,) = connection.execute(
        "SELECT signed FROM manifest WHERE matrix_digest = ?", (digest,)
    ).fetchone()
    flipped = bytearray(signed)
    flipped[len(flipped) // 2] ^= 16
    connection.execute("UPDATE manifest SET signed = ? WHERE matrix_digest = ?", (bytes(flipped), digest))


def flip_holding(connection: Connection) -> None:
    connection.execute("UPDATE holding SET kind = 'residenu' WHERE partition_index = 0")


@pytest.mark.parametrize("with_snapshot", [True, False])
async def test_a_damaged_manifest_is_taken_from_the_snapshot_or_left_out(
    rig: RigFactory, with_snapshot: bool
) -> None:
    async with rig("ann") as nodes:
        ann = nodes["ann"]
        _, manifest, _ = await ann.put("w", W)
        await ann.put("other", OTHER)
        if with_snapshot:
            await ann.database.snapshot()
        await ann.database.write(partial(flip_manifest, digest=manifest.key.matrix_digest))
        ann = await restarted(nodes, "ann")
        assert await ann.get("other") == OTHER.tobytes()
        # Whoever knows the matrix may still tell: its bytes stay until others were asked.
        assert ann.database.restored_from is not None
        assert ann.blobs.contains(manifest.digests[0])
        assert (ann.manifests.get_kept(manifest.key) is not None) == with_snapshot
        if with_snapshot:
            assert await ann.get("w") == W.tobytes()
        await ann.database.reconciled()
        ann = await restarted(nodes, "ann")
        assert ann.database.restored_from is None
        assert ann.manifests.damaged == []


async def test_a_damaged_holding_costs_one_copy_only(rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        await nodes["ann"].put("w", W, survive=1)
        await nodes["ann"].database.write(flip_holding)
        ann = await restarted(nodes, "ann")
        for node in nodes:
            assert await node.get("w") == W.tobytes()
        assert ann.manifests.kept()


async def test_a_sound_store_is_trusted(rig: RigFactory, tmp_path: Path) -> None:
    async with rig("ann") as nodes:
        await nodes["ann"].put("w", W)
        ann = await restarted(nodes, "ann")
        assert ann.database.restored_from is None
        assert not (tmp_path / "ann" / "store.db.restored").exists()
