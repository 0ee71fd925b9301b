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
    FRAME_BYTES_MIN,
    SLOW_TARGET_DELAY_S,
    SLOWEST_BYTES_PER_S,
    SMALL_WINDOW_BYTES,
    TARGET_DELAY_S,
    WINDOW_BYTES_INITIAL,
    WINDOW_BYTES_MAX,
    WINDOW_BYTES_MIN,
    BulkWindow,
)

CHUNK_BYTES = 1 << 20


@dataclass
class Bottleneck:
    """A link of so many bytes per second behind an endless queue; frames are acknowledged one by one."""

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
            left_bytes = chunk_bytes
            while left_bytes:
                while not self.window.allows(self.under_way_bytes):
                    self._acknowledge()
                frame_bytes = min(left_bytes, self.window.payload_bytes_max)
                self._send(frame_bytes)
                left_bytes -= frame_bytes
        while self._queue:
            self._acknowledge()
        return chunks * chunk_bytes / (self.now - began)

    def _send(self, frame_bytes: int) -> None:
        wait_s = max(0.0, self.idle_from - self.now)
        self.waits_s.append(wait_s)
        self.idle_from = self.now + wait_s + frame_bytes / self.rate
        self._queue.append((self.now, self.idle_from + self.base_s, frame_bytes))
        self.under_way_bytes += frame_bytes

    def _acknowledge(self) -> None:
        sent_at, self.now, frame_bytes = self._queue.popleft()
        self.window.acknowledged(
            frame_bytes, self.now - sent_at, self.now, under_way_bytes=self.under_way_bytes
        )
        self.under_way_bytes -= frame_bytes


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


@pytest.mark.parametrize("rate", [SLOWEST_BYTES_PER_S, 64e3, 250e3, 1e6])
@pytest.mark.parametrize("base_s", [0.001, 0.05, 0.3])
def test_on_a_slow_link_probes_wait_for_a_few_short_frames(rate: float, base_s: float) -> None:
    link = Bottleneck(rate, base_s)
    link.run(4)
    assert max(link.waits_s) <= WINDOW_BYTES_INITIAL / rate + SLOW_TARGET_DELAY_S
    link.waits_s.clear()
    assert link.run(8) >= 0.5 * min(rate, SMALL_WINDOW_BYTES / (base_s + SLOW_TARGET_DELAY_S))
    assert max(link.waits_s) <= SLOW_TARGET_DELAY_S + 4 * link.window.payload_bytes_max / rate


def test_frames_are_chunks_where_the_link_is_fast_and_short_where_it_is_slow() -> None:
    link = Bottleneck(rate=300e6, base_s=0.001)
    assert link.window.payload_bytes_max == FRAME_BYTES_MIN
    link.run(100)
    assert link.window.payload_bytes_max == CHUNK_BYTES
    link.rate = 64e3
    link.run(4)
    assert link.window.payload_bytes_max == FRAME_BYTES_MIN
    link.rate = 300e6
    link.run(100)
    assert link.window.payload_bytes_max == CHUNK_BYTES


def test_a_machine_that_answers_late_keeps_a_useful_window() -> None:
    """Delays that do not grow with the window are no queue of ours, however far above the least they are."""
    window, now = BulkWindow(), 0.0
    for index in range(500):
        delay_s = 0.001 if index == 0 else 0.15
        now += delay_s
        window.acknowledged(window.payload_bytes_max, delay_s, now, under_way_bytes=window.window_bytes)
    assert window.window_bytes >= SMALL_WINDOW_BYTES


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
        assert FRAME_BYTES_MIN <= window.payload_bytes_max <= CHUNK_BYTES
        assert window.allows(0)
        assert not window.allows(WINDOW_BYTES_MAX)
