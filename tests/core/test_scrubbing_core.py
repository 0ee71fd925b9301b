from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sedmad.core.scrubbing import (
    BUSY_RATE_BYTES_PER_S,
    CPU_SHARE_MAX,
    RATE_BYTES_PER_S,
    ROUND_S,
    Round,
    next_round,
    pause_s,
)

WEEK_S = 7 * 86_400.0
CHUNK = 1 << 20


def test_rounds_begin_at_once_go_on_where_they_were_and_begin_again_in_time() -> None:
    first = next_round(None, 1000.0)
    assert first == Round(1000.0)
    halfway = first.passed(b"m")
    assert next_round(halfway, 9e9) == halfway
    ended = halfway.end()
    assert next_round(ended, 1000.0 + ROUND_S - 1) is None
    assert next_round(ended, 1000.0 + ROUND_S) == Round(1000.0 + ROUND_S)
    assert 2 * ROUND_S <= WEEK_S


def test_a_clock_that_went_back_begins_a_round() -> None:
    assert next_round(Round(5000.0).end(), 1000.0) == Round(1000.0)


@given(
    size_bytes=st.integers(1, CHUNK),
    cpu_s=st.floats(0, 1),
    busy=st.booleans(),
    left_bytes=st.integers(0, 1 << 43),
    left_s=st.floats(-WEEK_S, ROUND_S),
)
def test_neither_the_rate_nor_the_share_of_a_processor_is_ever_exceeded(
    size_bytes: int, cpu_s: float, busy: bool, left_bytes: int, left_s: float
) -> None:
    pause = pause_s(
        size_bytes, cpu_s, busy=busy, left_bytes=left_bytes, left_s=left_s, rate_bytes_per_s=RATE_BYTES_PER_S
    )
    assert size_bytes <= pause * RATE_BYTES_PER_S * (1 + 1e-9)
    assert cpu_s <= pause * CPU_SHARE_MAX * (1 + 1e-9)


@given(left_bytes=st.integers(CHUNK, int(RATE_BYTES_PER_S * ROUND_S)))
def test_a_node_that_is_always_busy_comes_to_the_end_of_its_round_in_time(left_bytes: int) -> None:
    pause = pause_s(
        CHUNK, 0.0, busy=True, left_bytes=left_bytes, left_s=ROUND_S, rate_bytes_per_s=RATE_BYTES_PER_S
    )
    assert left_bytes / CHUNK * pause <= ROUND_S * (1 + 1e-9)
    assert CHUNK / pause >= BUSY_RATE_BYTES_PER_S * (1 - 1e-9)
