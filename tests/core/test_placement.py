from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sedmad.core.offers import Offer
from sedmad.core.partitioning import Partitioning
from sedmad.core.placement import Placement, place
from sedmad.errors import InsufficientCapacity, NotEnoughPeers, UsageError
from sedmad.sizes import GIB, MIB

SQUARE = Partitioning(4096, 4096, 4)  # 8 partitions of 8 MiB


def offer(peer_id: str, memory: int = GIB, disk: int = 4 * GIB, **values: object) -> Offer:
    speeds = {"gflops": 80.0, "memory_bandwidth_bytes_per_s": 10e9, "rtt_s": 0.001}
    return Offer(
        peer_id=peer_id,
        memory_available_bytes=memory,
        disk_available_bytes=disk,
        **{"link_bandwidth_bytes_per_s": 50e6, **speeds, **values},  # type: ignore[arg-type]
    )


def offers(count: int) -> list[Offer]:
    return [offer(f"node-{index}") for index in range(count)]


def shares(placement: Placement) -> Counter[str]:
    return Counter(partition.resident for partition in placement.partitions)


def check(placement: Placement, survive: int, given_offers: list[Offer]) -> None:
    """Assert what must hold of every placement."""
    by_peer = {offer.peer_id: offer for offer in given_offers}
    assert len(placement.partitions) == placement.partitioning.count
    for partition in placement.partitions:
        holders = {partition.resident, *partition.standbys}
        assert len(partition.standbys) == survive
        assert len(holders) == survive + 1
        assert not any(by_peer[holder].draining for holder in holders)
    for peer_id, need in placement.needs().items():
        assert need.memory_bytes <= by_peer[peer_id].memory_available_bytes
        assert need.disk_bytes <= by_peer[peer_id].disk_available_bytes


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 12),
    survive=st.integers(0, 4),
    rows=st.integers(1, 12 * 512),
    roomy=st.sampled_from((20, 60, 400)),
)
def test_a_placement_keeps_its_promises_and_room_that_adds_up_is_used(
    seed: int, count: int, survive: int, rows: int, roomy: int
) -> None:
    rng = random.Random(seed)
    cut = Partitioning(rows, 4096, 4)
    nodes = [
        offer(
            f"n{index}",
            memory=rng.randrange(roomy * MIB),
            disk=rng.randrange(3 * roomy * MIB),
            gflops=rng.uniform(0, 100),
            rtt_s=rng.expovariate(20),
            labels={"zone": rng.choice("ab")} if rng.random() < 0.5 else {},
            draining=rng.random() < 0.1,
        )
        for index in range(count)
    ]
    usable = [node for node in nodes if not node.draining]
    size = cut.size_bytes(0)
    memory_room = sum(min(n.memory_available_bytes, n.disk_available_bytes) // size for n in usable)
    copies_room = sum(min(n.disk_available_bytes // size, cut.count) for n in usable)
    adds_up = memory_room >= cut.count and copies_room >= cut.count * (survive + 1)
    try:
        placement = place(cut, survive, nodes, b"matrix")
    except NotEnoughPeers:
        assert len(usable) <= survive
    except InsufficientCapacity:
        assert not adds_up
    else:
        check(placement, survive, nodes)
        rng.shuffle(nodes)
        assert place(cut, survive, nodes, b"matrix") == placement


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(2, 8),
    partitions=st.integers(1, 12),
    survive=st.integers(0, 3),
)
def test_room_that_is_just_enough_is_used_to_the_last_byte(
    seed: int, count: int, partitions: int, survive: int
) -> None:
    rng = random.Random(seed)
    survive = min(survive, count - 1)
    disks, memories = [0] * count, [0] * count
    for _ in range(partitions * (survive + 1)):
        disks[rng.choice([node for node in range(count) if disks[node] < partitions])] += 1
    for _ in range(partitions):
        memories[rng.choice([node for node in range(count) if memories[node] < disks[node]])] += 1
    nodes = [
        offer(f"n{node}", memory=memories[node] * 8 * MIB, disk=disks[node] * 8 * MIB, rtt_s=rng.random())
        for node in range(count)
    ]
    check(place(Partitioning(512 * partitions, 4096, 4), survive, nodes, b"matrix"), survive, nodes)


def test_equal_nodes_get_equal_shares_of_neighbouring_partitions() -> None:
    placement = place(SQUARE, 1, offers(4), b"matrix")
    assert set(shares(placement).values()) == {2}
    residents = [partition.resident for partition in placement.partitions]
    assert sum(left != right for left, right in itertools.pairwise(residents)) == 3
    assert set(Counter(p.standbys[0] for p in placement.partitions)) == {
        f"node-{index}" for index in range(4)
    }


def test_shares_follow_speed_and_distance() -> None:
    nodes = [offer("fast", gflops=160.0), offer("slow", gflops=40.0), offer("far", rtt_s=2.0)]
    placement = place(SQUARE, 0, nodes, b"matrix")
    assert shares(placement)["fast"] > shares(placement)["slow"] > 0
    assert shares(placement)["far"] == 0


def test_a_nearly_full_pledge_is_spared() -> None:
    nodes = [
        offer("full", memory=150 * MIB, memory_pledged_bytes=GIB),
        offer("empty", memory=GIB, memory_pledged_bytes=GIB),
    ]
    assert shares(place(SQUARE, 0, nodes, b"matrix"))["empty"] >= 7


def test_memory_is_a_hard_limit_for_residents_and_not_for_standbys() -> None:
    nodes = [offer("none", memory=0), offer("some", memory=24 * MIB), offer("rest", memory=40 * MIB)]
    placement = place(SQUARE, 1, nodes, b"matrix")
    assert shares(placement) == {"some": 3, "rest": 5}
    check(placement, 1, nodes)


def test_one_partition_goes_to_the_best_node() -> None:
    nodes = [*offers(5), offer("own", rtt_s=0.0, link_bandwidth_bytes_per_s=float("inf"))]
    placement = place(Partitioning(10, 10, 8), 1, nodes, b"matrix")
    assert placement.partitions[0].resident == "own"
    assert placement.partitions[0].standbys[0] != "own"


def test_copies_go_to_different_zones() -> None:
    nodes = [offer(f"n{index}", labels={"zone": "ab"[index % 2]}) for index in range(6)]
    zone = {node.peer_id: node.zone for node in nodes}
    for partition in place(SQUARE, 1, nodes, b"matrix").partitions:
        assert zone[partition.resident] != zone[partition.standbys[0]]


def test_one_zone_is_better_than_no_copy() -> None:
    nodes = [offer(f"n{index}", labels={"zone": "a"}) for index in range(3)]
    check(place(SQUARE, 2, nodes, b"matrix"), 2, nodes)


def test_the_load_of_a_lost_node_falls_on_many() -> None:
    nodes = [offer("big", memory=64 * MIB), *(offer(f"n{index}", memory=0) for index in range(4))]
    placement = place(SQUARE, 1, nodes, b"matrix")
    assert shares(placement) == {"big": 8}
    assert set(Counter(partition.standbys[0] for partition in placement.partitions).values()) == {2}


def test_a_small_disk_is_spared_when_others_are_empty() -> None:
    nodes = [offer("own", memory=64 * MIB), offer("small", memory=0, disk=24 * MIB), offer("large", memory=0)]
    standbys = Counter(partition.standbys[0] for partition in place(SQUARE, 1, nodes, b"matrix").partitions)
    assert standbys == {"small": 1, "large": 7}


@pytest.mark.parametrize("survive", [0, 1, 2])
def test_a_short_last_partition_needs_no_more_than_its_bytes(survive: int) -> None:
    cut = Partitioning(4000, 4096, 4)  # 62.5 MiB: seven whole partitions and a short one
    nodes = [offer(f"n{index}", memory=cut.total_bytes, disk=cut.total_bytes) for index in range(survive + 1)]
    check(place(cut, survive, nodes, b"matrix"), survive, nodes)


def test_too_few_nodes_are_counted() -> None:
    with pytest.raises(NotEnoughPeers) as caught:
        place(SQUARE, 1, [offer("a"), offer("b", draining=True)], b"matrix")
    assert caught.value.why == "2 copies need 2 nodes; 1 take copies, 1 are draining"
    assert "--survive 0" in caught.value.hint


def test_a_refusal_shows_the_arithmetic() -> None:
    nodes = [offer("id-a", memory=22 * MIB, name="alpha"), *(offer(f"n{i}", memory=MIB) for i in range(9))]
    with pytest.raises(InsufficientCapacity) as caught:
        place(SQUARE, 1, nodes, b"matrix")
    lines = caught.value.why.splitlines()
    assert lines[0] == (
        "8 partitions of 8.0 MiB, 2 copies on different nodes, need 64.0 MiB of memory and 128.0 MiB of disk"
    )
    assert lines[1] == "  alpha: memory 22.0 MiB (room for 2), disk 4.0 GiB (room for 512)"
    assert lines[-1] == "  and 2 nodes with less memory"
    assert len(lines) == 10


def test_surviving_less_than_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="-1"):
        place(SQUARE, -1, offers(2), b"matrix")


def test_a_thousand_nodes_hold_what_only_all_of_them_can() -> None:
    rng = random.Random(7)
    nodes = [offer(f"node-{index}", memory=8 * MIB, disk=24 * MIB) for index in range(1000)]
    rng.shuffle(nodes)
    cut = Partitioning(512 * 1000, 4096, 4)
    placement = place(cut, 2, nodes, b"matrix")
    check(placement, 2, nodes)
    assert len(shares(placement)) == 1000
