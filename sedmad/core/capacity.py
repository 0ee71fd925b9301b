"""Owns what one node has pledged and what of it is taken: memory for resident copies, disk for all copies.

Room is reserved before bytes arrive. When they are safe, or when they lie there as the node starts, the
reservation is released and the copies are adopted: what is there counts, even where a pledge was lowered
meanwhile. Nothing is reserved beyond a pledge, so a node cannot promise what it does not have.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from sedmad.errors import InsufficientCapacity, LocalError
from sedmad.sizes import format_bytes


@dataclass(frozen=True, slots=True)
class Usage:
    """One pledge, in bytes."""

    pledged_bytes: int
    used_bytes: int = 0
    reserved_bytes: int = 0

    @property
    def available_bytes(self) -> int:
        """What may still be reserved; 0 if the pledge was lowered below what is already held."""
        return max(0, self.pledged_bytes - self.used_bytes - self.reserved_bytes)

    def __str__(self) -> str:
        return (
            f"pledged {format_bytes(self.pledged_bytes)}, used {format_bytes(self.used_bytes)}, "
            f"reserved {format_bytes(self.reserved_bytes)}"
        )


@dataclass(frozen=True, slots=True)
class _Entry:
    memory_bytes: int
    disk_bytes: int
    used: bool


class CapacityLedger:
    """Reservations and use of one node's two pledges, by a key of the caller's choice.

    A key stands for one blob on disk, or for one resident copy in memory; every entry takes at least one
    byte, so that the pledges bound the number of entries.
    """

    def __init__(self, *, memory_pledged_bytes: int, disk_pledged_bytes: int, node: str = "") -> None:
        self._memory_pledged_bytes = memory_pledged_bytes
        self._disk_pledged_bytes = disk_pledged_bytes
        self._node = node  # named in errors
        self._entries: dict[Hashable, _Entry] = {}
        self._used = [0, 0]  # memory, disk
        self._reserved = [0, 0]

    @property
    def memory(self) -> Usage:
        return Usage(self._memory_pledged_bytes, self._used[0], self._reserved[0])

    @property
    def disk(self) -> Usage:
        return Usage(self._disk_pledged_bytes, self._used[1], self._reserved[1])

    def pledge_memory(self, pledged_bytes: int) -> None:
        """Change the pledge of memory; what is held above a lower one stays counted until it is released."""
        self._memory_pledged_bytes = pledged_bytes

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def reserve(self, key: Hashable, *, memory_bytes: int = 0, disk_bytes: int = 0) -> None:
        """Set room aside until it is released, on both pledges or on none.

        Raises:
            InsufficientCapacity: a pledge has no room for it.
            LocalError: the key is taken, or the amounts are not positive.
        """
        self._require_new(key, memory_bytes, disk_bytes)
        for name, needed, usage in (("memory", memory_bytes, self.memory), ("disk", disk_bytes, self.disk)):
            if needed > usage.available_bytes:
                raise InsufficientCapacity(
                    f"there is too little {name} on {self._node or 'this node'}",
                    why=f"needs {format_bytes(needed)}, {usage}",
                    node=self._node,
                )
        self._enter(key, _Entry(memory_bytes, disk_bytes, used=False))

    def adopt(self, key: Hashable, *, memory_bytes: int = 0, disk_bytes: int = 0) -> None:
        """Count what is there, even above a pledge that was lowered since.

        Raises:
            LocalError: the key is taken, or the amounts are not positive.
        """
        self._require_new(key, memory_bytes, disk_bytes)
        self._enter(key, _Entry(memory_bytes, disk_bytes, used=True))

    def release(self, key: Hashable) -> None:
        """Give back what `key` reserved or used. Raises LocalError if it holds nothing."""
        entry = self._entries.pop(key, None)
        if entry is None:
            raise LocalError("only what is held can be released", why=f"key {key!r}")
        self._count(entry, -1)

    def _require_new(self, key: Hashable, memory_bytes: int, disk_bytes: int) -> None:
        if key in self._entries or min(memory_bytes, disk_bytes) < 0 or memory_bytes + disk_bytes == 0:
            raise LocalError("room is counted under a new key, and in bytes", why=f"key {key!r}")

    def _enter(self, key: Hashable, entry: _Entry) -> None:
        self._entries[key] = entry
        self._count(entry, +1)

    def _count(self, entry: _Entry, sign: int) -> None:
        account = self._used if entry.used else self._reserved
        account[0] += sign * entry.memory_bytes
        account[1] += sign * entry.disk_bytes
