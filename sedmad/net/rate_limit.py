"""A token bucket, for work and log lines that strangers could cause."""

from __future__ import annotations

# Any bucket is full after this long, and sums with an endless past stay finite.
ELAPSED_S_MAX = 1e9


class RateLimit:
    """At most `burst` at once, and `rate_per_s` in the long run; times are seconds of a monotonic clock."""

    def __init__(self, rate_per_s: float, burst: int) -> None:
        self.rate_per_s = rate_per_s
        self.burst = burst
        self._tokens = float(burst)
        self._filled_at = float("-inf")

    def allow(self, now: float) -> bool:
        """Return whether one more may happen now, and count it."""
        elapsed_s = min(max(0.0, now - self._filled_at), ELAPSED_S_MAX)
        self._tokens = min(float(self.burst), self._tokens + elapsed_s * self.rate_per_s)
        self._filled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
