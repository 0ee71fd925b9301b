"""How a node reads its own bytes again, to find those that rot: when a round begins, and how fast it goes.

A blob was right when it was written. Rounds begin every ROUND_S and a round has as long again, so each blob is read
at least once a week while the disk of a node can be read in half of it: 4.6 TiB at full rate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

ROUND_S = 3.5 * 86_400.0
# A tenth of what a slow disk of today reads: products that miss the page cache hardly notice.
RATE_BYTES_PER_S = 16 << 20
# While products run, unless the round would come to its end too late.
BUSY_RATE_BYTES_PER_S = 2 << 20
# SHA-256 without help of the processor takes 4 ms a MiB.
CPU_SHARE_MAX = 0.1


@dataclass(frozen=True, slots=True)
class Round:
    """How far a node is: it reads blobs in the order of their digests, and remembers the last.

    Attributes:
        begun_s: Unix seconds.
        after: digest of the last blob read, empty before the first.
        ended: every blob was read.
    """

    begun_s: float
    after: bytes = b""
    ended: bool = False

    def passed(self, digest: bytes) -> Round:
        """Return the round with one more blob read."""
        return replace(self, after=digest)

    def end(self) -> Round:
        """Return the round at its end."""
        return replace(self, ended=True)


def next_round(last: Round | None, now_s: float) -> Round | None:
    """Return the round to go on with or to begin at `now_s` (Unix seconds), None while it is too early for another."""
    if last is None or last.begun_s > now_s:
        # The clock was ahead when that was written, or is behind now: nothing is known of when it was.
        return Round(now_s)
    if not last.ended:
        return last
    return Round(now_s) if now_s - last.begun_s >= ROUND_S else None


def pause_s(
    size_bytes: int, cpu_s: float, *, busy: bool, left_bytes: int, left_s: float, rate_bytes_per_s: float
) -> float:
    """Return how long to wait after reading `size_bytes`, which took `cpu_s` of a processor.

    Args:
        busy: products run here.
        left_bytes: what the round has still to read.
        left_s: how long it may take for that.
        rate_bytes_per_s: the most at any time.
    """
    rate = rate_bytes_per_s
    if busy:
        needed = left_bytes / left_s if left_s > 0 else rate
        rate = min(rate, max(BUSY_RATE_BYTES_PER_S, needed))
    return max(size_bytes / rate, cpu_s / CPU_SHARE_MAX)
