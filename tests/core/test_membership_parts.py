"""The small parts: awareness, suspicion time-outs, the byte budget, the view, the settings' formulas."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sedmad.core.membership.awareness import Awareness
from sedmad.core.membership.budget import ByteBudget
from sedmad.core.membership.settings import LAN, WAN
from sedmad.core.membership.suspicion import SuspicionTimer
from sedmad.core.membership.transfers import MAX_TRANSFERS, Transfers
from sedmad.core.membership.view import FULL_VIEW_NODES, FullView


def test_awareness_stretches_timeouts_and_stays_in_its_range() -> None:
    awareness = Awareness(maximum=8)
    assert awareness.stretch(0.5) == 0.5
    awareness.improve()
    assert awareness.score == 0
    awareness.worsen(3)
    assert awareness.stretch(0.5) == 2.0
    awareness.worsen(100)
    assert awareness.score == 7
    awareness.improve()
    assert awareness.score == 6


def test_confirmations_shorten_the_timeout_from_maximum_to_minimum() -> None:
    timer = SuspicionTimer("a", needed=3, minimum_s=4.0, maximum_s=24.0, now=100.0)
    deadlines = [timer.deadline]
    for accuser in ("b", "c", "d"):
        assert timer.confirm(accuser)
        deadlines.append(timer.deadline)
    assert deadlines[0] == 124.0
    assert deadlines == sorted(deadlines, reverse=True)
    assert deadlines[-1] == pytest.approx(104.0)


def test_confirmations_count_once_and_only_while_needed() -> None:
    timer = SuspicionTimer("a", needed=1, minimum_s=4.0, maximum_s=24.0, now=0.0)
    assert not timer.confirm("a")
    assert timer.confirm("b")
    assert not timer.confirm("c")
    assert timer.accusers == {"a", "b"}


def test_without_possible_confirmations_the_minimum_holds_at_once() -> None:
    timer = SuspicionTimer("a", needed=0, minimum_s=4.0, maximum_s=24.0, now=0.0)
    assert timer.deadline == 4.0
    timer.extend(2.5)
    assert timer.deadline == 6.5


def test_formulas_of_the_settings() -> None:
    assert LAN.suspicion_minimum_s(members=3) == 4.0
    assert LAN.suspicion_minimum_s(members=999) == pytest.approx(12.0)
    assert LAN.suspicion_maximum_s(members=3) == 24.0
    assert [LAN.confirmations_needed(members) for members in (2, 3, 4, 100)] == [0, 0, 2, 2]
    assert [LAN.retransmissions(members) for members in (2, 9, 10, 99)] == [4, 4, 8, 8]
    assert WAN.suspicion_minimum_s(members=3) == 30.0


@given(st.lists(st.tuples(st.floats(0.0, 0.5), st.integers(0, 3_000)), max_size=200))
def test_no_window_sees_more_than_the_budget(sends: list[tuple[float, int]]) -> None:
    rate, now = 1_000, 0.0
    budget = ByteBudget(rate, now)
    sent: list[tuple[float, int]] = []
    for pause_s, size in sends:
        now += pause_s
        if budget.spend(size, now):
            sent.append((now, size))
    for start, (began_at, _) in enumerate(sent):
        total = 0
        for at, size in sent[start:]:
            total += size
            assert total <= (at - began_at + 1.0) * rate + 1e-6


def test_gossip_leaves_a_reserve_for_heartbeats() -> None:
    budget = ByteBudget(64 << 10, now=0.0)
    assert budget.gossip_bytes(0.0) == 56 << 10
    assert budget.spend(60 << 10, 0.0)
    assert budget.gossip_bytes(0.0) == 0
    assert budget.spend(4 << 10, 0.0)
    assert not budget.spend(1, 0.0)
    assert budget.spend(64 << 10, 1.0)


def test_the_full_view_is_everybody_up_to_its_bound() -> None:
    peers = [f"peer-{number}" for number in range(FULL_VIEW_NODES)]
    assert FullView().neighbours("me", peers) == set(peers)
    crowd = [*peers, "one-more"]
    chosen = FullView().neighbours("me", crowd)
    assert len(chosen) == FULL_VIEW_NODES
    assert chosen == FullView().neighbours("me", crowd[::-1])


def test_everybody_is_watched_in_a_crowd() -> None:
    crowd = [f"peer-{number}" for number in range(200)]
    watched: dict[str, int] = dict.fromkeys(crowd, 0)
    for own_id in crowd:
        for peer_id in FullView().neighbours(own_id, [peer for peer in crowd if peer != own_id]):
            watched[peer_id] += 1
    assert min(watched.values()) >= 5


def test_transfers_are_bounded_and_fair() -> None:
    transfers = Transfers()
    for number in range(MAX_TRANSFERS + 1):
        transfers.add("a" if number % 2 else "b", ("advert", str(number)))
    assert len(transfers) == MAX_TRANSFERS
    transfers.add("a", ("advert", "1"))
    assert len(transfers) == MAX_TRANSFERS
    first = transfers.peers()[0]
    locator = transfers.next_for(first)
    assert locator is not None
    transfers.done(first, locator)
    assert transfers.peers()[0] != first
    transfers.cancel("a")
    transfers.cancel("b")
    assert len(transfers) == 0
    assert transfers.peers() == []
    assert transfers.next_for("a") is None
