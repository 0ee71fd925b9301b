from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sedmad.net.rate_limit import RateLimit


def test_a_burst_and_then_the_rate() -> None:
    limit = RateLimit(rate_per_s=2.0, burst=3)
    assert [limit.allow(10.0) for _ in range(5)] == [True, True, True, False, False]
    assert [limit.allow(now) for now in (10.4, 10.6, 10.7, 11.1)] == [False, True, False, True]
    assert [limit.allow(1e6) for _ in range(4)] == [True, True, True, False]


@given(st.lists(st.floats(0, 10), max_size=50), st.floats(0.01, 10), st.integers(1, 5))
def test_never_more_than_the_burst_and_the_rate_allow(
    steps_s: list[float], rate_per_s: float, burst: int
) -> None:
    limit = RateLimit(rate_per_s, burst)
    now, allowed = 100.0, 0
    for step_s in steps_s:
        now += step_s
        allowed += limit.allow(now)
    assert allowed <= burst + (now - 100.0) * rate_per_s + 1e-6


def test_a_clock_that_steps_back_gives_nothing() -> None:
    limit = RateLimit(rate_per_s=1.0, burst=1)
    assert limit.allow(100.0)
    assert not limit.allow(50.0)
