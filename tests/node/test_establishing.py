"""A changed manifest counts when most guardians have it on disk, and not before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from examples import matrix
from passing_on import passed_on
from rig import fails_with

from sedmad.core.membership.directory import Directory
from sedmad.errors import NotEnoughPeers, StaleManifest
from sedmad.node.keeping import load_records
from sedmad.node.manifest import read_manifest, sign_manifest
from sedmad.node.repair_step import successor

RigFactory = Callable[..., Any]


async def test_too_few_guardians_establish_nothing(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        ann = nodes["ann"]
        _, manifest, _ = await ann.put("w", matrix(300, 50), survive=1)
        assert len(manifest.guardians) == 3
        for other in ("ben", "cyd"):
            nodes.cut("ann", other)
        changed = replace(manifest, seq=manifest.seq + 1, previous_digest=manifest.digest)
        await fails_with(NotEnoughPeers, partial(ann.establishing.establish, changed))
        kept = ann.manifests.get(manifest.key)
        assert (kept.manifest.order, kept.established) == (changed.order, False)


async def test_most_of_them_do(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        ann, ben = nodes["ann"], nodes["ben"]
        _, manifest, _ = await ann.put("w", matrix(300, 50), survive=1)
        nodes.cut("ann", "cyd")
        changed = replace(manifest, seq=manifest.seq + 1, previous_digest=manifest.digest)
        await ann.establishing.establish(changed)
        for node in (ann, ben):
            kept = node.manifests.get(manifest.key)
            assert (kept.manifest.order, kept.established) == (changed.order, True)


async def test_who_names_itself_alone_as_guardian_needs_those_before(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        ann = nodes["ann"]
        _, manifest, _ = await ann.put("w", matrix(300, 50), survive=1)
        for other in ("ben", "cyd"):
            nodes.cut("ann", other)
        alone = replace(
            manifest, seq=manifest.seq + 1, previous_digest=manifest.digest, guardians=(ann.peer_id,)
        )
        await fails_with(NotEnoughPeers, partial(ann.establishing.establish, alone))


async def test_an_owner_has_to_follow_the_one_before(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        ann, ben, cyd = (nodes[name] for name in ("ann", "ben", "cyd"))
        _, first, _ = await ann.put("w", matrix(300, 50), survive=1)
        voters = [ben, cyd]
        await ann.manifests.keep(passed_on(first, ben.identity, voters, 1), established=True)
        second = ann.manifests.get_kept(first.key)
        # Valid by itself, from votes on what was no longer the newest.
        beside = passed_on(first, cyd.identity, voters, 2)
        await fails_with(StaleManifest, partial(ann.manifests.keep, beside, established=True))
        assert ann.manifests.get_kept(first.key) == second
        await ann.manifests.keep(passed_on(second, cyd.identity, voters, 2), established=True)
        assert ann.manifests.get_kept(first.key).owner == cyd.peer_id


async def test_who_becomes_a_guardian_keeps_the_names(rig: RigFactory) -> None:
    """The next owner is one of them, and would free a matrix that it knows no name of."""
    async with rig("ann", "ben", "cyd", "dan") as nodes:
        ann = nodes["ann"]
        for name in ("w", "v"):
            await ann.put(name, matrix(300, 50), survive=0)
        (manifest,) = ann.manifests.kept()
        (newcomer,) = (node for node in nodes if node.peer_id not in manifest.guardians)
        # Gossip never reached it.
        newcomer.membership.core.directory = Directory()
        await newcomer.database.write(lambda connection: connection.execute("DELETE FROM record"))
        guardians = (*manifest.guardians[:-1], newcomer.peer_id)
        await ann.establishing.propose(successor(manifest, guardians=guardians))
        kept = await load_records(newcomer.database)
        assert {record.record.name for record in kept} == {"w", "v"}
        key = manifest.key
        assert len(newcomer.membership.core.directory.naming(key.matrix_digest, key.first_owner)) == 2


async def test_a_matrix_that_began_again_is_taken_where_its_end_was_missed(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        ann, ben, cyd = (nodes[name] for name in ("ann", "ben", "cyd"))
        _, first, _ = await ann.put("w", matrix(300, 50), survive=1)
        # Ben owned it, and its end is missed by both; ann stored it again.
        passed = passed_on(first, ben.identity, [ben, cyd], 1)
        for away in (ben, cyd):
            await away.manifests.keep(passed, established=True)
        begun = replace(read_manifest(passed), owner=ann.peer_id, epoch=2, seq=4, successions=())
        anew = sign_manifest(begun, ann.identity)
        await fails_with(StaleManifest, partial(cyd.manifests.keep, anew, established=False))
        await cyd.manifests.keep(anew, established=True)
        assert cyd.manifests.get_kept(first.key).order == (2, 4)
        # Ben hears of it only when it has been passed on again.
        again = passed_on(read_manifest(anew), cyd.identity, [ben, cyd], 3)
        await ben.manifests.keep(again, established=True)
        assert ben.manifests.get_kept(first.key).order == (3, 5)


async def test_what_is_in_doubt_gives_way_to_what_was_established_without_it(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        ann, ben, cyd = (nodes[name] for name in ("ann", "ben", "cyd"))
        _, first, _ = await ann.put("w", matrix(300, 50), survive=1)
        # Ben wins, and nobody hears of it; cyd wins after it, asking others.
        await ben.manifests.keep(passed_on(first, ben.identity, [ann, ben], 1), established=False)
        beside = passed_on(first, cyd.identity, [ann, cyd], 2)
        await fails_with(StaleManifest, partial(ben.manifests.keep, beside, established=False))
        await ben.manifests.keep(beside, established=True)
        assert ben.manifests.get_kept(first.key).owner == cyd.peer_id
