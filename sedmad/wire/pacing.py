"""How much bulk may be under way, so that it never delays probes and products.

A window over the bytes of bulk that were sent and not yet acknowledged, steered by delay as in LEDBAT (RFC
6817): the least acknowledgement time seen lately is the path's own; what exceeds it is a queue that we made.
Below the target the window grows, above it shrinks, so that what is sent behind bulk waits about
TARGET_DELAY_S at the most.
"""

from __future__ import annotations

from collections import deque

# A product on a LAN takes a few milliseconds and a probe may take 500: 25 ms of queue hurts neither.
TARGET_DELAY_S = 0.025
# Less than a chunk: on a slow path one chunk at a time is under way.
WINDOW_BYTES_MIN = 256 << 10
WINDOW_BYTES_INITIAL = 1 << 20
# 80 MB/s over 100 ms.
WINDOW_BYTES_MAX = 8 << 20
# How far the window may run ahead of what is under way: bulk that is short of work must not earn a burst.
AHEAD_BYTES_MAX = 1 << 20
# The base delay is the least of the last ten minutes, kept by the minute, as RFC 6817 advises.
BASE_HISTORY = 10
BASE_INTERVAL_S = 60.0


class BulkWindow:
    """The window of one session on one path; times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self.window_bytes = WINDOW_BYTES_INITIAL
        self._base_delays: deque[float] = deque(maxlen=BASE_HISTORY)
        self._base_since = float("-inf")

    def allows(self, unacknowledged_bytes: int) -> bool:
        """Whether one more chunk of bulk may leave."""
        return unacknowledged_bytes < self.window_bytes

    def acknowledged(
        self, acknowledged_bytes: int, delay_s: float, now: float, *, under_way_bytes: int
    ) -> None:
        """Take note that a chunk was acknowledged `delay_s` after it was sent.

        Args:
            acknowledged_bytes: of the chunk.
            delay_s: from sending to acknowledgement.
            now: of the acknowledgement.
            under_way_bytes: bulk that was unacknowledged until now, this chunk included.
        """
        if now - self._base_since >= BASE_INTERVAL_S:
            self._base_since = now
            self._base_delays.append(delay_s)
        else:
            self._base_delays[-1] = min(self._base_delays[-1], delay_s)
        queueing_s = delay_s - min(self._base_delays)
        off_target = max(-1.0, (TARGET_DELAY_S - queueing_s) / TARGET_DELAY_S)
        # One window's worth of acknowledgements doubles the window at the most, or halves it.
        if off_target > 0:
            grown = min(
                self.window_bytes + off_target * acknowledged_bytes, under_way_bytes + AHEAD_BYTES_MAX
            )
            self.window_bytes = min(WINDOW_BYTES_MAX, max(self.window_bytes, int(grown)))
        else:
            shrunk = self.window_bytes + off_target * acknowledged_bytes * 0.5
            self.window_bytes = max(WINDOW_BYTES_MIN, int(shrunk))
