"""Random histories: clients of several nodes store, replace and remove, and leave in the middle."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import trio
from examples import matrix
from rig import Rig, RigNode
from stand_ins import ClientCall

from sedmad.errors import LocalError, SedmadError

NAMES = ("first", "second", "third")
CONTENTS = [matrix(rows, 40, seed=rows) for rows in (10, 64, 300)]


def typed(error: BaseException) -> SedmadError:
    """Return the typed error that a call ended with; a bug is raised."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, SedmadError) or isinstance(error, LocalError):
        raise error
    return error


class Client:
    """Does one thing after another on one node."""

    def __init__(self, node: RigNode, rng: random.Random, acknowledged: dict[str, bytes]) -> None:
        self.node = node
        self.rng = rng
        self.acknowledged = acknowledged

    async def act(self, steps: int) -> None:
        for _ in range(steps):
            patience_s = self.rng.choice([0.001, 0.005, 0.01, 0.02, 0.04, 5.0, 5.0, 5.0])
            name = self.rng.choice(NAMES)
            with trio.move_on_after(patience_s):
                try:
                    if self.rng.random() < 0.3:
                        await self.node.removing.remove(name)
                    else:
                        await self._put(name)
                except Exception as error:
                    typed(error)

    async def _put(self, name: str) -> None:
        w = self.rng.choice(CONTENTS)
        call = ClientCall(w.tobytes(), chunk_bytes=self.rng.choice([1000, 7001, 1 << 20]))
        await self.node.put(
            name, w, survive=self.rng.randrange(3), replace=self.rng.random() < 0.5, call=call
        )


def assert_within_pledges(nodes: Rig) -> None:
    for node in nodes:
        for usage in (node.ledger.memory, node.ledger.disk):
            assert usage.used_bytes + usage.reserved_bytes <= usage.pledged_bytes


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_happens_what_is_named_is_readable_and_what_is_removed_is_gone(
    seed: int, rig: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sedmad.node.removing.REPLACED_AFTER_S", 0.05)
    monkeypatch.setattr("sedmad.node.releasing.CLEAR_UP_S", 0.02)
    rng = random.Random(seed)
    async with rig("ann", "ben", "cyd", pledges=dict.fromkeys(("ann", "ben", "cyd"), 120_000)) as nodes:

        async def watch() -> None:
            while True:
                assert_within_pledges(nodes)
                await trio.sleep(0.002)

        async with trio.open_nursery() as watching:
            watching.start_soon(watch)
            async with trio.open_nursery() as clients:
                for node in nodes:
                    for _ in range(2):
                        clients.start_soon(Client(node, random.Random(rng.random()), {}).act, 8)
            watching.cancel_scope.cancel()

        directory = nodes["ann"].membership.core.directory
        for name, claim in list(directory.entries()):
            contents = {w.tobytes() for w in CONTENTS if w.shape == (claim.rows, claim.columns)}
            for node in nodes:
                assert await node.get(name) in contents
            manifest = await nodes["ben"].lookups.look_up(claim, deadline=trio.current_time() + 5)
            for index, copies in enumerate(manifest.copies):
                assert len(copies) > claim.survive
                for peer_id in copies:
                    (holder,) = [node for node in nodes if node.peer_id == peer_id]
                    assert holder.blobs.contains(manifest.digests[index])
        for name, claim in list(directory.entries()):
            (owner,) = [node for node in nodes if node.peer_id == claim.owner]
            await owner.removing.remove(name)
        for node in nodes:
            await node.is_empty()
