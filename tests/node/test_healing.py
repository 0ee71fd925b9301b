"""What a manifest gives a node, the node gets: from other holders, within its pledges, and not against a newer one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import trio
from examples import matrix
from rig import RigNode, until
from stand_ins import PeerCall

from sedmad.errors import BytesCorrupt, HoldersUnreachable
from sedmad.node import healing
from sedmad.node.manifest import Manifest, sign_manifest
from sedmad.store.holdings import Kind
from sedmad.wire import messages as wire

RigFactory = Callable[..., Any]
W = matrix(300, 50)
SIZE = W.nbytes


@pytest.fixture(autouse=True)
def soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healing, "RETRY_S", 0.05)


async def tell(owner: RigNode, node: RigNode, manifest: Manifest, *, established: bool) -> None:
    """Have an owner tell a node a manifest."""
    call: Any = PeerCall(owner.peer_id)
    signed = sign_manifest(manifest, owner.identity)
    await node.manifests.store_manifest(
        wire.StoreManifestRequest(manifest=signed, established=established), call
    )


async def test_bytes_that_changed_are_fetched_from_another_holder(rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        _, manifest, _ = await nodes["ann"].put("w", W, survive=1)
        (node,) = [node for node in nodes if node.peer_id == list(manifest.copies[0])[1]]
        digest = manifest.digests[0]
        path = node.blobs.directory / digest.hex()[:2] / digest.hex()
        path.chmod(0o600)
        path.write_bytes(bytes(SIZE))
        with pytest.raises(BytesCorrupt):
            await node.residents.get(digest, 300, 50, "float32")

        async def healed() -> bool:
            return node.blobs.contains(digest) and node.used()[2] == SIZE

        await until(healed)
        assert path.read_bytes() == W.tobytes()
        await node.residents.get(digest, 300, 50, "float32")


async def test_a_copy_that_a_manifest_gives_is_fetched_when_there_is_room(rig: RigFactory) -> None:
    async with rig("ann", "ben", pledges={"ann": 4 * SIZE, "ben": 0}) as nodes:
        ann, ben = nodes["ann"], nodes["ben"]
        _, manifest, _ = await ann.put("w", W)
        given = replace(manifest, seq=2, copies=({ann.peer_id: Kind.STANDBY, ben.peer_id: Kind.RESIDENT},))
        await tell(ann, ben, given, established=True)
        await trio.sleep(0.2)
        assert ben.used() == (0, 0, 0, 0)
        ben.ledger._memory_pledged_bytes = ben.ledger._disk_pledged_bytes = SIZE

        async def fetched() -> bool:
            return ben.used() == (SIZE, 0, SIZE, 0)

        await until(fetched)
        assert [holding.kind for holding in await ben.held()] == [Kind.RESIDENT]
        # Back to standby, and away again: nothing but what the newest manifest says.
        standby = replace(given, seq=3, copies=({ann.peer_id: Kind.RESIDENT, ben.peer_id: Kind.STANDBY},))
        await tell(ann, ben, standby, established=True)
        assert ben.used() == (0, 0, SIZE, 0)
        await tell(ann, ben, replace(standby, seq=4, copies=manifest.copies), established=True)
        await ben.is_empty()


async def test_room_for_a_copy_that_could_not_be_fetched_is_offered_again(
    rig: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig("ann", "ben") as nodes:
        ann, ben = nodes["ann"], nodes["ben"]
        _, manifest, _ = await ann.put("w", W)
        given = replace(manifest, seq=2, copies=({ann.peer_id: Kind.RESIDENT, ben.peer_id: Kind.STANDBY},))
        asked = trio.Event()

        async def nobody_has_it(*arguments: Any) -> None:
            # Something else tells what is used, with what was set aside.
            ben.holding.changed()
            assert ben.membership.core.advert.disk_used_bytes == SIZE
            asked.set()
            raise HoldersUnreachable("a partition could not be fetched")

        monkeypatch.setattr(healing, "fetch_partition", nobody_has_it)
        monkeypatch.setattr(healing, "RETRY_S", 3600.0)
        await tell(ann, ben, given, established=True)
        await asked.wait()

        async def offered() -> bool:
            return bool(ben.membership.core.advert.disk_used_bytes == 0)

        await until(offered)


async def test_a_copy_larger_than_what_is_left_of_a_pledge_is_not_fetched(rig: RigFactory) -> None:
    async with rig("ann", "ben", pledges={"ann": 4 * SIZE, "ben": SIZE // 4}) as nodes:
        ann, ben = nodes["ann"], nodes["ben"]
        _, manifest, _ = await ann.put("w", W)
        for seq, kind in enumerate((Kind.STANDBY, Kind.RESIDENT), start=2):
            copies = ({ann.peer_id: Kind.RESIDENT, ben.peer_id: kind},)
            await tell(ann, ben, replace(manifest, seq=seq, copies=copies), established=True)
            await trio.sleep(0.1)
            assert ben.used() == (0, 0, 0, 0)
            assert (ben.blobs.digests(), await ben.held()) == (frozenset(), [])


async def test_what_is_not_established_only_adds(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        ann, ben, cyd = nodes["ann"], nodes["ben"], nodes["cyd"]
        _, manifest, _ = await ann.put("w", W, survive=2)
        before = {node.name: await node.held() for node in nodes}
        moved = replace(manifest, seq=2, copies=({ann.peer_id: manifest.copies[0][ann.peer_id]},))
        for node in (ben, cyd):
            await tell(ann, node, moved, established=False)
            assert await node.held() == before[node.name]
        await tell(ann, ben, moved, established=True)
        await ben.is_empty()
        assert await cyd.held() == before["cyd"]


async def test_nobody_heals_what_was_removed_meanwhile(rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        ann, ben = nodes["ann"], nodes["ben"]
        _, manifest, _ = await ann.put("w", W)
        given = replace(manifest, seq=2, copies=({ann.peer_id: Kind.RESIDENT, ben.peer_id: Kind.STANDBY},))
        fetching = trio.Event()

        async def pause(peer_id: str) -> None:
            fetching.set()
            await trio.sleep(0.1)

        held = ben.holding.need
        ben.holding.need = partial(_paused, held, pause)
        await tell(ann, ben, given, established=True)
        await fetching.wait()
        await tell(ann, ben, replace(given, seq=3, removed=True), established=True)
        await trio.sleep(0.3)
        await ben.is_empty()


async def _paused(action: Callable[[bytes], Any], pause: Callable[[str], Any], digest: bytes) -> None:
    await action(digest)
    await pause("")
