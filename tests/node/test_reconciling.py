"""A node that was away learns what it missed: newer manifests, ends of matrices, and copies that it should have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.lowlevel
from examples import matrix
from rig import RigNode, until

from sedmad.node import reconciling
from sedmad.node.manifest import Manifest
from sedmad.store.holdings import Kind

RigFactory = Callable[..., Any]
W = matrix(300, 50)
SIZE = W.nbytes


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciling, "AFTER_MEETING_S", 0.0)
    monkeypatch.setattr(reconciling, "ROUND_S", 0.05)


async def established(owner: RigNode, manifest: Manifest) -> Manifest:
    kept = await owner.manifests.store_own(manifest)
    await owner.manifests.establish(kept.manifest.key, kept.manifest.order)
    return kept.manifest


async def knows(node: RigNode, manifest: Manifest) -> None:
    async def same() -> bool:
        return node.manifests.get_kept(manifest.key) == manifest

    await until(same)


async def test_news_and_ends_reach_who_was_away(rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        ann, ben = nodes["ann"], nodes["ben"]
        _, manifest, _ = await ann.put("w", W, survive=1)
        _, other, _ = await ann.put("v", matrix(200, 50), survive=1)
        nodes.cut("ann", "ben")
        last = await established(ann, replace(manifest, seq=5, written_at_s=1.0))
        await established(ann, replace(other, seq=9, removed=True))
        nodes.connect("ann", "ben")
        ben.reconciling.meet(ann.peer_id)
        await knows(ben, last)

        async def gone() -> bool:
            return ben.manifests.get_kept(other.key) is None

        await until(gone)
        await ben.settled()
        assert await ben.get("w") == W.tobytes()


async def test_rounds_find_what_meetings_did_not(rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        ann, ben = nodes["ann"], nodes["ben"]
        _, manifest, _ = await ann.put("w", W, survive=1)
        await knows(ben, await established(ann, replace(manifest, seq=5)))


async def test_a_claim_tells_a_holder_of_a_newer_manifest(rig: RigFactory, monkeypatch: Any) -> None:
    monkeypatch.setattr(reconciling, "ROUND_S", 1e9)
    async with rig("ann", "ben") as nodes:
        ann, ben = nodes["ann"], nodes["ben"]
        claim, manifest, _ = await ann.put("w", W, survive=1)
        last = await established(ann, replace(manifest, seq=5))
        ben.reconciling.on_claim(replace(claim, seq=5))
        await knows(ben, last)


async def test_a_manifest_that_came_by_another_way_is_known_as_established(rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        ann, ben = nodes["ann"], nodes["ben"]
        _, manifest, _ = await ann.put("w", W, survive=1)
        fewer = replace(manifest, seq=2, copies=({ann.peer_id: Kind.RESIDENT},))
        kept = await ann.manifests.store_own(fewer)
        await ben.manifests.keep(kept.signed, established=False)
        assert len(await ben.held()) == 1
        await ann.manifests.establish(kept.manifest.key, kept.manifest.order)
        await ben.is_empty()


async def test_an_owner_that_lost_its_disk_learns_its_matrices_again(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        ann, ben, cyd = nodes["ann"], nodes["ben"], nodes["cyd"]
        _, manifest, _ = await ann.put("w", W, survive=2)
        # As if it had started on an empty disk.
        key = manifest.key
        ann.manifests._kept.clear()

        def forget(connection: Any) -> None:
            connection.execute("DELETE FROM manifest")

        await ann.database.write(forget)
        for node in (ben, cyd):
            node.reconciling.meet(ann.peer_id)

        async def back() -> bool:
            kept = ann.manifests.get_kept(key)
            return kept is not None and kept.owner == ann.peer_id

        await until(back)
        await trio.lowlevel.checkpoint()
