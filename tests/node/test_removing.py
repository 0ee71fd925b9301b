from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio
from examples import matrix
from rig import fails_with, until

from sedmad.errors import (
    DeadlineExceeded,
    MatrixNotFound,
    NameTaken,
    NodeUnreachable,
    NotEnoughPeers,
    OwnerUnreachable,
)
from sedmad.wire import messages as wire

RigFactory = Callable[..., Any]
W = matrix(300, 50)
SIZE = W.nbytes


@pytest.mark.parametrize("asked", ["ann", "ben", "cyd"])
async def test_a_name_is_removed_wherever_one_asks_and_everybody_frees_it(
    asked: str, rig: RigFactory
) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        await nodes["ann"].put("w", W, survive=1)
        removal = await nodes[asked].removing.remove("w")
        assert removal.freed_bytes == 2 * SIZE
        assert removal.unreachable == ()
        for node in nodes:
            assert node.membership.core.directory.get("w") is None
            await node.is_empty()
        await fails_with(MatrixNotFound, partial(nodes[asked].removing.remove, "w"))


async def test_a_node_out_of_reach_is_named(rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        await nodes["ann"].put("w", W, survive=1)
        nodes.cut("ann", "ben")
        removal = await nodes["ann"].removing.remove("w")
        assert removal.unreachable == ("ben",)
        assert removal.freed_bytes == SIZE
        await nodes["ann"].is_empty()


@pytest.mark.parametrize("error", [NodeUnreachable("gone"), DeadlineExceeded("late")])
async def test_without_its_owner_nothing_is_removed(error: Exception, rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        await nodes["ann"].put("w", W)

        async def fail(peer_id: str) -> None:
            raise error

        nodes["ben"].sessions.before["RemoveName"] = fail
        raised = await fails_with(OwnerUnreachable, partial(nodes["ben"].removing.remove, "w"))
        assert (raised.node, raised.matrix) == ("ann", "w")
        assert await nodes["ben"].get("w") == W.tobytes()


async def test_members_cannot_remove_what_another_owns(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        await nodes["ann"].put("w", W)
        request = wire.RemoveNameRequest(name="w")
        error = await fails_with(
            Exception,  # type: ignore[arg-type]
            lambda: nodes["cyd"].sessions.call(
                nodes["ben"].peer_id,
                "sedma.v1.OwnerService/RemoveName",
                request,
                deadline=trio.current_time() + 5,
            ),
        )
        assert error.reason == "NOT_PERMITTED"


async def test_who_leaves_in_the_middle_of_a_removal_still_has_it_removed(rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        await nodes["ann"].put("w", W, survive=1)
        asked, go_on = trio.Event(), trio.Event()

        async def hold_up(peer_id: str) -> None:
            asked.set()
            await go_on.wait()

        nodes["ann"].sessions.before["StoreManifest"] = hold_up
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nodes["ann"].removing.remove, "w")
            await asked.wait()
            nursery.cancel_scope.cancel()
            go_on.set()
        for node in nodes:
            await node.is_empty()


@pytest.mark.parametrize("replacing", ["ann", "ben"])
async def test_a_replaced_version_answers_for_a_while_and_is_freed_then(
    replacing: str, rig: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sedmad.node.removing.REPLACED_AFTER_S", 0.2)
    other = matrix(300, 50, seed=1)
    async with rig("ann", "ben") as nodes:
        _, old, _ = await nodes["ann"].put("w", W)
        await nodes[replacing].put("w", other, replace=True)
        (holder,) = [node for node in nodes if node.peer_id in old.holders]
        assert holder.manifests.require_current(old.key, old.order) == old

        async def freed() -> bool:
            return sum(node.used()[2] for node in nodes) == SIZE

        await until(freed)
        for node in nodes:
            assert node.manifests.get_kept(old.key) is None
            assert await node.get("w") == other.tobytes()
        await nodes["ann"].removing.remove("w")
        for node in nodes:
            await node.is_empty()


async def test_a_replaced_version_is_freed_after_a_restart_as_well(
    rig: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig("ann", "ben") as nodes:
        ann = nodes["ann"]
        await ann.put("w", W, survive=1)
        await ann.put("w", matrix(300, 50, seed=1), survive=1, replace=True)
        assert ann.used()[2] == 2 * SIZE
        await nodes.stop("ann")
        monkeypatch.setattr("sedmad.node.removing.REPLACED_AFTER_S", 0.01)
        ann = await nodes.restart("ann", ann)

        async def freed() -> bool:
            return sum(node.used()[2] for node in nodes) == 2 * SIZE

        await until(freed)
        assert await ann.get("w") == matrix(300, 50, seed=1).tobytes()


async def test_a_replacement_that_fails_leaves_what_the_name_stood_for(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:

        async def fail(peer_id: str) -> None:
            raise NodeUnreachable("it does not answer", node=peer_id)

        before, _, _ = await nodes["ann"].put("w", W, survive=1)
        for replacing in ("ann", "ben"):
            node = nodes[replacing]
            node.sessions.before["StoreManifest"] = fail
            put = partial(node.put, "w", matrix(300, 50, seed=1), survive=1, replace=True)
            await fails_with(NotEnoughPeers, put)
            del node.sessions.before["StoreManifest"]
            for other in nodes:
                assert other.membership.core.directory.get("w") == before
                assert await other.get("w") == W.tobytes()


async def test_a_name_taken_elsewhere_meanwhile_is_not_replaced_unasked(rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        ann, ben = nodes["ann"], nodes["ben"]
        taken = False

        async def take_it(peer_id: str) -> None:
            nonlocal taken
            if not taken:
                taken = True
                await ben.put("w", W)

        ann.sessions.before["StoreManifest"] = take_it
        await fails_with(NameTaken, partial(ann.put, "w", matrix(300, 50, seed=1), survive=1))
        for node in nodes:
            assert await node.get("w") == W.tobytes()
        await ann.removing.remove("w")
        for node in nodes:
            await node.is_empty()


async def test_a_name_that_two_sides_of_a_split_took_is_reachable_at_both_owners(rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        ann, ben = nodes["ann"], nodes["ben"]
        others = ann.membership._others, ben.membership._others
        ann.membership._others, ben.membership._others = {}, {}
        first, _, _ = await ann.put("w", W)
        second, _, _ = await ben.put("w", matrix(300, 50, seed=1))
        ann.membership._others, ben.membership._others = others
        for membership in (ann.membership, ben.membership):
            for node in (ann, ben):
                for record in list(node.membership.core.directory.records()):
                    membership.hear(node.peer_id, record)
        names = {name: claim.owner for name, claim in ann.membership.core.directory.entries()}
        assert sorted(names.values()) == sorted([ann.peer_id, ben.peer_id])
        loser = next(name for name in names if "@" in name)
        contents = {await ann.get(name) for name in names}
        assert contents == {W.tobytes(), matrix(300, 50, seed=1).tobytes()}
        # Removing the loser leaves the winner, and the other way round.
        await ann.removing.remove(loser)
        winner = ann.membership.core.directory.get("w")
        assert winner in (first, second)
        assert await ann.get("w") in contents
        await ben.removing.remove("w")
        for node in nodes:
            await node.is_empty()
