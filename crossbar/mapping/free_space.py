"""Owns the free space of one array that several blocks share: the maximal free rectangles.

MaxRects by the best short side (J. Jylänki, A Thousand Ways to Pack the Bin, 2010, sections 5 and 5.2): all free
rectangles that are in no other one are kept; they overlap. Blocks are not turned, as inputs must be word lines.
"""

from __future__ import annotations

from typing import NamedTuple


class Rectangle(NamedTuple):
    """Lines of an array, from (row, column) on."""

    row: int
    column: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        return self.row + self.height

    @property
    def right(self) -> int:
        return self.column + self.width

    def overlaps(self, other: Rectangle) -> bool:
        return (
            self.row < other.bottom
            and other.row < self.bottom
            and self.column < other.right
            and other.column < self.right
        )

    def contains(self, other: Rectangle) -> bool:
        return (
            self.row <= other.row
            and self.column <= other.column
            and self.bottom >= other.bottom
            and self.right >= other.right
        )

    def without(self, taken: Rectangle) -> list[Rectangle]:
        """Return the up to four largest rectangles of this one that `taken`, which overlaps it, leaves free."""
        left = [
            Rectangle(self.row, self.column, taken.row - self.row, self.width),
            Rectangle(taken.bottom, self.column, self.bottom - taken.bottom, self.width),
            Rectangle(self.row, self.column, self.height, taken.column - self.column),
            Rectangle(self.row, taken.right, self.height, self.right - taken.right),
        ]
        return [rectangle for rectangle in left if rectangle.height > 0 and rectangle.width > 0]


class FreeSpace:
    """What is free in an array of `rows` x `columns` lines."""

    def __init__(self, rows: int, columns: int) -> None:
        self.rectangles = [Rectangle(0, 0, rows, columns)]
        self.cells = rows * columns

    def copy(self) -> FreeSpace:
        other = FreeSpace.__new__(FreeSpace)
        other.rectangles, other.cells = list(self.rectangles), self.cells
        return other

    def best(self, height: int, width: int) -> tuple[tuple[int, int], Rectangle] | None:
        """Return where a block fits best, and what it leaves on the shorter and the longer side; None if nowhere."""
        found: tuple[tuple[int, int], Rectangle] | None = None
        for free in self.rectangles:
            if free.height < height or free.width < width:
                continue
            left = sorted((free.height - height, free.width - width))
            if found is None or (left[0], left[1]) < found[0]:
                found = (left[0], left[1]), Rectangle(free.row, free.column, height, width)
        return found

    def take(self, taken: Rectangle) -> None:
        """Count `taken`, which is free, as no longer free."""
        self.cells -= taken.height * taken.width
        kept = [free for free in self.rectangles if not free.overlaps(taken)]
        pieces = [piece for free in self.rectangles if free.overlaps(taken) for piece in free.without(taken)]
        # Largest first, so that one pass finds every piece that is in another.
        for piece in sorted(pieces, key=lambda piece: (-piece.height * piece.width, piece)):
            if not any(other.contains(piece) for other in kept):
                kept.append(piece)
        self.rectangles = kept
