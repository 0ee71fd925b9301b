from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from sedmad.core.offers import Offer, candidates, guardians
from sedmad.sizes import GIB


def offer(
    peer_id: str, memory: int = GIB, rtt_s: float = 0.01, zone: str = "", draining: bool = False
) -> Offer:
    labels = {"zone": zone} if zone else {}
    return Offer(peer_id, memory, GIB, 80.0, 10e9, rtt_s=rtt_s, labels=labels, draining=draining)


def test_all_are_considered_while_they_are_few() -> None:
    nodes = [offer(f"n{index:02}") for index in range(96)]
    assert candidates(nodes[::-1], b"m") == nodes


def test_of_many_the_nearest_and_a_stable_choice_by_hash_are_considered() -> None:
    rng = random.Random(1)
    nodes = [offer(f"n{index}", rtt_s=rng.random()) for index in range(1000)]
    chosen = {node.peer_id for node in candidates(nodes, b"m")}
    assert 64 <= len(chosen) <= 96
    nearest = sorted(nodes, key=lambda node: node.rtt_s)[:32]
    assert chosen >= {node.peer_id for node in nearest}
    rng.shuffle(nodes)
    assert {node.peer_id for node in candidates(nodes, b"m")} == chosen
    assert {node.peer_id for node in candidates(nodes, b"other")} != chosen
    # A node that leaves costs its own place and no other.
    fewer = [node for node in nodes if node.peer_id != min(chosen)]
    assert {node.peer_id for node in candidates(fewer, b"m")} >= chosen - {min(chosen)}


def test_the_hash_prefers_what_has_more_memory() -> None:
    nodes = [offer(f"n{index}", memory=(16 if index % 2 else 1) * GIB) for index in range(2000)]
    nodes += [offer(f"z{index}", memory=0) for index in range(100)]
    chosen = candidates(nodes, b"m")
    large = sum(node.memory_available_bytes == 16 * GIB for node in chosen)
    assert large > len(chosen) / 2
    assert all(node.memory_available_bytes for node in chosen)


@given(st.integers(0, 9), st.booleans())
def test_guardians_are_odd_and_include_the_owner(others: int, owner_offers: bool) -> None:
    nodes = [offer(f"n{index}", rtt_s=index / 100) for index in range(others)]
    chosen = guardians("own", [*nodes, offer("own", rtt_s=0)] if owner_offers else nodes)
    assert chosen[0] == "own"
    assert len(chosen) == len(set(chosen)) == {0: 1, 1: 1, 2: 3, 3: 3}.get(others, 5)
    assert set(chosen[1:]) == {f"n{index}" for index in range(len(chosen) - 1)}


def test_guardians_are_near_of_different_zones_and_stay() -> None:
    nodes = [
        offer("own", rtt_s=0, zone="a"),
        offer("near", rtt_s=0.001, zone="a"),
        offer("leaving", rtt_s=0.001, zone="b", draining=True),
        offer("next", rtt_s=0.002, zone="b"),
        offer("far", rtt_s=0.3, zone="c"),
    ]
    assert guardians("own", nodes[:4]) == ("own", "next", "near")
    assert guardians("own", nodes) == ("own", "next", "far")
