"""Choices out of bytes: whoever chooses the bytes, hypothesis or a fuzzer, chooses everything that is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


class Chance:
    """The same bytes give the same choices; once they are used up, every choice is the first, and all ends."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_used_up(self) -> bool:
        return self._at >= len(self._data)

    def raw(self, length: int) -> bytes:
        """Return the next bytes, at most so many."""
        piece = self._data[self._at : self._at + length]
        self._at += length
        return piece

    def below(self, count: int) -> int:
        """Return a number from 0 to count - 1."""
        return int.from_bytes(self.raw(((count - 1).bit_length() + 7) // 8), "little") % count

    def one_in(self, count: int) -> bool:
        return self.below(count) == count - 1

    def pick(self, items: Sequence[Item]) -> Item:
        return items[self.below(len(items))]
