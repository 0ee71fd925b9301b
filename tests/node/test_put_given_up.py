"""Puts that come to nothing leave nothing behind, and those that are committed stay."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import trio
from examples import matrix
from rig import fails_with, until
from stand_ins import ClientCall

from sedmad.errors import (
    NameTaken,
    NodeUnreachable,
    NonFiniteValues,
    NotEnoughPeers,
    ProtocolViolation,
)
from sedmad.store import puts
from sedmad.wire import messages as wire

RigFactory = Callable[..., Any]


@pytest.mark.parametrize("survive", [0, 1, 2])
@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda data: data[:-1], ProtocolViolation),
        (lambda data: data + b"\0", ProtocolViolation),
        (lambda data: data[:-4] + np.float32(np.nan).tobytes(), NonFiniteValues),
    ],
    ids=["short", "long", "nan"],
)
async def test_what_is_not_what_was_announced_leaves_nothing(
    spoil: Callable[[bytes], bytes], error: Any, survive: int, rig: RigFactory
) -> None:
    w = matrix(2100, 1024)
    async with rig("ann", "ben", "cyd") as nodes:
        call = ClientCall(spoil(w.tobytes()))
        await fails_with(error, partial(nodes["ann"].put, "w", w, survive=survive, call=call))
        for node in nodes:
            await node.is_empty()
            assert node.membership.core.directory.get("w") is None


@pytest.mark.parametrize("paused_at", [0, 1 << 20, 8 << 20])
async def test_a_client_that_leaves_in_the_middle_leaves_nothing(paused_at: int, rig: RigFactory) -> None:
    w = matrix(2100, 1024)
    async with rig("ann", "ben") as nodes:
        call = ClientCall(w.tobytes(), pause_after=paused_at)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(nodes["ann"].put, "w", w, survive=1, call=call))
            await call.paused.wait()
            assert nodes["ben"].used() != (0, 0, 0, 0)
            nursery.cancel_scope.cancel()
        for node in nodes:
            await node.is_empty()


@pytest.mark.parametrize("verb", ["ReserveCopies", "HoldCopy"])
async def test_a_client_that_leaves_while_a_holder_is_asked_leaves_nothing(
    verb: str, rig: RigFactory
) -> None:
    w = matrix()
    async with rig("ann", "ben") as nodes:
        asked = trio.Event()

        async def hold_up(peer_id: str) -> None:
            asked.set()
            await trio.sleep_forever()

        nodes["ann"].sessions.before[verb] = hold_up
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(nodes["ann"].put, "w", w, survive=1))
            await asked.wait()
            nursery.cancel_scope.cancel()
        for node in nodes:
            await node.is_empty()


async def test_a_client_that_leaves_during_the_commit_gets_what_it_asked_for(rig: RigFactory) -> None:
    w = matrix()
    async with rig("ann", "ben") as nodes:
        asked, go_on = trio.Event(), trio.Event()

        async def hold_up(peer_id: str) -> None:
            asked.set()
            await go_on.wait()

        nodes["ann"].sessions.before["StoreManifest"] = hold_up
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(nodes["ann"].put, "w", w, survive=1))
            await asked.wait()
            nursery.cancel_scope.cancel()
            go_on.set()
        for node in nodes:
            assert await node.get("w") == w.tobytes()
            assert len(await node.held()) == 1
            assert node.used()[1] == node.used()[3] == 0


async def test_a_holder_lost_in_the_middle_fails_the_put_and_frees_the_rest(rig: RigFactory) -> None:
    w = matrix(2100, 1024)
    async with rig("ann", "ben", "cyd") as nodes:
        call = ClientCall(w.tobytes(), pause_after=8 << 20)

        async def put() -> None:
            error = await fails_with(NodeUnreachable, partial(nodes["ann"].put, "w", w, survive=2, call=call))
            assert (error.node, error.matrix) == ("ben", "w")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(put)
            await call.paused.wait()
            nodes.cut("ann", "ben")
            call.go_on.set()
        await nodes["ann"].settled()
        await nodes["cyd"].is_empty()
        assert nodes["ann"].used() == (0, 0, 0, 0)
        # Ben cannot be told now; it is told when it comes into reach.
        assert len(await nodes["ann"].puts()) == 1
        assert nodes["ben"].used() != (0, 0, 0, 0)


async def test_a_holder_that_could_not_be_told_is_told_later(
    rig: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sedmad.node.releasing.CLEAR_UP_S", 0.01)
    w = matrix(2100, 1024)
    async with rig("ann", "ben") as nodes:
        call = ClientCall(w.tobytes(), pause_after=1 << 20)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(nodes["ann"].put, "w", w, survive=1, call=call))
            await call.paused.wait()
            nodes.cut("ann", "ben")
            nursery.cancel_scope.cancel()
        assert nodes["ben"].used() != (0, 0, 0, 0)
        nodes.connect("ann", "ben")
        for node in nodes:
            await node.is_empty()


async def test_a_put_that_a_crash_cut_short_is_given_up_after_the_restart(rig: RigFactory) -> None:
    w = matrix(2100, 1024)
    async with rig("ann", "ben", "cyd") as nodes:
        call = ClientCall(w.tobytes(), pause_after=8 << 20)
        ann = nodes["ann"]
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(ann.put, "w", w, survive=2, call=call))
                await call.paused.wait()
                stored = await ann.puts()
                scope.cancel()
        # As if the clean-up had not happened: what a crash leaves is the intent on disk.
        await ann.database.write(partial(puts.begin, put=stored[0]))
        nodes["ben"].holding.reserve(
            wire.ReserveCopiesRequest(
                put_id=stored[0].put_id,
                resident_bytes=8,
                disk_bytes=8,
                rows=1,
                columns=2,
                data_type=wire.DATA_TYPE_FLOAT32,
            ),
            ann.peer_id,
        )
        await nodes.stop("ann")
        await nodes.restart("ann", ann)
        for node in nodes:
            await node.is_empty()


async def test_without_a_holders_word_nothing_is_acknowledged_and_all_is_freed(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:

        async def fail(peer_id: str) -> None:
            if peer_id == nodes["ben"].peer_id:
                raise NodeUnreachable("it does not answer", node=peer_id)

        nodes["ann"].sessions.before["StoreManifest"] = fail
        error = await fails_with(NotEnoughPeers, partial(nodes["ann"].put, "w", matrix(), survive=2))
        assert "ben" in error.why
        for node in nodes:
            assert node.membership.core.directory.get("w") is None
            await node.is_empty()
        # Once the holder answers, the same put succeeds, and its manifest is newer than the one taken back.
        del nodes["ann"].sessions.before["StoreManifest"]
        claim, manifest, _ = await nodes["ann"].put("w", matrix(), survive=2)
        assert claim.version == 1
        assert manifest.seq > 2
        assert await nodes["ben"].get("w") == matrix().tobytes()


async def test_most_guardians_are_enough(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        failing: set[str] = set()

        async def fail(peer_id: str) -> None:
            if peer_id in failing:
                raise NodeUnreachable("it does not answer", node=peer_id)

        nodes["ann"].sessions.before["StoreManifest"] = fail
        for name in ("ben", "cyd"):
            nodes[name].membership.update_advert(compute_gflops=0.001, memory_bandwidth_bytes_per_s=1e3)
        failing.add(nodes["cyd"].peer_id)
        _, manifest, _ = await nodes["ann"].put("w", matrix())
        assert manifest.holders == {nodes["ann"].peer_id}
        assert len(manifest.guardians) == 3
        failing.add(nodes["ben"].peer_id)
        await fails_with(NotEnoughPeers, partial(nodes["ann"].put, "x", matrix(seed=1)))


async def test_one_name_is_stored_by_one_client_of_a_node_at_a_time(rig: RigFactory) -> None:
    w = matrix(2100, 1024)
    async with rig("ann") as nodes:
        call = ClientCall(w.tobytes(), pause_after=1 << 20)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(nodes["ann"].put, "w", w, call=call))
            await call.paused.wait()
            await fails_with(NameTaken, partial(nodes["ann"].put, "w", w))
            call.go_on.set()
        assert await nodes["ann"].get("w") == w.tobytes()


async def test_a_client_faster_than_the_holders_is_held_back(
    rig: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sedmad.node.spooling.AHEAD_MAX", 1)
    w = matrix(2100, 1024)
    async with rig("ann", "ben") as nodes:
        go_on = trio.Event()

        async def hold_up(peer_id: str) -> None:
            await go_on.wait()

        nodes["ann"].sessions.before["HoldCopy"] = hold_up
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(nodes["ann"].put, "w", w, survive=1))

            async def spooled() -> bool:
                return bool(nodes["ann"].blobs.digests())

            await until(spooled)
            await trio.sleep(0.1)
            assert len(nodes["ann"].blobs.digests()) == 1
            go_on.set()
        assert await nodes["ben"].get("w") == w.tobytes()
