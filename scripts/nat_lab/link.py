"""What a bad link does to frames, as a state machine: delay, jitter, loss, rate, and a queue that fills.

Reads no clock and no device: `cable.py` moves the frames.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from nat_lab.errors import LabError

# 250 Mbit/s, about what one process copies, for 250 ms. More frames are lost, whatever delay was asked for.
FRAMES_MAX = 5000


@dataclass(frozen=True, slots=True)
class LinkQuality:
    """How bad a link is, in each direction.

    Args:
        delay_ms: from end to end.
        jitter_ms: by which the delay of a frame differs at most, either way; frames stay in order.
        loss_percent: of frames, each on its own.
        rate_mbit_per_s: of whole Ethernet frames; 0 is no limit.
        queue_ms: how long a frame waits at most for those before it to be sent; it is lost where it would wait longer.

    Raises:
        LabError: a value is negative, or more than all is lost.
    """

    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss_percent: float = 0.0
    rate_mbit_per_s: float = 0.0
    queue_ms: float = 50.0

    def __post_init__(self) -> None:
        if min(asdict(self).values()) < 0 or self.loss_percent > 100:
            raise LabError(f"no link is like that: {self}")


@dataclass(frozen=True, slots=True)
class FrameCounts:
    """Frames that came out of a link, were lost by chance, and found no room."""

    delivered: int = 0
    lost: int = 0
    overflowed: int = 0


class Direction:
    """One direction of a link.

    Args:
        quality: what it is like at first; it may be set to another at any time.
        rng: decides on jitter and loss.
    """

    def __init__(self, quality: LinkQuality, rng: random.Random) -> None:
        self.quality = quality
        self._rng = rng
        self._delivered = self._lost = self._overflowed = 0
        self._frames: deque[tuple[float, bytes]] = deque()
        self._sender_free_at = 0.0
        self._last_due = 0.0

    @property
    def counts(self) -> FrameCounts:
        """What it did with frames so far."""
        return FrameCounts(self._delivered, self._lost, self._overflowed)

    def send(self, frame: bytes, now: float) -> None:
        """Take a frame that entered the link at `now` (seconds)."""
        quality = self.quality
        if self._rng.random() * 100 < quality.loss_percent:
            self._lost += 1
            return
        begins = max(now, self._sender_free_at)
        if begins - now > quality.queue_ms / 1e3 or len(self._frames) >= FRAMES_MAX:
            self._overflowed += 1
            return
        bits_per_s = quality.rate_mbit_per_s * 1e6
        self._sender_free_at = begins + (len(frame) * 8 / bits_per_s if bits_per_s else 0.0)
        jitter_ms = self._rng.uniform(-quality.jitter_ms, quality.jitter_ms)
        due = self._sender_free_at + max(0.0, quality.delay_ms + jitter_ms) / 1e3
        self._last_due = max(due, self._last_due)
        self._frames.append((self._last_due, frame))

    def arrivals(self, now: float) -> Iterator[bytes]:
        """Yield the frames that have come out by `now`."""
        while self._frames and self._frames[0][0] <= now:
            self._delivered += 1
            yield self._frames.popleft()[1]

    def next_arrival(self) -> float | None:
        """Return when the next frame comes out, or None while there is none."""
        return self._frames[0][0] if self._frames else None
