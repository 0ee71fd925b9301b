"""A guardian's promise is on its disk before anybody hears of it, or is not given."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import trio
from examples import matrix
from rig import RigNode, fails_with
from stand_ins import PeerCall

from sedmad.errors import DiskFull, SedmadError, StaleManifest
from sedmad.node.manifest import sign_manifest
from sedmad.node.owning import OwningService
from sedmad.node.succession import key_to_wire
from sedmad.store import promises
from sedmad.store.promises import StoredPromise
from sedmad.wire import messages as wire

RigFactory = Callable[..., Any]


@asynccontextmanager
async def owning_of(node: RigNode) -> AsyncIterator[OwningService]:
    membership: Any = node.membership
    sessions: Any = node.sessions
    owning = OwningService(
        identity=node.identity,
        database=node.database,
        sessions=sessions,
        membership=membership,
        manifests=node.manifests,
        establishing=node.establishing,
        rng=random.Random(0),
        promised=(),
        compare_with=lambda peer_id: None,
        on_won=lambda manifest: None,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(owning.run)
        yield owning
        nursery.cancel_scope.cancel()


async def test_a_promise_is_on_disk_when_it_is_given(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        ann, ben = nodes["ann"], nodes["ben"]
        _, manifest, _ = await ann.put("w", matrix(300, 50), survive=1)
        request = wire.PromiseVoteRequest(key=key_to_wire(manifest.key), epoch=1)
        async with owning_of(ben) as owning:
            call: Any = PeerCall(ann.peer_id)
            assert (await owning.promise_vote(request, call)).HasField("promise")
        kept = await ben.database.read(partial(promises.latest, key=manifest.key))
        assert kept == StoredPromise(manifest.key, 1, ann.peer_id)


async def test_a_promise_that_the_disk_does_not_take_is_not_given(
    rig: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        ann, ben = nodes["ann"], nodes["ben"]
        _, manifest, _ = await ann.put("w", matrix(300, 50), survive=1)
        request = wire.PromiseVoteRequest(key=key_to_wire(manifest.key), epoch=1)

        async def full(self: object, transaction: object, **options: object) -> None:
            raise DiskFull("no space")

        async with owning_of(ben) as owning:
            monkeypatch.setattr(type(ben.database), "write", full)
            call: Any = PeerCall(ann.peer_id)
            with pytest.raises(SedmadError):
                await owning.promise_vote(request, call)
        monkeypatch.undo()
        assert await ben.database.read(partial(promises.latest, key=manifest.key)) is None


async def test_a_guardian_keeps_its_promise(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        ann, ben, cyd = (nodes[name] for name in ("ann", "ben", "cyd"))
        _, manifest, _ = await ann.put("w", matrix(300, 50), survive=1)
        given = StoredPromise(manifest.key, 1, cyd.peer_id)
        await ben.database.write(partial(promises.promise, given=given))
        changed = replace(manifest, seq=manifest.seq + 1, previous_digest=manifest.digest)
        signed = sign_manifest(changed, ann.identity)
        await fails_with(StaleManifest, partial(ben.manifests.keep, signed, established=False))
        assert ben.manifests.get_kept(manifest.key).order == manifest.order
        # What most guardians keep already was so before the promise, or comes from its winner.
        await ben.manifests.keep(signed, established=True)
        assert ben.manifests.get_kept(manifest.key).order == changed.order


async def test_an_epoch_that_no_table_holds_is_refused(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        ann, ben = nodes["ann"], nodes["ben"]
        _, manifest, _ = await ann.put("w", matrix(300, 50), survive=1)
        request = wire.PromiseVoteRequest(key=key_to_wire(manifest.key), epoch=2**63)
        async with owning_of(ben) as owning:
            call: Any = PeerCall(ann.peer_id)
            with pytest.raises(SedmadError, match="too great"):
                await owning.promise_vote(request, call)
