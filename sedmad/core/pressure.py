"""Owns how much of its memory pledge a node can keep while other programs, or its container, press on it.

A pledge is a promise made at the start; what happens on the machine afterwards is not the node's to decide. So the
pledge is lowered when little memory is left, before the kernel has to choose what to kill, and raised again when
there is plenty: the two marks lie apart, or the node would swing between them.
"""

from __future__ import annotations

from dataclasses import dataclass

from sedmad.sizes import MIB

RESERVE_SHARE = 0.05
RESERVE_MINIMUM_BYTES = 64 * MIB
RESERVE_MAXIMUM_BYTES = 1024 * MIB
RECOVERED = 2.0
"""Times the reserve that have to be left before a lowered pledge is raised."""


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """What bounds this process, the machine or its container, whichever is nearer.

    Attributes:
        limit_bytes: all there is.
        available_bytes: what could still be taken without anything being killed.
    """

    limit_bytes: int
    available_bytes: int

    @property
    def reserve_bytes(self) -> int:
        """What the node leaves to others, and to itself for what is not pledged."""
        share = int(self.limit_bytes * RESERVE_SHARE)
        return min(max(share, RESERVE_MINIMUM_BYTES), RESERVE_MAXIMUM_BYTES, self.limit_bytes // 4)


def bearable_pledge_bytes(
    reading: MemoryReading, *, pledged_bytes: int, present_bytes: int, resident_bytes: int
) -> int:
    """Return the pledge that this node can keep now.

    Args:
        pledged_bytes: what its owner set; never more than that.
        present_bytes: what this returned the last time.
        resident_bytes: what resident copies take now, which is not available.
    """
    reserve_bytes = reading.reserve_bytes
    bearable_bytes = max(0, resident_bytes + reading.available_bytes - reserve_bytes)
    if bearable_bytes >= present_bytes and reading.available_bytes < RECOVERED * reserve_bytes:
        return min(present_bytes, pledged_bytes)
    return min(bearable_bytes, pledged_bytes)
