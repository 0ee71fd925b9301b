"""Which relays are asked when."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from sedmad.net.relay.plan import RELAYS_MAX, RETRY_S_MAX, Candidate, ReservationPlan
from sedmad.net.relay.reservation import LIFE_S_MAX, LIFE_S_MIN, Reservation, life_s


def candidates(names: str) -> list[Candidate]:
    return [Candidate(name, (f"/ip4/10.0.0.1/tcp/{ord(name)}",)) for name in names]


def reservation(relay_id: str, made_at: float = 0.0, life_s: float = 3600.0) -> Reservation:
    return Reservation(relay_id, (), made_at, made_at + life_s, None)


def asked(plan: ReservationPlan, now: float) -> str:
    return "".join(candidate.peer_id for candidate in plan.due(now))


def holding(names: str, relays: str) -> ReservationPlan:
    plan = ReservationPlan(random.Random(1))
    plan.consider(candidates(names))
    for relay in relays:
        plan.reserved(reservation(relay))
    return plan


def test_the_best_three_are_asked_and_the_next_where_one_fails() -> None:
    plan = ReservationPlan(random.Random(1))
    assert asked(plan, 0.0) == ""
    plan.consider(candidates("abcde"))
    assert asked(plan, 0.0) == "abc"
    plan.reserved(reservation("a"))
    assert not plan.failed("b", 0.0)
    assert asked(plan, 0.0) == "cd"
    plan.reserved(reservation("c"))
    plan.reserved(reservation("d"))
    assert asked(plan, 100.0) == ""
    assert plan.lost("c")
    assert asked(plan, 100.0) == "b"  # it had time


def test_they_are_renewed_at_half_their_life() -> None:
    plan = holding("abc", "abc")
    assert plan.next_timeout(0.0) == 1800.0
    assert asked(plan, 1799.0) == ""
    assert asked(plan, 1800.0) == "abc"
    plan.reserved(reservation("a", 1800.0))
    assert not plan.failed("b", 1800.0)
    assert asked(plan, 1801.0) == "c"
    assert asked(plan, 1807.0) == "bc"
    assert plan.failed("b", 3599.0)  # too late for another attempt
    assert "b" not in [held.relay_id for held in plan.held]


def test_failing_relays_are_asked_ever_more_rarely() -> None:
    plan = ReservationPlan(random.Random(1))
    plan.consider(candidates("a"))
    now, waits = 0.0, []
    for _ in range(20):
        plan.failed("a", now)
        waits.append(plan.next_timeout(now) - now)
        now += waits[-1]
        assert asked(plan, now) == "a"
    assert 4 <= waits[0] <= 6
    assert max(waits) <= RETRY_S_MAX * 1.2
    assert waits[-1] >= RETRY_S_MAX * 0.8
    plan.reserved(reservation("a", now))
    plan.lost("a")
    assert asked(plan, now) == "a"


def test_a_relay_that_is_no_candidate_any_more_is_kept_until_others_took_its_place() -> None:
    plan = holding("abc", "abc")
    plan.consider(candidates("bcd"))
    assert asked(plan, 0.0) == "d"
    assert [held.relay_id for held in plan.held] == ["a", "b", "c"]
    assert plan.reserved(reservation("d")) == ["a"]
    assert [held.relay_id for held in plan.held] == ["b", "c", "d"]
    plan.consider([])
    assert asked(plan, 0.0) == ""


@given(st.integers(0, 300))
def test_never_more_than_needed(seed: int) -> None:
    rng = random.Random(seed)
    plan = ReservationPlan(rng)
    now = 0.0
    for _ in range(100):
        now += rng.choice([0.0, 1.0, 30.0, 1000.0])
        if rng.random() < 0.2:
            plan.consider(candidates("".join(rng.sample("abcdefgh", rng.randrange(8)))))
        for candidate in plan.due(now):
            if rng.random() < 0.5:
                plan.reserved(reservation(candidate.peer_id, now, rng.choice([120.0, 3600.0])))
            else:
                plan.failed(candidate.peer_id, now)
        if plan.held and rng.random() < 0.3:
            assert plan.lost(rng.choice(plan.held).relay_id)
        assert len(plan.held) <= 2 * RELAYS_MAX
        assert plan.next_timeout(now) > now
        assert len(plan._failing) <= 8


def test_a_life_is_believed_within_reason() -> None:
    assert life_s(4600.0, 1000.0) == 3600.0
    assert life_s(0.0, 1e9) == LIFE_S_MIN
    assert life_s(float(2**64 - 1), 0.0) == LIFE_S_MAX
