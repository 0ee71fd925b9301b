"""The byte budget: all that a node sends for membership fits into it, whatever happens around it."""

from __future__ import annotations

# What gossip leaves for heartbeats: 32 neighbours' probes, answers and indirect probes of one second take
# about 6 KiB.
HEARTBEAT_RESERVE_BYTES = 8 << 10


class ByteBudget:
    """A token bucket of one second's worth: in any t seconds at most (t + 1) * bytes_per_second leave."""

    def __init__(self, bytes_per_second: int, now: float) -> None:
        self._rate = bytes_per_second
        self._reserve = min(HEARTBEAT_RESERVE_BYTES, bytes_per_second // 4)
        self._tokens = float(bytes_per_second)
        self._filled_at = now

    def spend(self, size_bytes: int, now: float) -> bool:
        """Take `size_bytes` out; False, and nothing taken, when they are not there."""
        self._fill(now)
        if size_bytes > self._tokens:
            return False
        self._tokens -= size_bytes
        return True

    def gossip_bytes(self, now: float) -> int:
        """What may be spent on anything but heartbeats."""
        self._fill(now)
        return max(0, int(self._tokens) - self._reserve)

    def _fill(self, now: float) -> None:
        elapsed_s = max(0.0, now - self._filled_at)
        self._tokens = min(float(self._rate), self._tokens + elapsed_s * self._rate)
        self._filled_at = max(self._filled_at, now)
