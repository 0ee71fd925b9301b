"""Whom a relay serves: admission, under any order of requests."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sedmad.net.relay.limits import (
    COUNTED_PEERS_MAX,
    Admission,
    AdmittedCircuit,
    CircuitLimit,
    Refusal,
    RelayLimits,
)

FEW = RelayLimits(
    reservations_max=4,
    reservations_per_address_max=2,
    circuits_max=6,
    circuits_per_peer_max=3,
    circuits_per_pair_max=2,
    circuits_per_address_max=4,
    strangers_max=3,
    strangers_per_address_max=2,
)


def reserved(*peers: str, limits: RelayLimits = FEW) -> Admission:
    admission = Admission(limits)
    for peer in peers:
        assert admission.reserve(peer, f"address of {peer}", is_member=True, now=0.0) is None
    return admission


def begin(admission: Admission, source: str, target: str, address: str = "", **changes: object) -> object:
    arguments: dict = {"is_member": True, "now": 0.0, **changes}
    return admission.begin(source, target, address or source, **arguments)


def test_reservations_are_for_members_until_they_expire() -> None:
    admission = Admission(FEW)
    assert admission.reserve("a", "1.1.1.1", is_member=False, now=0.0) is Refusal.NOT_PERMITTED
    assert admission.reserve("a", "1.1.1.1", is_member=True, now=0.0) is None
    assert admission.has_reserved("a", FEW.reservation_s - 1)
    assert not admission.has_reserved("a", FEW.reservation_s)
    assert admission.reserve("a", "1.1.1.1", is_member=True, now=10.0) is None
    assert admission.has_reserved("a", FEW.reservation_s)


def test_reservations_are_bounded_in_all_and_by_address_and_renewed_beyond_that() -> None:
    admission = reserved("a", "b", "c", "d")
    assert admission.reserve("e", "x", is_member=True, now=0.0) is Refusal.TOO_MANY
    assert admission.reserve("a", "address of a", is_member=True, now=0.0) is None
    admission.forget_absent({"a", "b"}, 0.0)
    assert admission.reserve("e", "address of a", is_member=True, now=0.0) is None
    assert admission.reserve("f", "address of a", is_member=True, now=0.0) is Refusal.TOO_MANY
    admission.forget_absent({"a", "b", "e"}, FEW.reservation_s)
    assert admission.reservation_count == 0


def test_circuits_go_to_those_who_reserved_and_never_back_to_their_source() -> None:
    admission = reserved("b")
    assert begin(admission, "a", "nobody") is Refusal.NO_RESERVATION
    assert begin(admission, "b", "b") is Refusal.NOT_PERMITTED
    assert begin(admission, "a", "b", now=FEW.reservation_s) is Refusal.NO_RESERVATION
    assert isinstance(begin(admission, "a", "b"), AdmittedCircuit)


def test_nobody_takes_all_circuits() -> None:
    admission = reserved("b", "c", "d")
    mine = [begin(admission, "a", target) for target in ("b", "c", "d")]
    assert all(isinstance(circuit, AdmittedCircuit) for circuit in mine)
    assert begin(admission, "a", "b") is Refusal.TOO_MANY
    assert isinstance(begin(admission, "e", "b"), AdmittedCircuit)
    assert isinstance(begin(admission, "f", "b"), AdmittedCircuit)
    assert begin(admission, "g", "b") is Refusal.TOO_MANY  # b has its three
    admission.end(mine[0])  # type: ignore[arg-type]
    admission.end(mine[0])  # type: ignore[arg-type]
    assert isinstance(begin(admission, "g", "b"), AdmittedCircuit)
    assert isinstance(begin(admission, "g", "c"), AdmittedCircuit)
    assert begin(admission, "h", "d") is Refusal.TOO_MANY  # the relay has its six


def test_nobody_takes_all_that_another_may_have() -> None:
    admission = reserved("a", "b")
    assert isinstance(begin(admission, "a", "b"), AdmittedCircuit)
    assert isinstance(begin(admission, "b", "a"), AdmittedCircuit)
    assert begin(admission, "a", "b") is Refusal.TOO_MANY
    assert begin(admission, "b", "a") is Refusal.TOO_MANY
    assert isinstance(begin(admission, "c", "b"), AdmittedCircuit)


def test_strangers_get_a_few_short_circuits() -> None:
    admission = reserved("b", "c")
    circuit = begin(admission, "s", "b", "1.1.1.1", is_member=False)
    assert isinstance(circuit, AdmittedCircuit)
    assert circuit.limit == CircuitLimit(seconds=60.0, bytes=256 << 10)
    assert isinstance(begin(admission, "t", "b", "1.1.1.1", is_member=False), AdmittedCircuit)
    assert begin(admission, "u", "b", "1.1.1.1", is_member=False) is Refusal.TOO_MANY
    assert begin(admission, "v", "c", "2.2.2.2", is_member=False) is Refusal.TOO_MANY  # asked too often
    assert isinstance(begin(admission, "v", "c", "2.2.2.2", is_member=False, now=1.0), AdmittedCircuit)
    assert begin(admission, "w", "c", "3.3.3.3", is_member=False, now=9.0) is Refusal.TOO_MANY
    member = begin(admission, "m", "c", "1.1.1.1")
    assert isinstance(member, AdmittedCircuit)
    assert member.limit is None


def test_who_asks_for_ever_is_slowed_down_alone() -> None:
    admission = reserved("b", "c")
    answers = [begin(admission, "a", "nobody", now=0.0) for _ in range(1000)]
    assert answers.count(Refusal.NO_RESERVATION) == FEW.circuits_per_peer_max
    assert begin(admission, "a", "b", now=0.5) is Refusal.TOO_MANY
    assert isinstance(begin(admission, "c", "b", now=0.5), AdmittedCircuit)
    assert isinstance(begin(admission, "a", "b", now=1.5), AdmittedCircuit)
    for index in range(2 * COUNTED_PEERS_MAX):
        begin(admission, f"peer {index}", "b", now=2.0)
    assert len(admission._begun) == COUNTED_PEERS_MAX


@given(st.integers(0, 1000))
def test_the_bounds_hold_whatever_happens_and_all_places_come_back(seed: int) -> None:
    rng = random.Random(seed)
    admission = Admission(FEW)
    peers, addresses = "abcdefgh", ("1", "2", "3")
    circuits: list[AdmittedCircuit] = []
    now = 0.0
    for _ in range(200):
        now += rng.choice([0.0, 0.1, 5.0, 2000.0])
        step = rng.random()
        if step < 0.3:
            admission.reserve(rng.choice(peers), rng.choice(addresses), is_member=rng.random() < 0.8, now=now)
        elif step < 0.4:
            admission.forget_absent(set(rng.sample(peers, 6)), now)
        elif step < 0.8:
            source, target = rng.choice(peers), rng.choice(peers)
            began = admission.begin(
                source, target, rng.choice(addresses), is_member=rng.random() < 0.5, now=now
            )
            if isinstance(began, AdmittedCircuit):
                circuits.append(began)
        elif circuits:
            admission.end(circuits.pop(rng.randrange(len(circuits))))
        assert admission.reservation_count <= FEW.reservations_max
        assert len(circuits) == admission.circuit_count <= FEW.circuits_max
        for peer in peers:
            assert sum(peer in (c.source, c.target) for c in circuits) <= FEW.circuits_per_peer_max
            for other in peers:
                assert (
                    sum({peer, other} == {c.source, c.target} for c in circuits) <= FEW.circuits_per_pair_max
                )
        assert sum(c.is_stranger for c in circuits) <= FEW.strangers_max
        for address in addresses:
            assert sum(c.address == address for c in circuits) <= FEW.circuits_per_address_max
    for circuit in circuits:
        admission.end(circuit)
    assert not admission._by_peer
    assert not admission._by_address
    assert not admission._by_pair
    assert not admission._strangers


@pytest.mark.parametrize("is_member", [True, False])
def test_no_reservation_is_told_before_it_is_told_that_all_is_full(is_member: bool) -> None:
    assert begin(Admission(FEW), "a", "b", is_member=is_member) is Refusal.NO_RESERVATION
