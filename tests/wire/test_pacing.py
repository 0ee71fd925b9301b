from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sedmad.wire.pacing import (
    AHEAD_BYTES_MAX,
    BASE_HISTORY,
    BASE_INTERVAL_S,
    TARGET_DELAY_S,
    WINDOW_BYTES_INITIAL,
    WINDOW_BYTES_MAX,
    WINDOW_BYTES_MIN,
    BulkWindow,
)

CHUNK_BYTES = 1 << 20


@dataclass
class Bottleneck:
    """A link of so many bytes per second behind an endless queue; chunks are acknowledged one by one."""

    rate: float
    base_s: float
    window: BulkWindow = field(default_factory=BulkWindow)
    now: float = 0.0
    under_way_bytes: int = 0
    idle_from: float = 0.0
    waits_s: list[float] = field(default_factory=list)
    _queue: deque[tuple[float, float, int]] = field(default_factory=deque)

    def run(self, chunks: int, chunk_bytes: int = CHUNK_BYTES) -> float:
        """Send as the window allows; return the throughput in bytes per second."""
        began = self.now
        for _ in range(chunks):
            while not self.window.allows(self.under_way_bytes):
                self._acknowledge(chunk_bytes)
            wait_s = max(0.0, self.idle_from - self.now)
            self.waits_s.append(wait_s)
            self.idle_from = self.now + wait_s + chunk_bytes / self.rate
            self._queue.append((self.now, self.idle_from + self.base_s, chunk_bytes))
            self.under_way_bytes += chunk_bytes
        while self._queue:
            self._acknowledge(chunk_bytes)
        return chunks * chunk_bytes / (self.now - began)

    def _acknowledge(self, chunk_bytes: int) -> None:
        sent_at, self.now, _ = self._queue.popleft()
        self.window.acknowledged(
            chunk_bytes, self.now - sent_at, self.now, under_way_bytes=self.under_way_bytes
        )
        self.under_way_bytes -= chunk_bytes


@pytest.mark.parametrize("rate", [20e6, 80e6, 300e6])
@pytest.mark.parametrize("base_s", [0.0005, 0.005, 0.02])
def test_the_link_is_busy_and_its_queue_is_short(rate: float, base_s: float) -> None:
    link = Bottleneck(rate, base_s)
    link.run(50)
    link.waits_s.clear()
    throughput = link.run(500)
    # One chunk at a time at the least, as many as fit into base delay and target at the best.
    chunk_s = CHUNK_BYTES / rate
    assert throughput >= 0.9 * min(
        rate, CHUNK_BYTES / (chunk_s + base_s), WINDOW_BYTES_MAX / (base_s + chunk_s)
    )
    waits_s = sorted(link.waits_s)
    assert waits_s[len(waits_s) // 2] <= TARGET_DELAY_S + chunk_s
    assert waits_s[-1] <= 2 * (TARGET_DELAY_S + chunk_s)


def test_a_long_fat_path_is_filled() -> None:
    link = Bottleneck(rate=60e6, base_s=0.08)
    link.run(200)
    assert link.run(300) >= 0.85 * 60e6


def test_a_slower_link_is_noticed_and_a_faster_one_used() -> None:
    link = Bottleneck(rate=100e6, base_s=0.002)
    link.run(200)
    link.rate = 25e6
    link.run(30)
    link.waits_s.clear()
    assert link.run(100) >= 0.85 * 25e6
    assert max(link.waits_s) <= 2 * (TARGET_DELAY_S + CHUNK_BYTES / 25e6)
    link.rate = 200e6
    link.run(100)
    assert link.run(300) >= 0.9 * 200e6


def test_a_longer_way_is_accepted_when_the_shorter_one_is_history() -> None:
    link = Bottleneck(rate=80e6, base_s=0.001)
    link.run(100)
    link.base_s = 0.1
    for _ in range(BASE_HISTORY + 1):
        assert link.window.window_bytes >= WINDOW_BYTES_MIN
        link.run(20)
        link.now += BASE_INTERVAL_S
    link.run(200)
    assert link.run(200) >= 0.8 * min(80e6, WINDOW_BYTES_MAX / 0.1)


def test_bulk_that_is_short_of_work_earns_no_burst() -> None:
    link = Bottleneck(rate=80e6, base_s=0.001)
    for _ in range(1000):
        link.run(1, chunk_bytes=64 << 10)
    assert link.window.window_bytes <= AHEAD_BYTES_MAX + (64 << 10)
    assert link.window.window_bytes >= WINDOW_BYTES_INITIAL


@given(
    st.lists(
        st.tuples(
            st.integers(1, 2 << 20), st.floats(0, 100), st.floats(0, 1000), st.integers(0, WINDOW_BYTES_MAX)
        )
    )
)
def test_the_window_stays_within_its_bounds(samples: list[tuple[int, float, float, int]]) -> None:
    window = BulkWindow()
    now = 0.0
    for size_bytes, delay_s, elapsed_s, under_way_bytes in samples:
        now += elapsed_s
        window.acknowledged(size_bytes, delay_s, now, under_way_bytes=under_way_bytes + size_bytes)
        assert WINDOW_BYTES_MIN <= window.window_bytes <= WINDOW_BYTES_MAX
        assert window.allows(0)
        assert not window.allows(WINDOW_BYTES_MAX)
