from __future__ import annotations

import math

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sedmad.core.capacity import CapacityLedger, Usage
from sedmad.errors import InsufficientCapacity, LocalError
from sedmad.sizes import GIB, MIB


def ledger(memory_bytes: int = 2 * GIB, disk_bytes: int = 4 * GIB) -> CapacityLedger:
    return CapacityLedger(memory_pledged_bytes=memory_bytes, disk_pledged_bytes=disk_bytes, node="alpha")


def test_a_reservation_becomes_use_and_is_given_back() -> None:
    held = ledger()
    held.reserve("a", expires_at_s=10, memory_bytes=8 * MIB, disk_bytes=9 * MIB)
    assert held.memory == Usage(2 * GIB, used_bytes=0, reserved_bytes=8 * MIB)
    held.commit("a")
    assert held.memory == Usage(2 * GIB, used_bytes=8 * MIB)
    assert held.disk == Usage(4 * GIB, used_bytes=9 * MIB)
    held.release("a")
    assert held.memory.available_bytes == 2 * GIB
    assert "a" not in held


def test_a_refusal_shows_the_arithmetic_and_reserves_nothing() -> None:
    held = ledger(disk_bytes=10 * MIB)
    held.reserve("a", expires_at_s=10, disk_bytes=3 * MIB)
    with pytest.raises(InsufficientCapacity) as caught:
        held.reserve("b", expires_at_s=10, memory_bytes=8 * MIB, disk_bytes=8 * MIB)
    assert caught.value.node == "alpha"
    assert caught.value.why == "needs 8.0 MiB, pledged 10.0 MiB, used 0 B, reserved 3.0 MiB"
    assert held.memory.available_bytes == 2 * GIB


def test_reservations_expire_and_commitments_do_not() -> None:
    held = ledger()
    held.reserve("slow", expires_at_s=10, disk_bytes=1)
    held.reserve("done", expires_at_s=10, disk_bytes=1)
    held.commit("done")
    assert held.expire(9.9) == []
    assert held.expire(10) == ["slow"]
    assert held.expire(math.inf) == []
    assert "done" in held


def test_what_lies_on_disk_counts_even_above_a_lowered_pledge() -> None:
    held = ledger(disk_bytes=MIB)
    held.adopt("old", disk_bytes=5 * MIB)
    assert held.disk.available_bytes == 0
    with pytest.raises(InsufficientCapacity):
        held.reserve("new", expires_at_s=10, disk_bytes=1)


def test_wrong_use_is_a_bug_and_says_so() -> None:
    held = ledger()
    held.reserve("a", expires_at_s=10, disk_bytes=1)
    with pytest.raises(LocalError, match="new key"):
        held.reserve("a", expires_at_s=10, disk_bytes=1)
    with pytest.raises(LocalError, match="some bytes"):
        held.reserve("b", expires_at_s=10)
    with pytest.raises(LocalError, match="some bytes"):
        held.adopt("b", disk_bytes=0)
    with pytest.raises(LocalError, match="committed"):
        held.commit("b")
    held.commit("a")
    with pytest.raises(LocalError, match="committed"):
        held.commit("a")
    held.release("a")
    with pytest.raises(LocalError, match="released"):
        held.release("a")


class LedgerNeverExceedsItsPledges(RuleBasedStateMachine):
    """Any order of calls against a plain model: a dict of what was granted."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = CapacityLedger(memory_pledged_bytes=100, disk_pledged_bytes=150)
        self.granted: dict[int, tuple[int, int, float | None]] = {}
        self.now = 0.0

    @rule(key=st.integers(0, 9), memory=st.integers(0, 60), disk=st.integers(1, 60), lasts=st.integers(1, 9))
    def reserve(self, key: int, memory: int, disk: int, lasts: int) -> None:
        if key in self.granted:
            return
        room = (
            100 - sum(entry[0] for entry in self.granted.values()),
            150 - sum(entry[1] for entry in self.granted.values()),
        )
        try:
            self.ledger.reserve(key, expires_at_s=self.now + lasts, memory_bytes=memory, disk_bytes=disk)
        except InsufficientCapacity:
            assert memory > room[0] or disk > room[1]
        else:
            assert memory <= room[0]
            assert disk <= room[1]
            self.granted[key] = (memory, disk, self.now + lasts)

    @rule(key=st.integers(0, 9))
    def commit(self, key: int) -> None:
        if key in self.granted and self.granted[key][2] is not None:
            self.ledger.commit(key)
            self.granted[key] = (*self.granted[key][:2], None)

    @rule(key=st.integers(0, 9))
    def release(self, key: int) -> None:
        if self.granted.pop(key, None) is not None:
            self.ledger.release(key)

    @rule(passes=st.integers(0, 5))
    def expire(self, passes: int) -> None:
        self.now += passes
        over = {key for key, entry in self.granted.items() if entry[2] is not None and entry[2] <= self.now}
        assert set(self.ledger.expire(self.now)) == over
        for key in over:
            del self.granted[key]

    @invariant()
    def accounts_agree(self) -> None:
        for index, usage in enumerate((self.ledger.memory, self.ledger.disk)):
            entries = self.granted.values()
            assert usage.used_bytes == sum(entry[index] for entry in entries if entry[2] is None)
            assert usage.reserved_bytes == sum(entry[index] for entry in entries if entry[2] is not None)
            assert usage.used_bytes + usage.reserved_bytes <= usage.pledged_bytes


TestLedger = LedgerNeverExceedsItsPledges.TestCase
