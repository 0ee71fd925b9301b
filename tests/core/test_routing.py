from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sedmad.core.partitioning import Partitioning
from sedmad.core.prediction import PeerEstimate, PeerState, Work
from sedmad.core.routing import HEDGE_BURST, HedgeBudget, PartitionCopies, Route, late_after_s, route
from sedmad.errors import HoldersUnreachable

WORK = Work.of(Partitioning(4096, 4096, 4), 1)
STATES: tuple[PeerState, ...] = ("alive", "suspect", "dead", "unreachable")


def peer(peer_id: str, state: PeerState = "alive", rtt_s: float = 0.01) -> PeerEstimate:
    return PeerEstimate(
        peer_id,
        name=peer_id.upper(),
        state=state,
        rtt_s=rtt_s,
        bandwidth_bytes_per_s=1e8,
        gflops=80.0,
        memory_bandwidth_bytes_per_s=1e10,
    )


def mesh(*peers: PeerEstimate) -> dict[str, PeerEstimate]:
    return {peer.peer_id: peer for peer in peers}


def go(
    copies: list[PartitionCopies], estimates: dict[str, PeerEstimate], seed: int = 0, **options: object
) -> Route:
    return route(copies, estimates, WORK, random.Random(seed), **options)  # type: ignore[arg-type]


def test_resident_copies_answer() -> None:
    copies = [
        PartitionCopies(0, ("a",), ("b",)),
        PartitionCopies(1, ("b",), ("a",)),
        PartitionCopies(2, ("a",)),
    ]
    found = go(copies, mesh(peer("a", rtt_s=5.0), peer("b")))
    assert found.assignments == {"a": (0, 2), "b": (1,)}
    assert found.standby == frozenset()
    assert found.predicted_s["a"] > 5.0 > found.predicted_s["b"]


@pytest.mark.parametrize("state", ["suspect", "dead", "unreachable"])
def test_a_standby_answers_at_once_for_a_holder_in_doubt(state: PeerState) -> None:
    found = go([PartitionCopies(0, ("a",), ("b",))], mesh(peer("a", state), peer("b")))
    assert found.assignments == {"b": (0,)}
    assert found.standby == {0}


def test_a_suspect_is_asked_before_nobody_is() -> None:
    found = go([PartitionCopies(0, ("a",), ("b",))], mesh(peer("a", "suspect"), peer("b", "suspect")))
    assert found.assignments == {"a": (0,)}


def test_the_faster_of_several_standbys_answers() -> None:
    found = go([PartitionCopies(0, ("a",), ("b", "c"))], mesh(peer("b", rtt_s=0.5), peer("c")))
    assert found.assignments == {"c": (0,)}


def test_a_choice_takes_the_load_it_makes_into_account() -> None:
    copies = [PartitionCopies(index, ("a", "b")) for index in range(40)]
    copies += [PartitionCopies(index, ("a",)) for index in range(40, 60)]
    found = go(copies, mesh(peer("a"), peer("b")), seed=3)
    assert len(found.assignments["a"]) == pytest.approx(30, abs=2)


def test_a_holder_to_avoid_is_not_asked() -> None:
    copies = [PartitionCopies(0, ("a",), ("b",))]
    assert go(copies, mesh(peer("a"), peer("b")), avoid={"a"}).assignments == {"b": (0,)}


def test_an_unreachable_partition_is_named_with_its_holders() -> None:
    copies = [
        PartitionCopies(0, ("a",), ("c",)),
        PartitionCopies(1, ("a",), ("b",)),
        PartitionCopies(2, ("x",)),
    ]
    estimates = mesh(peer("a", "dead"), peer("b", "unreachable"), peer("c"))
    with pytest.raises(HoldersUnreachable) as caught:
        go(copies, estimates, matrix="w1")
    assert caught.value.what == "2 of 3 partitions have no holder that can be asked"
    assert caught.value.why == "partition 1 is on A (dead), B (unreachable); partition 2 is on x (unknown)"
    assert caught.value.matrix == "w1"
    with pytest.raises(HoldersUnreachable, match=r"C \(gave no answer\)"):
        go(copies[:1], estimates, avoid={"c"})


def test_a_long_list_of_lost_partitions_is_cut_short() -> None:
    with pytest.raises(HoldersUnreachable, match="and 92 more"):
        go([PartitionCopies(index, ("a",)) for index in range(100)], mesh(peer("a", "dead")))


def test_one_choice_in_a_hundred_explores() -> None:
    copies = [PartitionCopies(0, ("a", "b"), ("c",))]
    estimates = mesh(peer("a"), peer("b", rtt_s=3.0), peer("c"))
    routes = [go(copies, estimates, seed) for seed in range(5000)]
    explored = [found for found in routes if found.explored]
    assert 20 <= len(explored) <= 90
    assert all(found.assignments == {"b": (0,)} for found in explored)


@settings(max_examples=200)
@given(seed=st.integers(0, 2**32 - 1), peers=st.integers(1, 8), partitions=st.integers(1, 20))
def test_every_partition_is_asked_once_of_its_best_kind_of_holder(
    seed: int, peers: int, partitions: int
) -> None:
    rng = random.Random(seed)
    names = [f"p{index}" for index in range(peers)]
    estimates = mesh(*(peer(name, rng.choice(STATES), rng.random()) for name in names))
    copies = []
    for index in range(partitions):
        holders = rng.sample(names, rng.randint(1, peers))
        residents = rng.randint(1, len(holders))
        copies.append(PartitionCopies(index, tuple(holders[:residents]), tuple(holders[residents:])))

    def kind(entry: PartitionCopies, name: str) -> tuple[int, bool]:
        return STATES.index(estimates[name].state), name in entry.standby

    best = [min(kind(entry, name) for name in (*entry.resident, *entry.standby)) for entry in copies]
    try:
        found = route(copies, estimates, WORK, random.Random(seed))
    except HoldersUnreachable:
        assert any(state > 1 for state, _ in best)
        return
    asked = {index: name for name, indexes in found.assignments.items() for index in indexes}
    assert sorted(index for indexes in found.assignments.values() for index in indexes) == list(
        range(partitions)
    )
    assert [kind(entry, asked[entry.index]) for entry in copies] == best
    assert found.standby == {entry.index for entry in copies if asked[entry.index] in entry.standby}
    assert found.predicted_s.keys() == found.assignments.keys()
    assert found == route(copies, estimates, WORK, random.Random(seed))


def test_an_answer_is_late_well_after_its_prediction() -> None:
    assert late_after_s(0.0) == 0.060
    assert late_after_s(0.1) == pytest.approx(0.2)


def test_late_requests_are_asked_twice_within_five_percent() -> None:
    budget = HedgeBudget()
    twice = 0
    for _ in range(10_000):
        budget.earn()
        twice += budget.spend()
    assert twice == pytest.approx(500, abs=2)


def test_a_quiet_time_saves_no_more_than_a_burst() -> None:
    budget = HedgeBudget()
    for _ in range(10_000):
        budget.earn()
    assert sum(budget.spend() for _ in range(100)) == HEDGE_BURST


def test_the_state_of_a_peer_counts_before_its_speed() -> None:
    estimates = mesh(replace(peer("a"), in_flight=10**6), peer("b"))
    assert go([PartitionCopies(0, ("a",), ("b",))], estimates).assignments == {"a": (0,)}
