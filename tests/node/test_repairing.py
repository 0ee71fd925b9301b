"""Copies that are lost are made again, nodes that leave are emptied, and a repair that fails leaves nothing behind."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import trio
from examples import matrix
from rig import Rig, RigNode, until

from sedmad.core.flapping import LossTable
from sedmad.core.membership import events
from sedmad.errors import InsufficientCapacity, NodeUnreachable, ProtocolViolation
from sedmad.node.draining import DrainingService, load
from sedmad.node.manifest import Manifest, sign_manifest
from sedmad.node.records import DATA_TYPES
from sedmad.node.repair_step import RepairSteps, successor
from sedmad.node.repairing import RepairingService
from sedmad.node.succession import Vote, sign_vote, succession
from sedmad.store.holdings import Kind
from sedmad.wire import messages as wire

RigFactory = Callable[..., Any]
W = matrix(300, 50)
TWO_PARTITIONS = matrix(2100, 1024)
NAMES = ("ann", "ben", "cyd", "dan")
VERBS = ("ReserveCopies", "HoldCopy", "StoreManifest", "ReleasePut")


def repairing_of(node: RigNode) -> RepairingService:
    return RepairingService(
        own_peer_id=node.peer_id,
        membership=node.membership,  # type: ignore[arg-type]
        manifests=node.manifests,
        holding=node.holding,
        establishing=node.establishing,
        steps=RepairSteps(
            own_peer_id=node.peer_id,
            sessions=node.sessions,  # type: ignore[arg-type]
            membership=node.membership,  # type: ignore[arg-type]
            manifests=node.manifests,
            holding=node.holding,
            releasing=node.releasing,
            establishing=node.establishing,
        ),
        losses=LossTable(base_s=0.0, unheard_s=0.0),
    )


@asynccontextmanager
async def repairing(node: RigNode) -> AsyncIterator[RepairingService]:
    """Run the repair of a node's matrices."""
    async with trio.open_nursery() as nursery:
        service = repairing_of(node)
        await nursery.start(service.run)
        yield service
        nursery.cancel_scope.cancel()


def believe(nodes: Iterable[RigNode], name: str, state: str, peer_id: str) -> None:
    """Have all nodes but one believe something of it."""
    for node in nodes:
        if node.name != name:
            node.membership.states[peer_id] = state


async def lose(nodes: Rig, service: RepairingService, *names: str) -> None:
    """Stop nodes for good."""
    lost = [nodes[name] for name in names]
    for node in lost:
        await nodes.stop(node.name)
    for node in lost:
        believe(nodes, node.name, "dead", node.peer_id)
        service.on_event(events.PeerDead(node.peer_id, "ann"))


def manifest_at(node: RigNode) -> Manifest:
    (manifest,) = node.manifests.kept()
    return manifest


def is_whole(manifest: Manifest, nodes: Rig) -> bool:
    """Whether every partition has its copies on nodes that are there, one of them resident."""
    living = {node.peer_id for node in nodes}
    return all(
        copies.keys() <= living
        and len(copies) == manifest.survive + 1
        and list(copies.values()).count(Kind.RESIDENT) == 1
        for copies in manifest.copies
    )


async def whole(nodes: Rig, stored: np.ndarray[Any, Any] = W, without: str = "") -> None:
    """Wait until ann's matrix is whole, everybody agrees on where it lies, and all lies there.

    Args:
        without: a node that is there and is to hold nothing.
    """

    async def agrees() -> bool:
        manifest = manifest_at(nodes["ann"])
        kept = nodes["ann"].manifests.get(manifest.key)
        if kept is None or not kept.established or not is_whole(manifest, nodes):
            return False
        if without and nodes[without].peer_id in manifest.holders:
            return False
        for node in nodes:
            if node.peer_id in manifest.holders and manifest_at(node).order != manifest.order:
                return False
            held = {
                holding.partition_index: holding.kind
                for holding in await node.held()
                if holding.group_key == manifest.group_key
            }
            if held != manifest.held_by(node.peer_id):
                return False
        return True

    await until(agrees)
    await nothing_set_aside(nodes)
    for node in nodes:
        await node.settled()
        memory, _, disk, _ = node.used()
        held = await node.held()
        assert disk == sum(holding.size_bytes for holding in held)
        assert memory == sum(holding.size_bytes for holding in held if holding.kind is Kind.RESIDENT)
        assert await node.get("w") == stored.tobytes()


async def nothing_set_aside(nodes: Rig) -> None:
    """Wait until no node has anything that belongs to a put."""

    async def nothing() -> bool:
        return all([node.used()[1::2] == (0, 0) and not await node.puts() for node in nodes])

    await until(nothing)


def holder(nodes: Rig, kind: Kind) -> str:
    """Return the name of a node, not ann, that has such a copy."""
    manifest = manifest_at(nodes["ann"])
    return next(
        node.name
        for node in nodes
        if node.name != "ann" and kind in {copies.get(node.peer_id) for copies in manifest.copies}
    )


@pytest.mark.parametrize(("kind", "survive"), [(Kind.RESIDENT, 1), (Kind.STANDBY, 2)])
async def test_what_a_dead_node_held_is_made_again_elsewhere(
    kind: Kind, survive: int, rig: RigFactory
) -> None:
    async with rig(*NAMES) as nodes, repairing(nodes["ann"]) as service:
        _, before, _ = await nodes["ann"].put("w", TWO_PARTITIONS, survive=survive)
        await lose(nodes, service, holder(nodes, kind))
        await whole(nodes, TWO_PARTITIONS)
        after = manifest_at(nodes["ann"])
        assert after.digests == before.digests
        claim = next(reversed(list(nodes))).membership.core.directory.get("w")
        assert (claim.epoch, claim.seq) == after.order


async def test_nothing_is_done_for_a_node_that_may_come_back(rig: RigFactory) -> None:
    async with rig(*NAMES) as nodes:
        await nodes["ann"].put("w", W, survive=1)
        order = manifest_at(nodes["ann"]).order
        ben = nodes["ben"].peer_id
        service = repairing_of(nodes["ann"])
        service._losses = LossTable(base_s=3600.0)
        async with trio.open_nursery() as nursery:
            await nursery.start(service.run)
            await trio.sleep(0.2)
            await lose(nodes, service, "ben")
            await trio.sleep(0.3)
            assert manifest_at(nodes["ann"]).order == order
            assert service.status().waited_for == ("ben",)
            believe(nodes, "ben", "alive", ben)
            nursery.cancel_scope.cancel()


async def test_who_was_heard_for_a_moment_is_not_waited_for_like_who_never_was(rig: RigFactory) -> None:
    async with rig(*NAMES) as nodes:
        await nodes["ann"].put("w", W, survive=1)
        service = repairing_of(nodes["ann"])
        service._losses = LossTable(base_s=0.0, unheard_s=3600.0)
        away = nodes[holder(nodes, Kind.STANDBY)]
        believe(nodes, away.name, "suspect", away.peer_id)
        async with trio.open_nursery() as nursery:
            await nursery.start(service.run)
            # Both happen between two looks.
            service.on_event(events.PeerAlive(away.peer_id))
            await lose(nodes, service, away.name)
            await whole(nodes)
            nursery.cancel_scope.cancel()


async def test_a_standby_copy_becomes_resident_without_travelling(rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes, repairing(nodes["ann"]) as service:
        nodes["ann"].membership.update_advert(compute_gflops=1e-6)
        await nodes["ann"].put("w", W, survive=1)
        assert {holding.kind for holding in await nodes["ann"].held()} == {Kind.STANDBY}
        await lose(nodes, service, "ben")

        async def all_resident() -> bool:
            return {holding.kind for holding in await nodes["ann"].held()} == {Kind.RESIDENT}

        await until(all_resident)
        assert nodes["ann"].used() == (W.nbytes, 0, W.nbytes, 0)
        assert await nodes["ann"].get("w") == W.tobytes()

        async def told() -> bool:
            return bool(service.status().waiting)

        await until(told)
        (report,) = service.status().waiting
        assert report.names == ("w",)
        assert "1 partition with fewer than 2 copies" in report.waiting_for
        assert service.degraded(manifest_at(nodes["ann"]).key) == report.waiting_for


async def test_what_had_no_room_is_made_good_when_a_node_joins(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes, repairing(nodes["ann"]) as service:
        cyd = nodes["cyd"].peer_id
        believe(nodes, "cyd", "dead", cyd)
        await nodes["ann"].put("w", W, survive=1)
        await lose(nodes, service, "ben")

        async def told() -> bool:
            return bool(service.status().waiting)

        await until(told)
        believe(nodes, "cyd", "alive", cyd)
        service.on_event(events.PeerAlive(cyd))
        await whole(nodes)


async def test_a_node_that_leaves_is_emptied_and_may_stay_after_all(rig: RigFactory) -> None:
    async with rig(*NAMES) as nodes, repairing(nodes["ann"]) as service:
        await nodes["ann"].put("w", W, survive=2)
        ben = nodes["ben"]
        draining = DrainingService(
            own_peer_id=ben.peer_id,
            database=ben.database,
            membership=ben.membership,  # type: ignore[arg-type]
            manifests=ben.manifests,
            on_decided=service.look_afresh,
        )
        assert draining.left().copies > 0
        await draining.start()
        await whole(nodes, without="ben")
        await ben.is_empty()
        left = draining.left()
        assert (left.copies, left.bytes, left.owned, left.owners) == (0, 0, 0, frozenset())
        assert ben.peer_id not in manifest_at(nodes["ann"]).guardians
        assert await ben.database.read(load)
        await draining.cancel()
        assert not draining.is_draining
        assert not await ben.database.read(load)


async def test_an_owner_that_leaves_moves_its_own_copies(rig: RigFactory) -> None:
    async with rig(*NAMES) as nodes, repairing(nodes["ann"]) as service:
        await nodes["ann"].put("w", W, survive=1)
        nodes["ann"].membership.update_advert(state="draining")
        service.look_afresh()
        await whole(nodes, without="ann")
        await nodes["ann"].settled()


async def test_a_node_that_returns_before_the_manifest_is_written_calls_the_step_off(rig: RigFactory) -> None:
    async with rig(*NAMES) as nodes, repairing(nodes["ann"]) as service:
        _, before, _ = await nodes["ann"].put("w", W, survive=1)
        asked = trio.Event()

        async def wait(peer_id: str) -> None:
            asked.set()
            await trio.sleep_forever()

        nodes["ann"].sessions.before["HoldCopy"] = wait
        away = nodes[holder(nodes, Kind.STANDBY)]
        believe(nodes, away.name, "dead", away.peer_id)
        service.on_event(events.PeerDead(away.peer_id, "ann"))
        with trio.fail_after(10):
            await asked.wait()
        assert [report.names for report in service.status().under_repair] == [("w",)]
        believe(nodes, away.name, "alive", away.peer_id)
        service.on_event(events.PeerAlive(away.peer_id))
        await whole(nodes)
        assert manifest_at(nodes["ann"]).copies == before.copies


async def test_a_target_that_dies_in_the_middle_is_not_waited_for(rig: RigFactory) -> None:
    async with rig(*NAMES, "eve") as nodes, repairing(nodes["ann"]) as service:
        await nodes["ann"].put("w", W, survive=1)
        asked: list[str] = []

        async def first_hangs(peer_id: str) -> None:
            asked.append(peer_id)
            if len(asked) == 1:
                await trio.sleep_forever()

        nodes["ann"].sessions.before["HoldCopy"] = first_hangs
        await lose(nodes, service, holder(nodes, Kind.STANDBY))

        async def hangs() -> bool:
            return bool(asked)

        await until(hangs)
        await lose(nodes, service, nodes["ann"].membership.name_of(asked[0]))

        async def made_elsewhere() -> bool:
            return is_whole(manifest_at(nodes["ann"]), nodes)

        await until(made_elsewhere)
        assert await nodes["ann"].get("w") == W.tobytes()


async def test_a_target_that_refuses_is_left_out(rig: RigFactory) -> None:
    async with rig(*NAMES) as nodes, repairing(nodes["ann"]) as service:
        await nodes["ann"].put("w", W, survive=1)
        refused: list[str] = []

        async def refuse(peer_id: str) -> None:
            refused.append(peer_id)
            if len(set(refused)) == 1:
                raise InsufficientCapacity("there is too little disk there", node=peer_id)

        nodes["ann"].sessions.before["ReserveCopies"] = refuse
        await lose(nodes, service, holder(nodes, Kind.STANDBY))
        await whole(nodes)
        assert refused[0] not in manifest_at(nodes["ann"]).holders


@pytest.mark.parametrize("failing", ["ReserveCopies", "HoldCopy", "StoreManifest"])
async def test_a_step_that_fails_leaves_nothing_and_is_tried_again(failing: str, rig: RigFactory) -> None:
    async with rig(*NAMES) as nodes, repairing(nodes["ann"]) as service:
        _, before, _ = await nodes["ann"].put("w", W, survive=1)
        broken = True

        async def fail(peer_id: str) -> None:
            if broken:
                raise NodeUnreachable("the path is cut", node=peer_id)

        nodes["ann"].sessions.before[failing] = fail
        await lose(nodes, service, holder(nodes, Kind.STANDBY))

        async def put_off() -> bool:
            waiting = service.status().waiting
            return bool(waiting) and not service.status().under_repair

        await until(put_off)
        await nothing_set_aside(nodes)
        for node in nodes:
            assert await node.get("w") == W.tobytes()
        assert before.digests == manifest_at(nodes["ann"]).digests
        broken = False
        service.look_afresh()
        await whole(nodes)


async def test_a_crash_of_the_owner_in_the_middle_leaves_nothing(rig: RigFactory) -> None:
    async with rig(*NAMES) as nodes:
        await nodes["ann"].put("w", W, survive=1)
        ann = nodes["ann"]
        waiting = trio.Event()

        async def wait(peer_id: str) -> None:
            waiting.set()
            await trio.sleep_forever()

        async def cut(peer_id: str) -> None:
            raise NodeUnreachable("the path is cut", node=peer_id)

        ann.sessions.before["HoldCopy"] = wait
        async with repairing(ann) as service:
            lost = nodes[holder(nodes, Kind.STANDBY)]
            await lose(nodes, service, lost.name)
            with trio.fail_after(10):
                await waiting.wait()
            # Dead before it could tell anybody.
            ann.sessions.before["ReleasePut"] = cut
        await nodes.stop("ann")
        ann = await nodes.restart("ann", ann)
        ann.membership.states[lost.peer_id] = "dead"
        await nothing_set_aside(nodes)
        for node in nodes:
            await node.settled()
        async with repairing(nodes["ann"]):
            await whole(nodes)


async def test_memory_set_aside_alone_brings_no_new_bytes(rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        digest = hashlib.sha256(W.tobytes()).digest()
        request = wire.ReserveCopiesRequest(
            put_id=bytes(16), resident_bytes=W.nbytes, rows=300, columns=50, data_type=DATA_TYPES["float32"]
        )
        holding = nodes["ben"].holding
        holding.reserve(request, nodes["ann"].peer_id)
        await holding.need(digest)
        with pytest.raises(ProtocolViolation):
            await holding.hold(bytes(16), 0, digest, Kind.RESIDENT)


async def test_only_owners_repair(rig: RigFactory) -> None:
    async with rig(*NAMES) as nodes, repairing(nodes["dan"]) as service:
        await nodes["ann"].put("w", W, survive=1)
        order = manifest_at(nodes["ann"]).order
        await lose(nodes, service, "ben")
        await trio.sleep(0.3)
        assert manifest_at(nodes["ann"]).order == order
        assert service.status().waiting == ()


async def test_without_a_majority_of_guardians_nothing_is_planned(rig: RigFactory) -> None:
    async with rig(*NAMES) as nodes, repairing(nodes["ann"]) as service:
        _, before, _ = await nodes["ann"].put("w", W, survive=1)
        assert len(before.guardians) == 3
        guardians = [node.name for node in nodes if node.peer_id in before.guardians[1:]]
        await lose(nodes, service, *guardians)

        async def told() -> bool:
            return bool(service.status().waiting)

        await until(told)
        assert "guardians" in service.status().waiting[0].waiting_for
        assert manifest_at(nodes["ann"]).order == before.order


async def test_an_error_is_raised_by_nobody_for_a_matrix_that_is_removed_under_way(rig: RigFactory) -> None:
    async with rig(*NAMES) as nodes, repairing(nodes["ann"]) as service:
        await nodes["ann"].put("w", W, survive=1)
        asked, go_on = trio.Event(), trio.Event()

        async def wait(peer_id: str) -> None:
            asked.set()
            await go_on.wait()

        nodes["ann"].sessions.before["HoldCopy"] = wait
        await lose(nodes, service, holder(nodes, Kind.STANDBY))
        with trio.fail_after(10):
            await asked.wait()
        await nodes["ann"].removing.remove("w")
        go_on.set()
        for node in nodes:
            await node.is_empty()


async def promised_too_much(nodes: Rig) -> Manifest:
    """Have ann's matrix survive one loss as w, and for a while three as another name."""
    await nodes["ann"].put("w", W, survive=1)
    _, manifest, _ = await nodes["ann"].put("other", W, survive=3)
    assert manifest.survive == 3
    await nodes["cyd"].removing.remove("other")
    assert manifest_at(nodes["ann"]).holders == {node.peer_id for node in nodes}
    return manifest


async def survives(nodes: Rig, losses: int) -> bool:
    """Whether ann's matrix is to survive the loss of so many nodes, by what she keeps."""
    return manifest_at(nodes["ann"]).survive == losses


async def test_a_matrix_survives_what_its_names_promise_and_no_more(rig: RigFactory) -> None:
    async with rig(*NAMES) as nodes, repairing(nodes["ann"]) as service:
        await promised_too_much(nodes)
        service.look_afresh()
        await until(partial(survives, nodes, 1))
        await whole(nodes)
        assert sum(node.used()[2] for node in nodes) == 2 * W.nbytes
        _, manifest, _ = await nodes["ann"].put("w", W, survive=2, replace=True)
        assert manifest.survive == 2
        service.look_afresh()
        await whole(nodes)


async def test_a_node_can_leave_once_no_name_needs_it_any_more(rig: RigFactory) -> None:
    """Four copies need four nodes, and so long as they were promised none could go."""
    async with rig(*NAMES) as nodes, repairing(nodes["ann"]) as service:
        await promised_too_much(nodes)
        nodes["ben"].membership.update_advert(state="draining")
        service.look_afresh()
        await whole(nodes, without="ben")
        await nodes["ben"].is_empty()
        assert service.status().waiting == ()


async def test_a_name_that_comes_before_copies_are_dropped_keeps_them(rig: RigFactory) -> None:
    async with rig(*NAMES) as nodes, repairing(nodes["ann"]) as service:
        manifest = await promised_too_much(nodes)
        membership = nodes["ann"].membership
        claim = membership.core.directory.get("w")
        async with nodes["ann"].manifests.writing(manifest.key):
            service.look_afresh()
            await trio.testing.wait_all_tasks_blocked(0.05)
            late = replace(claim, name="late", survive=3)
            membership.publish_claim(membership.core.directory.next_version(late))
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert manifest_at(nodes["ann"]).order == manifest.order
        await nodes["ann"].removing.remove("late")
        service.look_afresh()
        await until(partial(survives, nodes, 1))
        await whole(nodes)


async def test_a_later_owner_waits_for_names_that_promise_more(
    rig: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig(*NAMES) as nodes:
        manifest = await promised_too_much(nodes)
        ann, ben = nodes["ann"], nodes["ben"]
        vote = Vote(manifest.key, 1, ben.peer_id, "")
        voters = [node for node in nodes if node.peer_id in manifest.guardians]
        votes = [sign_vote(replace(vote, guardian=voter.peer_id), voter.identity) for voter in voters]
        links = (succession(manifest.guardianship, votes),)
        taken = successor(manifest, owner=ben.peer_id, epoch=1, successions=links)
        for node in nodes:
            await node.manifests.keep(sign_manifest(taken, ben.identity), established=True)
        async with repairing(ben) as service:
            service.look_afresh()
            await trio.testing.wait_all_tasks_blocked(0.1)
            assert manifest_at(ann).order == taken.order
            monkeypatch.setattr("sedmad.node.repairing.HEARD_AFTER_S", 0.0)
            service.look_afresh()
            await until(partial(survives, nodes, 1))
            await whole(nodes)
            assert manifest_at(ann).owner == ben.peer_id


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_nothing_is_lost_and_all_is_whole_in_the_end(
    seed: int, rig: RigFactory
) -> None:
    """Nodes that only seem dead, leave and stay after all, and paths that break: one at a time, in the middle of it."""
    rng = random.Random(seed)
    async with rig(*NAMES, "eve") as nodes, repairing(nodes["ann"]) as service:
        await nodes["ann"].put("w", W, survive=1)
        broken: set[str] = set()

        async def pass_or_fail(verb: str, peer_id: str) -> None:
            if verb in broken:
                raise NodeUnreachable("the path is cut", node=peer_id)
            await trio.sleep(rng.random() / 50)

        for verb in VERBS:
            nodes["ann"].sessions.before[verb] = partial(pass_or_fail, verb)
        for _ in range(8):
            name = rng.choice(("ben", "cyd", "dan", "eve"))
            peer_id = nodes[name].peer_id
            match rng.choice(("dies", "leaves", "breaks")):
                case "dies":
                    believe(nodes, name, "dead", peer_id)
                    service.on_event(events.PeerDead(peer_id, "ann"))
                case "leaves":
                    nodes[name].membership.update_advert(state="draining")
                case "breaks":
                    broken = {rng.choice(VERBS)}
            service.look_afresh()
            await trio.sleep(rng.random() / 3)
            believe(nodes, name, "alive", peer_id)
            nodes[name].membership.update_advert(state="ready")
            broken.clear()
            service.look_afresh()
            assert await nodes["ann"].get("w") == W.tobytes()
            await trio.sleep(rng.random() / 10)
        service.look_afresh()

        async def made_whole() -> bool:
            return is_whole(manifest_at(nodes["ann"]), nodes) and not service.status().under_repair

        await until(made_whole)
        for node in nodes:
            # As gossip would have it: who seemed dead was not told.
            node.reconciling.meet(nodes["ann"].peer_id)
        await whole(nodes)
