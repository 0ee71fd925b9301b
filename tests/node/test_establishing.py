"""A changed manifest counts when most guardians have it on disk, and not before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from examples import matrix
from rig import RigNode, fails_with

from sedmad.errors import NotEnoughPeers, StaleManifest
from sedmad.net.identity import Identity
from sedmad.node.manifest import Manifest, sign_manifest
from sedmad.node.succession import Vote, sign_vote, succession
from sedmad.wire import messages as wire

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


def passed_on(
    manifest: Manifest, candidate: Identity, voters: list[RigNode], epoch: int
) -> wire.SignedManifest:
    """Return what a candidate writes who has these votes."""
    vote = Vote(manifest.key, epoch, candidate.peer_id, "")
    votes = [sign_vote(replace(vote, guardian=voter.peer_id), voter.identity) for voter in voters]
    link = succession(manifest.guardianship, votes)
    successions = (*manifest.successions, link)
    taken = replace(
        manifest, owner=candidate.peer_id, epoch=epoch, seq=manifest.seq + 1, successions=successions
    )
    return sign_manifest(taken, candidate)


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
