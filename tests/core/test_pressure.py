"""A pledge gives way to pressure before memory runs out, comes back when there is plenty, and does not swing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sedmad.core.pressure import RECOVERED, MemoryReading, bearable_pledge_bytes
from sedmad.sizes import GIB, MIB

sizes = st.integers(0, 1 << 42)


def bearable(available_bytes: int, resident_bytes: int, present_bytes: int = 4 * GIB) -> int:
    reading = MemoryReading(16 * GIB, available_bytes)
    return bearable_pledge_bytes(
        reading, pledged_bytes=4 * GIB, present_bytes=present_bytes, resident_bytes=resident_bytes
    )


def test_without_pressure_the_pledge_is_kept() -> None:
    assert bearable(8 * GIB, resident_bytes=3 * GIB) == 4 * GIB


def test_what_others_take_is_given_up() -> None:
    reserve_bytes = MemoryReading(16 * GIB, 0).reserve_bytes
    assert bearable(100 * MIB, resident_bytes=3 * GIB) == 3 * GIB + 100 * MIB - reserve_bytes
    assert bearable(0, resident_bytes=300 * MIB) == 0


def test_it_comes_back_only_when_there_is_plenty() -> None:
    reserve_bytes = MemoryReading(16 * GIB, 0).reserve_bytes
    lowered = bearable(reserve_bytes // 2, resident_bytes=2 * GIB)
    assert lowered < 2 * GIB
    # What was given up is available now; that alone raises nothing.
    available_bytes = reserve_bytes // 2 + 2 * GIB - lowered
    assert bearable(available_bytes, resident_bytes=lowered, present_bytes=lowered) == lowered
    plenty_bytes = int(RECOVERED * reserve_bytes)
    assert bearable(plenty_bytes, resident_bytes=lowered, present_bytes=lowered) > lowered


def test_a_small_container_keeps_a_share_for_itself() -> None:
    assert MemoryReading(128 * MIB, 0).reserve_bytes == 32 * MIB


@given(sizes, sizes, sizes, sizes, sizes)
def test_it_stays_within_what_was_pledged_and_leaves_the_reserve(
    limit_bytes: int, available_bytes: int, pledged_bytes: int, present_bytes: int, resident_bytes: int
) -> None:
    reading = MemoryReading(limit_bytes, available_bytes)
    new_bytes = bearable_pledge_bytes(
        reading,
        pledged_bytes=pledged_bytes,
        present_bytes=present_bytes,
        resident_bytes=resident_bytes,
    )
    assert 0 <= new_bytes <= pledged_bytes
    assert new_bytes <= max(0, resident_bytes + available_bytes - reading.reserve_bytes) or (
        new_bytes <= present_bytes and new_bytes <= resident_bytes + available_bytes
    )
