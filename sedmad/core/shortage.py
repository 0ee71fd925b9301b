"""Owns what is said of copies that cannot be made: how many, why, and the arithmetic of what nodes have left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sedmad.sizes import format_bytes

_SHOWN = 8  # nodes named in a text: more than a screenful helps nobody


@dataclass(frozen=True, slots=True)
class RoomLeft:
    """What a node, by its name, could still take."""

    name: str
    memory_bytes: int
    disk_bytes: int


@dataclass(slots=True)
class Shortage:
    """What partitions of one matrix lack. `copies`: how many of each there should be."""

    copies: int
    _unreadable: set[int] = field(default_factory=set)
    _silent: set[str] = field(default_factory=set)
    _too_few: dict[int, int] = field(default_factory=dict)
    _not_resident: dict[int, int] = field(default_factory=dict)

    def nobody_answers(self, index: int, holders: Iterable[str]) -> None:
        """No holder of a partition lives: nothing can be made before one returns."""
        self._unreadable.add(index)
        self._silent.update(holders)

    def too_few_copies(self, index: int, size_bytes: int) -> None:
        """No other node has room for another copy."""
        self._too_few[index] = size_bytes

    def not_resident(self, index: int, size_bytes: int) -> None:
        """No node has memory for it: its standby copies answer."""
        self._not_resident[index] = size_bytes

    def text(self, rooms: Iterable[RoomLeft], names: Mapping[str, str]) -> str:
        """Return all that was noted, in lines, with what nodes have left; empty if nothing was."""
        lines = []
        if self._unreadable:
            silent = sorted(names.get(peer_id, peer_id) for peer_id in self._silent)
            more = f" and {len(silent) - _SHOWN} more" if len(silent) > _SHOWN else ""
            lines.append(
                f"{_partitions(len(self._unreadable))} cannot be read until one of its holders returns: "
                f"{', '.join(silent[:_SHOWN])}{more}"
            )
        if self._too_few:
            lines.append(
                f"{_partitions(len(self._too_few))} with fewer than {self.copies} copies on nodes that stay: "
                f"each needs {format_bytes(max(self._too_few.values()))} of disk on a node that has none of it"
            )
        if self._not_resident:
            lines.append(
                f"{_partitions(len(self._not_resident))} without a resident copy: together they need "
                f"{format_bytes(sum(self._not_resident.values()))} of memory"
            )
        if self._too_few or self._not_resident:
            size_bytes = max((*self._too_few.values(), *self._not_resident.values()))
            lines += _arithmetic(list(rooms), size_bytes)
        return "\n".join(lines)


def _partitions(count: int) -> str:
    return f"{count} {'partition' if count == 1 else 'partitions'}"


def _arithmetic(rooms: list[RoomLeft], size_bytes: int) -> list[str]:
    """Return what the roomiest nodes have left, one line each."""
    if not rooms:
        return ["  no node takes copies"]
    rooms.sort(key=lambda room: (-room.disk_bytes, -room.memory_bytes, room.name))
    lines = [
        f"  {room.name}: memory {format_bytes(room.memory_bytes)} (room for {room.memory_bytes // size_bytes}), "
        f"disk {format_bytes(room.disk_bytes)} (room for {room.disk_bytes // size_bytes})"
        for room in rooms[:_SHOWN]
    ]
    if len(rooms) > _SHOWN:
        lines.append(f"  and {len(rooms) - _SHOWN} nodes with less disk")
    return lines
