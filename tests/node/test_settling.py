"""Changes of a matrix that failed half way: taken back, left in doubt, and settled by whoever owns it then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from examples import matrix
from passing_on import steps_of
from rig import fails_with

from sedmad.core.mending import NewCopy
from sedmad.core.partitioning import Partitioning
from sedmad.core.repair import RepairPlan
from sedmad.errors import NodeUnreachable, NotEnoughPeers
from sedmad.node.manifest import Manifest, sign_manifest
from sedmad.node.repair_step import RepairStep, successor
from sedmad.node.succession import Vote, sign_vote, succession
from sedmad.store.holdings import Kind

RigFactory = Callable[..., Any]
W = matrix(300, 50)
ONE_PARTITION = Partitioning(300, 50, 4)


def step_to(peer_id: str, manifest: Manifest) -> RepairStep:
    """Return the step that gives a node one more standby copy of the only partition."""
    (copies,) = manifest.copies
    after = {holder: kind is Kind.RESIDENT for holder, kind in copies.items()} | {peer_id: False}
    copy = NewCopy(0, peer_id, resident=False, sources=tuple(copies))
    plan = RepairPlan(ONE_PARTITION, (copy,), {0: after})
    return RepairStep(manifest, plan, manifest.survive, absent=frozenset())


async def leave_in_doubt(nodes: Any, changed: Manifest) -> None:
    """Have ann write a manifest that nobody else hears of."""
    ann = nodes["ann"]
    others = [node.name for node in nodes if node.name != "ann"]
    for other in others:
        nodes.cut("ann", other)
    await fails_with(NotEnoughPeers, partial(ann.establishing.establish, changed))
    for other in others:
        nodes.connect("ann", other)


async def lose_copies(nodes: Any, name: str) -> None:
    """Have a node come back without its bytes, and without room for new ones."""
    lost = nodes[name]
    await nodes.stop(name)
    for digest in lost.blobs.digests():
        await lost.blobs.delete(digest)
    node = await nodes.restart(name, lost, pledge_bytes=1)
    assert not await node.held()


async def test_a_holder_that_lost_its_copies_hinders_no_change_that_gives_it_none(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        ann = nodes["ann"]
        _, manifest, _ = await ann.put("w", W, survive=2)
        await lose_copies(nodes, "cyd")
        await leave_in_doubt(nodes, successor(manifest))
        doubtful = ann.manifests.get(manifest.key)
        assert not doubtful.established
        assert doubtful.manifest.copies_established
        await steps_of(ann).settle(doubtful.manifest)
        for node in nodes:
            kept = node.manifests.get(manifest.key)
            assert kept.established
            assert kept.manifest.copies == manifest.copies


async def test_a_copy_that_may_have_been_given_up_is_asked_for(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd", pledges={"cyd": 1}) as nodes:
        ann, cyd = nodes["ann"], nodes["cyd"]
        _, manifest, _ = await ann.put("w", W, survive=1)
        assert cyd.peer_id not in manifest.holders
        (copies,) = manifest.copies
        resident = next(peer_id for peer_id, kind in copies.items() if kind is Kind.RESIDENT)
        moved = successor(manifest, copies=({resident: Kind.RESIDENT, cyd.peer_id: Kind.STANDBY},))
        await leave_in_doubt(nodes, moved)
        doubtful = ann.manifests.get_kept(manifest.key)
        assert not doubtful.copies_established
        await fails_with(NotEnoughPeers, partial(steps_of(ann).settle, doubtful))
        assert not ann.manifests.get(manifest.key).established
        for node in nodes:
            assert bool(await node.held()) == (node.peer_id in manifest.holders)


async def test_the_change_that_undoes_one_counts_without_asking(rig: RigFactory) -> None:
    """A step gives cyd a copy; its manifest reaches nobody, nor does the one that takes it back."""
    async with rig("ann", "ben", "cyd") as nodes:
        ann, cyd = nodes["ann"], nodes["cyd"]
        _, manifest, _ = await ann.put("w", W, survive=1)
        assert cyd.peer_id not in manifest.holders
        step = step_to(cyd.peer_id, manifest)

        async def fail(peer_id: str) -> None:
            raise NodeUnreachable("the path is cut", node=peer_id)

        ann.sessions.before["StoreManifest"] = fail
        await fails_with(NotEnoughPeers, partial(steps_of(ann).take, step))
        kept = ann.manifests.get(manifest.key)
        assert kept.manifest.copies == manifest.copies
        assert (kept.established, kept.manifest.copies_established) == (False, True)
        assert kept.manifest.seq == manifest.seq + 2


async def test_a_step_takes_nothing_back_of_a_matrix_that_was_passed_on_meanwhile(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        ann, ben, cyd = (nodes[name] for name in ("ann", "ben", "cyd"))
        _, manifest, _ = await ann.put("w", W, survive=1)
        vote = Vote(manifest.key, 1, ben.peer_id, "")
        votes = [sign_vote(replace(vote, guardian=voter.peer_id), voter.identity) for voter in (ben, cyd)]
        taken = successor(
            manifest,
            owner=ben.peer_id,
            epoch=1,
            seq=manifest.seq + 5,
            successions=(succession(manifest.guardianship, votes),),
        )

        async def pass_on(peer_id: str) -> None:
            await ann.manifests.keep(sign_manifest(taken, ben.identity), established=True)
            raise NodeUnreachable("the path is cut", node=peer_id)

        ann.sessions.before["StoreManifest"] = pass_on
        await fails_with(NotEnoughPeers, partial(steps_of(ann).take, step_to(cyd.peer_id, manifest)))
        kept = ann.manifests.get_kept(manifest.key)
        assert (kept.owner, kept.order) == (ben.peer_id, taken.order)


async def test_what_a_change_in_doubt_dropped_counts_as_new_when_it_is_named_again(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        ann = nodes["ann"]
        _, manifest, _ = await ann.put("w", W, survive=2)
        (copies,) = manifest.copies
        fewer = dict(list(copies.items())[:2])
        for named, copies_established in ((fewer, True), (copies, False)):
            await leave_in_doubt(nodes, successor(ann.manifests.get_kept(manifest.key), copies=(named,)))
            assert ann.manifests.get_kept(manifest.key).copies_established is copies_established
