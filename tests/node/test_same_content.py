"""The same content under several names of one owner, and under names of several owners."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import trio
from examples import matrix
from rig import fails_with
from stand_ins import ClientCall

import crossbar
from sedmad.core.accuracy import Accuracy
from sedmad.errors import NodeUnreachable, NotEnoughPeers
from sedmad.node.programming import PartitionKey
from sedmad.store.holdings import Kind

RigFactory = Callable[..., Any]
W = matrix(300, 50)
SIZE = W.nbytes
# Without wires, whose resistance takes seconds to plan for.
PLAIN = replace(crossbar.profile("generic"), name="plain", word_line_ohm=0.0, bit_line_ohm=0.0)


async def test_a_second_name_takes_no_more_room_and_the_content_lives_as_long_as_one_name(
    rig: RigFactory,
) -> None:
    async with rig("ann", "ben") as nodes:
        await nodes["ann"].put("first", W, survive=1)
        before = [node.used() for node in nodes]
        await nodes["ann"].put("second", W, survive=1)
        assert [node.used() for node in nodes] == before
        removal = await nodes["ben"].removing.remove("first")
        assert removal.freed_bytes == 0
        for node in nodes:
            assert await node.get("second") == W.tobytes()
        removal = await nodes["ann"].removing.remove("second")
        assert removal.freed_bytes == 2 * SIZE
        for node in nodes:
            await node.is_empty()


@pytest.mark.parametrize("survive", [0, 1])
async def test_a_name_that_promises_less_takes_nothing_from_one_that_promises_more(
    survive: int, rig: RigFactory
) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        _, before, _ = await nodes["ann"].put("first", W, survive=2)
        _, after, _ = await nodes["ann"].put("second", W, survive=survive)
        assert after == before


async def test_a_name_that_promises_more_gets_it_and_the_first_loses_nothing(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        _, before, _ = await nodes["ann"].put("first", W)
        _, after, _ = await nodes["ann"].put("second", W, survive=1)
        assert after.survive == 1
        assert after.seq == before.seq + 1
        assert after.previous_digest == before.digest
        assert before.holders <= after.holders
        kinds = list(after.copies[0].values())
        assert kinds.count(Kind.RESIDENT) == 1
        assert sum(node.used()[0] for node in nodes) == SIZE
        assert sum(node.used()[2] for node in nodes) == SIZE * len(kinds)
        for node in nodes:
            assert await node.get("first") == await node.get("second") == W.tobytes()
        for name in ("first", "second"):
            await nodes["ann"].removing.remove(name)
        for node in nodes:
            await node.is_empty()


async def test_copies_on_dead_nodes_do_not_count(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        ann = nodes["ann"]
        _, before, _ = await ann.put("first", W, survive=1)
        (lost,) = [node for node in nodes if node.peer_id in before.holders and node is not ann][:1]
        ann.membership.states[lost.peer_id] = "dead"
        nodes.cut("ann", lost.name)
        _, after, _ = await ann.put("second", W, survive=1)
        living = after.holders - {lost.peer_id}
        assert len(living) == 2
        assert before.holders <= after.holders


async def test_a_second_name_that_fails_takes_nothing_from_the_first(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:

        async def fail(peer_id: str) -> None:
            raise NodeUnreachable("it does not answer", node=peer_id)

        await nodes["ann"].put("first", W, survive=1)
        for survive in (1, 2):
            nodes["ann"].sessions.before["StoreManifest"] = fail
            await fails_with(NotEnoughPeers, partial(nodes["ann"].put, "second", W, survive=survive))
            del nodes["ann"].sessions.before["StoreManifest"]
            assert nodes["ben"].membership.core.directory.get("second") is None
            for node in nodes:
                assert await node.get("first") == W.tobytes()
        _, manifest, _ = await nodes["ann"].put("second", W, survive=2)
        for name in ("first", "second"):
            await nodes["ann"].removing.remove(name)
        for node in nodes:
            await node.is_empty()
        assert manifest.survive == 2


@pytest.mark.parametrize("owners", [("ann", "ann"), ("ann", "ben")])
async def test_two_puts_of_one_content_at_once(owners: tuple[str, str], rig: RigFactory) -> None:
    w = matrix(2100, 1024)
    async with rig("ann", "ben", "cyd") as nodes:
        calls = [ClientCall(w.tobytes(), pause_after=8 << 20) for _ in owners]
        async with trio.open_nursery() as nursery:
            for name, owner, call in zip(("first", "second"), owners, calls, strict=True):
                nursery.start_soon(partial(nodes[owner].put, name, w, survive=1, call=call))
            for call in calls:
                await call.paused.wait()
            for call in calls:
                call.go_on.set()
        for node in nodes:
            await node.settled()
            assert await node.get("first") == await node.get("second") == w.tobytes()
        for name in ("first", "second"):
            await nodes["cyd"].removing.remove(name)
        for node in nodes:
            await node.is_empty()


async def test_a_matrix_stored_again_while_it_is_removed_is_there_or_refused(rig: RigFactory) -> None:
    """The manifest of the put and the last one of the removal would have the same number."""
    async with rig("ann", "ben") as nodes:
        ann = nodes["ann"]
        for delay_s in (0.0, 0.002, 0.004, 0.008, 0.016, 0.03):
            await ann.put("first", W, survive=1)

            async def remove(delay_s: float = delay_s) -> None:
                await trio.sleep(delay_s)
                await ann.removing.remove("first")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(remove)
                nursery.start_soon(partial(ann.put, "second", W, survive=1))
            for node in nodes:
                assert await node.get("second") == W.tobytes()
            await ann.removing.remove("second")
            for node in nodes:
                await node.is_empty()


async def test_a_replacement_by_the_same_content_stays(
    rig: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sedmad.node.removing.REPLACED_AFTER_S", 0.01)
    async with rig("ann", "ben") as nodes:
        await nodes["ann"].put("w", W, survive=1)
        claim, _, _ = await nodes["ann"].put("w", W, survive=1, replace=True)
        assert claim.version == 2
        await trio.sleep(0.1)
        for node in nodes:
            assert await node.get("w") == W.tobytes()


async def test_content_that_could_not_be_stored_twice_still_needs_those_who_were_to_guard_it_first(
    rig: RigFactory,
) -> None:
    """They may have kept the first manifest, and passed the matrix on since."""
    async with rig("ann", "ben", "cyd") as nodes:
        ann, others = nodes["ann"], [nodes["ben"].peer_id, nodes["cyd"].peer_id]

        async def be_away(_peer_id: str) -> None:
            raise NodeUnreachable("it is away")

        ann.sessions.before["StoreManifest"] = be_away
        await fails_with(NotEnoughPeers, partial(ann.put, "w", W))
        # From now on ann is alone, as far as it knows, and would be the only guardian.
        ann.membership.states |= dict.fromkeys(others, "dead")
        for _ in range(2):
            await fails_with(NotEnoughPeers, partial(ann.put, "w", W))
        ann.membership.states.clear()
        del ann.sessions.before["StoreManifest"]
        await ann.put("w", W)


@pytest.mark.parametrize("order", [("near", "exact"), ("exact", "near")])
async def test_names_of_other_accuracy_keep_theirs(order: tuple[str, str], rig: RigFactory) -> None:
    asked = {"near": 0.1, "exact": 0.0}
    async with rig("ann", profiles={"ann": PLAIN}) as nodes:
        ann = nodes["ann"]
        stored = {name: (await ann.put(name, W, target_error=asked[name]))[1] for name in order}
        key = PartitionKey(stored["near"].digests[0], *W.shape, "float32", Accuracy(0.1))
        for name, manifest in stored.items():
            assert manifest.accuracy == Accuracy(asked[name])
            assert await ann.get(name) == W.tobytes()
        assert ann.devices.get(key) is not None
        for _ in range(3):
            ann.devices.drop_unneeded()
        assert ann.devices.get(key) is not None
        await ann.removing.remove("near")
        for _ in range(2):  # something may just have changed
            ann.devices.drop_unneeded()
        assert ann.devices.get(key) is None
        assert ann.devices.cells.usage.used == 0
        assert await ann.get("exact") == W.tobytes()
        await ann.removing.remove("exact")
        await ann.is_empty()


async def test_a_replaced_name_has_the_accuracy_asked_for_last(rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        for target in (0.1, 0.01, 0.0, 0.1):
            await nodes["ann"].put("w", W, survive=1, target_error=target, replace=True)
            claim = nodes["ben"].membership.core.directory.get("w")
            manifest = await nodes["ben"].lookups.look_up(claim, deadline=trio.current_time() + 5)
            assert manifest.accuracy == Accuracy(target)
