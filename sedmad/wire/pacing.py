"""How much bulk may be under way, and in frames of what size, so that it never delays probes and products.

A window over the bytes of bulk that were sent and not yet acknowledged, steered by delay as in LEDBAT (RFC
6817): the least acknowledgement time seen lately is the path's own; what exceeds it is a queue that we made.
Below the target the window grows, above it shrinks, so that what is sent behind bulk waits about
TARGET_DELAY_S at the most.

A busy machine answers late, too, and there a smaller window would help nobody. So a window that is small already
shrinks further only where the queue is long: the path carries less than SMALL_WINDOW_BYTES in SLOW_TARGET_DELAY_S,
1 MiB/s, and probes behind bulk wait about that long. Down to SLOWEST_BYTES_PER_S everything works, slowly.
"""

from __future__ import annotations

from collections import deque

from sedmad.wire.frame import PAYLOAD_BYTES_MAX

# A product on a LAN takes a few milliseconds and a probe may take 500: 25 ms of queue hurts neither.
TARGET_DELAY_S = 0.025
SMALL_WINDOW_BYTES = 256 << 10
SLOW_TARGET_DELAY_S = 0.25
# So late, the path has become another one: the window becomes at once what it carries in SLOW_TARGET_DELAY_S.
LATE_S = 1.0
# A frame at a time: half a second where the path is as slow as it may be.
WINDOW_BYTES_MIN = 16 << 10
# Nothing is known of the path yet: at 64 kB/s these take a second, at 80 MB/s the window doubles each millisecond.
WINDOW_BYTES_INITIAL = 64 << 10
# 80 MB/s over 100 ms.
WINDOW_BYTES_MAX = 8 << 20
# How far the window may run ahead of what is under way: bulk that is short of work must not earn a burst.
AHEAD_BYTES_MAX = 1 << 20
# Frames in a window: while one is acknowledged others are under way, and a broken stream costs part of it.
FRAMES_PER_WINDOW = 4
# A header, its system calls and its acknowledgement cost less than a tenth of this.
FRAME_BYTES_MIN = 16 << 10
# Whoever waits for bytes gives them this much time; below it streams are given up as stalled.
SLOWEST_BYTES_PER_S = 32 << 10
# The base delay is the least of the last ten minutes, kept by the minute, as RFC 6817 advises.
BASE_HISTORY = 10
BASE_INTERVAL_S = 60.0


class BulkWindow:
    """The window of one session on one path; times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self.window_bytes = WINDOW_BYTES_INITIAL
        self._base_delays: deque[float] = deque(maxlen=BASE_HISTORY)
        self._base_since = float("-inf")

    @property
    def payload_bytes_max(self) -> int:
        """How long a frame of bulk may be now: a power of two, at most a chunk."""
        share = max(FRAME_BYTES_MIN, self.window_bytes // FRAMES_PER_WINDOW)
        return min(PAYLOAD_BYTES_MAX, 1 << (share.bit_length() - 1))

    def allows(self, unacknowledged_bytes: int) -> bool:
        """Whether one more frame of bulk may leave."""
        return unacknowledged_bytes < self.window_bytes

    def acknowledged(
        self, acknowledged_bytes: int, delay_s: float, now: float, *, under_way_bytes: int
    ) -> None:
        """Take note that a frame was acknowledged `delay_s` after it was sent.

        Args:
            acknowledged_bytes: of the frame.
            delay_s: from sending to acknowledgement.
            now: of the acknowledgement.
            under_way_bytes: bulk that was unacknowledged until now, this frame included.
        """
        if now - self._base_since >= BASE_INTERVAL_S:
            self._base_since = now
            self._base_delays.append(delay_s)
        else:
            self._base_delays[-1] = min(self._base_delays[-1], delay_s)
        queueing_s = delay_s - min(self._base_delays)
        is_small = self.window_bytes <= SMALL_WINDOW_BYTES
        target_s = SLOW_TARGET_DELAY_S if is_small else TARGET_DELAY_S
        off_target = max(-1.0, (target_s - queueing_s) / target_s)
        # One window's worth of acknowledgements doubles the window at the most, or halves it.
        if off_target > 0:
            grown = min(
                self.window_bytes + off_target * acknowledged_bytes, under_way_bytes + AHEAD_BYTES_MAX
            )
            self.window_bytes = min(WINDOW_BYTES_MAX, max(self.window_bytes, int(grown)))
        elif queueing_s > LATE_S:
            carried = under_way_bytes * SLOW_TARGET_DELAY_S / delay_s
            self.window_bytes = max(WINDOW_BYTES_MIN, min(self.window_bytes, int(carried)))
        else:
            shrunk = self.window_bytes + off_target * acknowledged_bytes * 0.5
            self.window_bytes = max(WINDOW_BYTES_MIN if is_small else SMALL_WINDOW_BYTES, int(shrunk))
