"""Owns which cells of a node's crossbar arrays are taken: by programmed partitions, and set aside for puts."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from sedmad.errors import InsufficientCapacity, LocalError


@dataclass(frozen=True, slots=True)
class CellUsage:
    """The cells of all arrays."""

    pledged: int
    used: int = 0
    reserved: int = 0

    @property
    def available(self) -> int:
        """What may still be set aside; 0 where an older node's arrays held more than there are now."""
        return max(0, self.pledged - self.used - self.reserved)

    def __str__(self) -> str:
        return f"pledged {self.pledged:,}, used {self.used:,}, reserved {self.reserved:,}"


class CellLedger:
    """Counts cells by keys of the caller's choice: one of a programmed partition, one of a put.

    The copies that a node holds bound the first, its puts under way the second.
    """

    def __init__(self, pledged: int, node: str = "") -> None:
        self._pledged = pledged
        self._node = node
        self._used: dict[Hashable, int] = {}
        self._reserved: dict[Hashable, int] = {}

    @property
    def usage(self) -> CellUsage:
        return CellUsage(self._pledged, sum(self._used.values()), sum(self._reserved.values()))

    def available_to(self, put: Hashable) -> int:
        """Return what a partition of a put may take: what is free, and what was set aside for the put."""
        return self.usage.available + self._reserved.get(put, 0)

    def reserve(self, put: Hashable, cells: int) -> None:
        """Set cells aside for a put.

        Raises:
            InsufficientCapacity: there are not as many.
            LocalError: the put has some already.
        """
        if put in self._reserved:
            raise LocalError("cells are set aside once for a put", why=f"key {put!r}")
        usage = self.usage
        if cells > usage.available:
            raise InsufficientCapacity(
                f"there are too few crossbar cells on {self._node or 'this node'}",
                why=f"needs {cells:,}, {usage}",
                hint="Give the node more --arrays, add a node, or allow a larger --target-error.",
                node=self._node,
            )
        self._reserved[put] = cells

    def release_reserved(self, put: Hashable) -> None:
        """Give back what is left of what was set aside for a put; nothing where none was."""
        self._reserved.pop(put, None)

    def take(self, key: Hashable, cells: int, *, put: Hashable = None) -> None:
        """Count what a programmed partition takes, in place of what it took before; of its put's share first."""
        self._used[key] = cells
        if put in self._reserved:
            self._reserved[put] -= min(cells, self._reserved[put])

    def free(self, key: Hashable) -> None:
        """Count a partition no more; nothing where it was not counted."""
        self._used.pop(key, None)
