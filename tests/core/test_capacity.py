from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sedmad.core.capacity import CapacityLedger, Usage
from sedmad.errors import InsufficientCapacity, LocalError
from sedmad.sizes import GIB, MIB


def ledger(memory_bytes: int = 2 * GIB, disk_bytes: int = 4 * GIB) -> CapacityLedger:
    return CapacityLedger(memory_pledged_bytes=memory_bytes, disk_pledged_bytes=disk_bytes, node="alpha")


def test_what_is_reserved_or_used_is_given_back() -> None:
    held = ledger()
    held.reserve("a", memory_bytes=8 * MIB, disk_bytes=9 * MIB)
    assert held.memory == Usage(2 * GIB, used_bytes=0, reserved_bytes=8 * MIB)
    held.release("a")
    held.adopt("a", memory_bytes=8 * MIB, disk_bytes=9 * MIB)
    assert held.memory == Usage(2 * GIB, used_bytes=8 * MIB)
    assert held.disk == Usage(4 * GIB, used_bytes=9 * MIB)
    held.release("a")
    assert held.memory.available_bytes == 2 * GIB
    assert "a" not in held


def test_a_refusal_shows_the_arithmetic_and_reserves_nothing() -> None:
    held = ledger(disk_bytes=10 * MIB)
    held.reserve("a", disk_bytes=3 * MIB)
    with pytest.raises(InsufficientCapacity) as caught:
        held.reserve("b", memory_bytes=8 * MIB, disk_bytes=8 * MIB)
    assert caught.value.node == "alpha"
    assert caught.value.why == "needs 8.0 MiB, pledged 10.0 MiB, used 0 B, reserved 3.0 MiB"
    assert held.memory.available_bytes == 2 * GIB


def test_what_is_there_counts_even_above_a_lowered_pledge() -> None:
    held = ledger(disk_bytes=MIB)
    held.pledge_memory(MIB)
    held.adopt("old", memory_bytes=4 * MIB, disk_bytes=5 * MIB)
    assert held.memory == Usage(MIB, used_bytes=4 * MIB)
    assert held.disk.available_bytes == held.memory.available_bytes == 0
    with pytest.raises(InsufficientCapacity):
        held.reserve("new", disk_bytes=1)


def test_wrong_use_is_a_bug_and_says_so() -> None:
    held = ledger()
    held.reserve("a", disk_bytes=1)
    for count in (held.reserve, held.adopt):
        with pytest.raises(LocalError, match="new key"):
            count("a", disk_bytes=1)
        with pytest.raises(LocalError, match="in bytes"):
            count("b")
        with pytest.raises(LocalError, match="in bytes"):
            count("b", memory_bytes=2, disk_bytes=-1)
    held.release("a")
    with pytest.raises(LocalError, match="released"):
        held.release("a")


class AnyOrderOfCalls(RuleBasedStateMachine):
    """The ledger against a plain model: a dict of what was granted, and whether it is used."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = CapacityLedger(memory_pledged_bytes=100, disk_pledged_bytes=150)
        self.granted: dict[int, tuple[int, int, bool]] = {}

    @rule(key=st.integers(0, 9), memory=st.integers(0, 60), disk=st.integers(1, 60))
    def reserve(self, key: int, memory: int, disk: int) -> None:
        if key in self.granted:
            return
        room = (
            max(0, 100 - sum(entry[0] for entry in self.granted.values())),
            max(0, 150 - sum(entry[1] for entry in self.granted.values())),
        )
        try:
            self.ledger.reserve(key, memory_bytes=memory, disk_bytes=disk)
        except InsufficientCapacity:
            assert memory > room[0] or disk > room[1]
        else:
            assert memory <= room[0]
            assert disk <= room[1]
            self.granted[key] = (memory, disk, False)

    @rule(key=st.integers(0, 9), memory=st.integers(0, 60), disk=st.integers(1, 60))
    def adopt(self, key: int, memory: int, disk: int) -> None:
        if key not in self.granted:
            self.ledger.adopt(key, memory_bytes=memory, disk_bytes=disk)
            self.granted[key] = (memory, disk, True)

    @rule(key=st.integers(0, 9))
    def release(self, key: int) -> None:
        if self.granted.pop(key, None) is not None:
            self.ledger.release(key)

    @invariant()
    def accounts_agree(self) -> None:
        for index, usage in enumerate((self.ledger.memory, self.ledger.disk)):
            entries = self.granted.values()
            assert usage.used_bytes == sum(entry[index] for entry in entries if entry[2])
            assert usage.reserved_bytes == sum(entry[index] for entry in entries if not entry[2])


TestLedger = AnyOrderOfCalls.TestCase
