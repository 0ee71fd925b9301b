"""What a link does to frames, without a clock."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nat_lab import LabError, LinkQuality
from nat_lab.link import FRAMES_MAX, Direction

FRAME = bytes(1250)
GAPS_S = st.lists(st.floats(0, 0.05), max_size=60)
QUALITIES = st.builds(
    LinkQuality,
    delay_ms=st.floats(0, 200),
    jitter_ms=st.floats(0, 300),
    loss_percent=st.floats(0, 100),
    rate_mbit_per_s=st.floats(0.01, 1000) | st.just(0.0),
    queue_ms=st.floats(0, 1000),
)


def carried(
    direction: Direction, gaps_s: list[float], then: LinkQuality | None = None
) -> list[tuple[float, int]]:
    """Send numbered frames after these gaps, the latter half over another quality; return when which came out."""
    now = 0.0
    arrivals = []

    def collect(until: float) -> None:
        while (due := direction.next_arrival()) is not None and due <= until:
            arrivals.extend((due, int.from_bytes(frame[:4])) for frame in direction.arrivals(due))

    for number, gap_s in enumerate(gaps_s):
        now += gap_s
        collect(now)
        if then is not None and number == len(gaps_s) // 2:
            direction.quality = then
        direction.send(number.to_bytes(4) + FRAME[4:], now)
    collect(float("inf"))
    return arrivals


@given(quality=QUALITIES, then=QUALITIES, gaps_s=GAPS_S, seed=st.integers(0, 99))
def test_every_frame_is_accounted_for_and_comes_in_order(
    quality: LinkQuality, then: LinkQuality, gaps_s: list[float], seed: int
) -> None:
    direction = Direction(quality, random.Random(seed))
    arrivals = carried(direction, gaps_s, then)
    assert arrivals == sorted(arrivals)
    counts = direction.counts
    assert counts.delivered == len(arrivals)
    assert counts.delivered + counts.lost + counts.overflowed == len(gaps_s)


@given(quality=QUALITIES, gaps_s=GAPS_S)
def test_no_frame_comes_sooner_than_its_delay_and_its_turn(quality: LinkQuality, gaps_s: list[float]) -> None:
    sent_at, now = [], 0.0
    for gap_s in gaps_s:
        now += gap_s
        sent_at.append(now)
    sending_s = len(FRAME) * 8 / (quality.rate_mbit_per_s * 1e6) if quality.rate_mbit_per_s else 0.0
    arrivals = carried(Direction(quality, random.Random(1)), gaps_s)
    for at, number in arrivals:
        assert at >= sent_at[number] + sending_s + max(0.0, quality.delay_ms - quality.jitter_ms) / 1e3 - 1e-9


def test_a_steady_link_carries_all_at_its_rate() -> None:
    direction = Direction(LinkQuality(delay_ms=7, rate_mbit_per_s=10, queue_ms=1000), random.Random(0))
    arrivals = carried(direction, [0.0] * 100)
    assert [at for at, _ in arrivals] == pytest.approx(
        [0.007 + 0.001 * (number + 1) for number in range(100)]
    )


def test_a_queue_has_a_bound_in_time_and_in_frames() -> None:
    slow = Direction(LinkQuality(rate_mbit_per_s=10, queue_ms=20), random.Random(0))
    assert len(carried(slow, [0.0] * 100)) in (20, 21)
    far = Direction(LinkQuality(delay_ms=1000), random.Random(0))
    assert len(carried(far, [0.0] * (FRAMES_MAX + 10))) == FRAMES_MAX


@pytest.mark.parametrize("values", [{"delay_ms": -1.0}, {"loss_percent": 101.0}, {"queue_ms": -0.1}])
def test_what_no_link_is_like_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(LabError, match="no link is like that"):
        LinkQuality(**values)
