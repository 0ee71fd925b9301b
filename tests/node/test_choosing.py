from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from examples import spread_manifest

from sedmad.core.membership.advert import Advert
from sedmad.core.membership.membership import PeerRow
from sedmad.core.prediction import Work
from sedmad.errors import HoldersUnreachable
from sedmad.node.choosing import Chooser
from sedmad.node.share import Share, ShareResult


class Mesh:
    """Who is there, and how; what Chooser asks membership and sessions."""

    def __init__(self, **speeds: float) -> None:
        self.states = dict.fromkeys(speeds, "alive")
        self.connected = set(speeds)
        self.adverts = {
            name: Advert(
                name, name.upper(), 1, compute_gflops=speed, memory_bandwidth_bytes_per_s=speed * 1e9
            )
            for name, speed in speeds.items()
        }

    def row(self, peer_id: str) -> PeerRow | None:
        state: Any = self.states.get(peer_id)
        return PeerRow(peer_id, self.adverts[peer_id], state, 0.001) if state else None

    def state_of(self, peer_id: str) -> str:
        return self.states.get(peer_id, "dead")

    def name_of(self, peer_id: str) -> str:
        return peer_id.upper()

    def attached(self, peer_id: str) -> object | None:
        return SimpleNamespace() if peer_id in self.connected else None


MANIFEST = spread_manifest(copies=2)
WORK = Work.of(MANIFEST.partitioning, 1)
NOTHING_TRIED: dict[int, set[str]] = {index: set() for index in range(4)}


class Setup:
    def __init__(self, own: str = "ann") -> None:
        self.mesh: Any = Mesh(ann=10, ben=10, cyd=10, dan=10)
        # Chance is never drawn low enough to explore.
        rng: Any = SimpleNamespace(random=lambda: 0.5, choice=random.Random(0).choice)
        self.chooser = Chooser(own, self.mesh, self.mesh, rng)
        self.chooser.take_note(self.mesh.adverts.values())

    def holders(self, tried: dict[int, set[str]] | None = None, reason: str = "") -> dict[int, str]:
        shares = self.chooser.shares(MANIFEST, WORK, range(4), tried or NOTHING_TRIED, reason)
        return {index: share.peer_id for share in shares for index in share.partitions}


@pytest.fixture
async def setup() -> Setup:
    return Setup()


async def test_resident_copies_answer(setup: Setup) -> None:
    assert setup.holders() == {0: "ann", 1: "ben", 2: "cyd", 3: "dan"}


@pytest.mark.parametrize("trouble", ["suspect", "dead", "unreachable", "unknown"])
async def test_whoever_is_in_trouble_is_avoided(trouble: str, setup: Setup) -> None:
    if trouble == "unreachable":
        setup.mesh.connected.discard("ben")
    elif trouble == "unknown":
        del setup.mesh.states["ben"]
    else:
        setup.mesh.states["ben"] = trouble
    assert setup.holders() == {0: "ann", 1: "cyd", 2: "cyd", 3: "dan"}


async def test_a_suspect_is_asked_where_there_is_nobody_else(setup: Setup) -> None:
    setup.mesh.states |= {"ben": "suspect", "cyd": "dead"}
    assert setup.holders() == {0: "ann", 1: "ben", 2: "dan", 3: "dan"}


async def test_what_has_nobody_to_ask_is_left_out(setup: Setup) -> None:
    setup.mesh.states |= {"ben": "dead"}
    setup.mesh.connected.discard("cyd")
    assert setup.holders() == {0: "ann", 2: "dan", 3: "dan"}
    assert not setup.chooser.is_lost(MANIFEST, 1)
    setup.mesh.states["cyd"] = "dead"
    assert setup.chooser.is_lost(MANIFEST, 1)


async def test_who_was_tried_is_not_asked_again(setup: Setup) -> None:
    tried = NOTHING_TRIED | {0: {"ann"}, 1: {"ben", "cyd"}}
    assert setup.holders(tried) == {0: "ben", 2: "cyd", 3: "dan"}


async def test_this_node_needs_no_connection_to_itself() -> None:
    setup = Setup(own="ben")
    setup.mesh.connected.discard("ben")
    del setup.mesh.states["ben"]
    assert setup.holders()[1] == "ben"


async def test_shares_say_why(setup: Setup) -> None:
    setup.mesh.states["ben"] = "dead"
    shares = setup.chooser.shares(MANIFEST, WORK, range(4), NOTHING_TRIED, "")
    reasons = {share.peer_id: (share.resident, share.reason) for share in shares}
    assert reasons["ann"] == (True, "resident")
    assert reasons["cyd"] == (False, "no resident copy answers")
    shares = setup.chooser.shares(MANIFEST, WORK, [0], NOTHING_TRIED, "ANN is late")
    assert shares[0].reason == "ANN is late"


async def test_partitions_without_a_holder_are_named_with_their_holders(setup: Setup) -> None:
    setup.mesh.states |= {"ben": "dead", "cyd": "dead"}
    error = setup.chooser.unreachable(MANIFEST, [1])
    assert isinstance(error, HoldersUnreachable)
    assert error.node == "BEN, CYD"
    assert "partition 1 is on BEN" in error.why


def share_of(peer_id: str) -> Share:
    return Share(peer_id, (0,), True, 0.01, "")


async def test_a_holder_that_stays_silent_costs_no_budget(setup: Setup) -> None:
    chooser = setup.chooser
    assert chooser.may_ask_twice(share_of("ben"))  # the budget's first one
    assert not chooser.may_ask_twice(share_of("cyd"))
    for _ in range(5):
        assert chooser.may_ask_twice(share_of("ben"))
    chooser.asked(share_of("ben"))
    chooser.answered(share_of("ben"), WORK, 0.01, ShareResult([], 0.0, 0.005))
    assert not chooser.may_ask_twice(share_of("ben"))


async def test_the_budget_is_a_share_of_what_is_asked(setup: Setup) -> None:
    chooser = setup.chooser
    asked_twice = 0
    for _ in range(400):
        chooser.asked(share_of("ben"))
        asked_twice += chooser.may_ask_twice(share_of("ben"))
        chooser.answered(share_of("ben"), WORK, 0.01, ShareResult([], 0.0, 0.005))
    assert 20 <= asked_twice <= 22


async def test_a_slow_holder_gets_less_where_there_is_a_choice(setup: Setup) -> None:
    for _ in range(20):
        chooser = setup.chooser
        chooser.asked(share_of("ann"))
        chooser.answered(share_of("ann"), WORK, 2.0, ShareResult([], 1.0, 1.0))
    estimates = setup.chooser._estimates.estimates(["ann", "ben"], 0.0)
    assert estimates["ann"].predict(WORK).seconds(1) > estimates["ben"].predict(WORK).seconds(1)


async def test_partitions_that_standby_copies_answer_for_are_wanted(setup: Setup) -> None:
    setup.holders()
    assert setup.chooser.wanted(MANIFEST.key) == frozenset()
    setup.mesh.states["ben"] = "dead"
    setup.holders()
    assert setup.chooser.wanted(MANIFEST.key) == {1}
