from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import trio
from examples import matrix
from rig import RigNode, fails_with
from stand_ins import PeerCall

from sedmad.errors import (
    HoldersUnreachable,
    MatrixNotFound,
    NotPermitted,
    ProtocolViolation,
    StaleManifest,
)
from sedmad.node.manifest import sign_manifest
from sedmad.node.succession import key_to_wire
from sedmad.wire import messages as wire

RigFactory = Callable[..., Any]
W = matrix(300, 50)


async def look_up(node: RigNode, name: str, **options: Any) -> Any:
    claim = node.membership.core.directory.get(name)
    return await node.lookups.look_up(claim, deadline=trio.current_time() + 5, **options)


async def test_guardians_are_asked_first_and_the_answer_is_remembered(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd", "dan") as nodes:
        _, manifest, _ = await nodes["ann"].put("w", W)
        (outside,) = [node for node in nodes if node.peer_id not in {*manifest.guardians, *manifest.holders}]
        assert outside.lookups.known(manifest.key) is None
        assert await look_up(outside, "w") == manifest
        assert [verb for _, verb in outside.sessions.calls] == ["GetManifest"]
        assert outside.sessions.calls[0][0] in manifest.guardians
        assert await look_up(outside, "w") == manifest
        assert len(outside.sessions.calls) == 1


async def test_who_cannot_be_reached_is_named(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd", "dan") as nodes:
        _, manifest, _ = await nodes["ann"].put("w", W)
        (outside,) = [node for node in nodes if node.peer_id not in {*manifest.guardians, *manifest.holders}]
        others = [node for node in nodes if node is not outside]
        for other in others[:-1]:
            nodes.cut(outside.name, other.name)

        async def answer_nothing(peer_id: str) -> None:
            raise HoldersUnreachable("no")

        outside.sessions.before["GetManifest"] = answer_nothing
        error = await fails_with(HoldersUnreachable, partial(look_up, outside, "w"))
        assert others[-1].name in error.why
        assert error.matrix == "w"


async def test_a_stale_manifest_is_not_taken_again_for_an_answer(rig: RigFactory) -> None:
    """A node that missed a newer manifest asks for it, though the name's claim speaks of the old one."""
    async with rig("ann", "ben", "cyd") as nodes:
        ann, ben = nodes["ann"], nodes["ben"]
        _, old, _ = await ann.put("w", W, survive=1)
        kept = await ann.manifests.store_own(replace(old, seq=old.seq + 1, previous_digest=old.digest))
        new = kept.manifest
        assert await look_up(ben, "w") == old
        assert await look_up(ben, "w", after=old) == new
        assert ben.lookups.known(old.key) == new
        assert await look_up(ben, "w") == new


async def test_an_older_manifest_is_refused_and_an_equal_one_changes_nothing(rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        ann, ben = nodes["ann"], nodes["ben"]
        _, manifest, _ = await ann.put("w", W, survive=1)
        call: Any = PeerCall(ann.peer_id)

        def told(changed: Any, established: bool = False) -> Any:
            signed = sign_manifest(changed, ann.identity)
            request = wire.StoreManifestRequest(manifest=signed, established=established)
            return partial(ben.manifests.store_manifest, request, call)

        before = (ben.used(), await ben.held())
        await told(manifest)()
        newer = replace(manifest, seq=5)
        await told(newer)()
        await fails_with(StaleManifest, told(manifest))
        await fails_with(StaleManifest, told(replace(newer, written_at_s=7.0)))
        assert (ben.used(), await ben.held()) == before
        with pytest.raises(StaleManifest):
            ben.manifests.require_current(manifest.key, manifest.order)
        assert ben.manifests.require_current(manifest.key, (0, 5)).seq == 5
        last = replace(newer, seq=6, removed=True)
        await told(last)()
        # Nothing goes before most guardians have agreed.
        assert (ben.used(), await ben.held()) == before
        await told(last, established=True)()
        await ben.is_empty()
        await fails_with(StaleManifest, told(newer))
        with pytest.raises(MatrixNotFound):
            ben.manifests.require_current(manifest.key, (0, 6))


async def test_only_its_owner_tells_a_manifest(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        ann, ben, cyd = nodes["ann"], nodes["ben"], nodes["cyd"]
        _, manifest, _ = await ann.put("w", W)
        signed = sign_manifest(replace(manifest, seq=9, removed=True), ann.identity)
        request = wire.StoreManifestRequest(manifest=signed)
        cyds: Any = PeerCall(cyd.peer_id)
        await fails_with(NotPermitted, partial(ben.manifests.store_manifest, request, cyds))
        stolen = sign_manifest(replace(manifest, owner=cyd.peer_id, epoch=1, removed=True), cyd.identity)
        request = wire.StoreManifestRequest(manifest=stolen)
        await fails_with(Exception, partial(ben.manifests.store_manifest, request, cyds))  # type: ignore[arg-type]
        assert await ben.get("w") == W.tobytes()


async def test_manifests_are_there_after_a_restart(rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        _, manifest, _ = await nodes["ann"].put("w", W, survive=1)
        ben = nodes["ben"]
        await nodes.stop("ben")
        ben = await nodes.restart("ben", ben)
        assert ben.manifests.kept() == [manifest]
        call: Any = PeerCall("x")
        response = await ben.manifests.get_manifest(
            wire.GetManifestRequest(key=key_to_wire(manifest.key)), call
        )
        assert response.manifest == nodes["ann"].manifests.get(manifest.key).signed
        unknown = wire.GetManifestRequest(key=wire.MatrixKey(matrix_digest=bytes(32)))
        await fails_with(MatrixNotFound, partial(ben.manifests.get_manifest, unknown, call))


async def test_remembered_manifests_are_bounded(rig: RigFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sedmad.node.looking_up.CACHED_MAX", 2)
    async with rig("ann", "ben", "cyd", "dan") as nodes:
        keys = []
        for seed in range(4):
            _, manifest, _ = await nodes["ann"].put(f"w{seed}", matrix(10, 10, seed=seed))
            keys.append(manifest.key)
        (outside,) = [node for node in nodes if node.peer_id not in {*manifest.guardians, *manifest.holders}]
        for seed in range(4):
            await look_up(outside, f"w{seed}")
        assert [key for key in keys if outside.lookups.known(key)] == keys[2:]


async def test_a_malformed_answer_is_the_peers_fault(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd", "dan") as nodes:
        _, manifest, _ = await nodes["ann"].put("w", W)
        (outside,) = [node for node in nodes if node.peer_id not in {*manifest.guardians, *manifest.holders}]

        async def nonsense(*args: Any, **options: Any) -> bytes:
            return b"\xff\xff"

        outside.sessions.call = nonsense
        error = await fails_with(HoldersUnreachable, partial(look_up, outside, "w"))
        assert "ann" in error.why
        with pytest.raises(ProtocolViolation):
            await outside.lookups.ask(nodes["ann"].peer_id, manifest.key, deadline=trio.current_time() + 5)


async def test_changes_of_one_matrix_come_one_after_the_other(rig: RigFactory) -> None:
    async with rig("ann") as nodes:
        service = nodes["ann"].manifests
        _, manifest, _ = await nodes["ann"].put("w", W)
        inside: list[int] = []

        async def change(number: int) -> None:
            async with service.writing(manifest.key):
                inside.append(number)
                await trio.sleep(0.01)
                assert inside[-1] == number

        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(change, number)
        assert len(inside) == 3
        assert not service._writing
