"""Owns arrays that blocks of several matrices share.

Blocks are put whole, largest first, where they fit best (`crossbar.mapping.free_space`). Then arrays are emptied, the
least used one first, as long as its blocks find room in the others, where need be cut in pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from crossbar.mapping.free_space import FreeSpace, Rectangle
from crossbar.mapping.shapes import Block

OPEN_ARRAYS_MAX = 256
"""Shared arrays that are searched for room, the emptiest ones: time grows with the product of arrays and blocks."""

CUT_LINES_MIN = 8
"""Inputs and outputs of the pieces that a block may be cut into: each costs a read, so it should carry something."""


@dataclass(slots=True)
class SharedArray:
    """One array: what is free, and which blocks are where."""

    free: FreeSpace
    placed: list[tuple[Rectangle, Block]] = field(default_factory=list)

    def put(self, place: Rectangle, block: Block) -> None:
        self.free.take(place)
        self.placed.append((place, block))

    def copy(self) -> SharedArray:
        return SharedArray(self.free.copy(), list(self.placed))


class SharedArrays:
    """All shared arrays, each of `rows` x `columns` lines; a weight takes `cells_per_weight` columns."""

    def __init__(self, rows: int, columns: int, cells_per_weight: int) -> None:
        self.arrays: list[SharedArray] = []
        self._rows, self._columns, self._cells = rows, columns, cells_per_weight

    def put_all(self, blocks: Sequence[Block]) -> None:
        """Put whole blocks, those with the longest sides first, onto arrays that are open, or else onto a new one."""
        searched: list[SharedArray] = []
        for block in sorted(blocks, key=self._longest_first):
            if self._put_whole(block, searched):
                continue
            opened = SharedArray(FreeSpace(self._rows, self._columns))
            self._put_whole(block, [opened])
            self.arrays.append(opened)
            searched.append(opened)
            if len(searched) > OPEN_ARRAYS_MAX:
                searched.remove(min(searched, key=lambda shared: shared.free.cells))

    def empty_arrays(self) -> None:
        """Move the blocks of the least used array into the others until that fails."""
        cells = self._rows * self._columns
        while len(self.arrays) > 1:
            fullest_first = sorted(self.arrays, key=lambda shared: shared.free.cells)
            emptied = fullest_first.pop()
            searched = fullest_first[-OPEN_ARRAYS_MAX:]
            if sum(shared.free.cells for shared in searched) < cells - emptied.free.cells:
                return
            filled = [shared.copy() for shared in searched]
            if not self._put_cut([block for _, block in emptied.placed], filled):
                return
            self.arrays = fullest_first[:-OPEN_ARRAYS_MAX] + filled

    def _put_whole(self, block: Block, arrays: Sequence[SharedArray]) -> bool:
        best: tuple[tuple[int, int], Rectangle, SharedArray] | None = None
        for shared in arrays:
            found = shared.free.best(block.inputs, block.outputs * self._cells)
            if found and (best is None or found[0] < best[0]):
                best = (*found, shared)
        if best:
            best[2].put(best[1], block)
        return best is not None

    def _put_cut(self, blocks: Sequence[Block], arrays: Sequence[SharedArray]) -> bool:
        """Put blocks onto these arrays, cut into as large pieces as there is room for. Return whether all fit."""
        waiting = sorted(blocks, key=self._longest_first, reverse=True)
        while waiting:
            block = waiting.pop()
            if self._put_whole(block, arrays):
                continue
            found = self._largest_piece(block, arrays)
            if found is None:
                return False
            shared, place = found
            piece, *rest = block.cut(place.height, place.width // self._cells)
            shared.put(place, piece)
            waiting = sorted([*waiting, *rest], key=self._longest_first, reverse=True)
        return True

    def _largest_piece(
        self, block: Block, arrays: Sequence[SharedArray]
    ) -> tuple[SharedArray, Rectangle] | None:
        best: tuple[SharedArray, Rectangle] | None = None
        largest = 0
        for shared in arrays:
            for free in shared.free.rectangles:
                inputs = _piece(block.inputs, free.height)
                outputs = _piece(block.outputs, free.width // self._cells)
                if inputs * outputs > largest:
                    largest = inputs * outputs
                    best = shared, Rectangle(free.row, free.column, inputs, outputs * self._cells)
        return best

    def _longest_first(self, block: Block) -> tuple[int, ...]:
        sides = (block.inputs, block.outputs * self._cells)
        return (-max(sides), -min(sides), block.matrix, block.group, block.first_input, block.first_output)


def _piece(lines: int, free: int) -> int:
    """Return how many of a block's lines go where `free` are; 0 if the piece or the rest would be too small."""
    if lines <= free:
        return lines
    piece = min(free, lines - CUT_LINES_MIN)
    return piece if piece >= CUT_LINES_MIN else 0
