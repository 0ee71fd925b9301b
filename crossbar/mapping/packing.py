"""Owns packing: the blocks of many matrices on as few arrays as possible.

Every matrix is cut into full tiles, which have an array each, and remainders at its right and bottom edges, which
share arrays (`crossbar.mapping.shared_arrays`). Blocks that share an array are read
one after another, and every further row of blocks is one more partial sum to add: `Packing` counts both.

The cells of a weight lie side by side on one word line. A weight of a depthwise layer shares its inputs with no
other, so it would be alone on its word lines: such layers are computed digitally.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from crossbar.mapping.shapes import Block, MatrixShape
from crossbar.mapping.shared_arrays import SharedArrays
from crossbar.mapping.tiling import TileGrid


@dataclass(frozen=True, slots=True)
class Placement:
    """A block with its first weight at word line `row` and bit line `column` of array number `array`."""

    block: Block
    array: int
    row: int
    column: int


@dataclass(frozen=True, slots=True)
class Packing:
    """Where all blocks are.

    Attributes:
        rows, columns: lines of an array.
        cells_per_weight: cells beside each other that hold one weight.
        arrays: how many are allocated.
        placements: in the order of arrays.
        cuts: pieces that were made of blocks beyond the tiling, to fill arrays.
        weights, digital_weights: of all matrices; of those that are on no array.
    """

    rows: int
    columns: int
    cells_per_weight: int
    arrays: int
    placements: tuple[Placement, ...]
    cuts: int
    weights: int
    digital_weights: int

    @property
    def cells_used(self) -> int:
        """Cells that hold a weight of a matrix."""
        return (self.weights - self.digital_weights) * self.cells_per_weight

    @property
    def cells_allocated(self) -> int:
        """All cells of all arrays."""
        return self.arrays * self.rows * self.columns

    @property
    def utilisation(self) -> float:
        """Cells used / cells allocated; 1 if there are none."""
        return self.cells_used / self.cells_allocated if self.arrays else 1.0

    @property
    def arrays_least(self) -> int:
        """Arrays that these cells would need if every one were used."""
        return math.ceil(self.cells_used / (self.rows * self.columns))

    @property
    def digital_share(self) -> float:
        """The share of all weights that is computed digitally."""
        return self.digital_weights / self.weights if self.weights else 0.0

    @property
    def reads(self) -> int:
        """Activations of an array for one product with every matrix: each block is read on its own."""
        return len(self.placements)

    @property
    def reads_in_turn(self) -> int:
        """The most blocks on one array: what shared arrays cost in time."""
        return max(Counter(placement.array for placement in self.placements).values(), default=0)


def pack(
    shapes: Sequence[MatrixShape],
    rows: int,
    columns: int,
    cells_per_weight: int = 2,
    *,
    reserved_columns: int = 0,
    cut: bool = True,
) -> Packing:
    """Return where the blocks of matrices of these shapes go; the same shapes go to the same places.

    Args:
        rows, columns: lines of an array.
        reserved_columns: bit lines of every array that hold no weights (spares, the reference of the offset
            encoding); they count as allocated.
        cut: blocks may be cut to empty an array.

    Raises:
        ValueError: an array has no room for a single weight.
    """
    outputs = (columns - reserved_columns) // cells_per_weight
    if rows < 1 or outputs < 1:
        raise ValueError(
            f"an array of {rows} x {columns} lines, {reserved_columns} of them reserved, "
            f"has no room for a weight of {cells_per_weight} cells"
        )
    full: list[Block] = []
    remainders: list[Block] = []
    for block in _blocks(shapes, rows, outputs):
        (full if (block.inputs, block.outputs) == (rows, outputs) else remainders).append(block)
    shared = SharedArrays(rows, outputs * cells_per_weight, cells_per_weight)
    shared.put_all(remainders)
    if cut:
        shared.empty_arrays()
    placements = [Placement(block, array, 0, 0) for array, block in enumerate(full)]
    for array, holding in enumerate(shared.arrays, start=len(full)):
        placements += [
            Placement(block, array, place.row, place.column) for place, block in sorted(holding.placed)
        ]
    return Packing(
        rows=rows,
        columns=columns,
        cells_per_weight=cells_per_weight,
        arrays=len(full) + len(shared.arrays),
        placements=tuple(placements),
        cuts=len(placements) - len(full) - len(remainders),
        weights=sum(shape.weights for shape in shapes),
        digital_weights=sum(shape.weights for shape in shapes if shape.depthwise),
    )


def _blocks(shapes: Sequence[MatrixShape], rows: int, outputs: int) -> Iterator[Block]:
    for matrix, shape in enumerate(shapes):
        if shape.depthwise:
            continue
        grid = TileGrid(outputs=shape.outputs, inputs=shape.inputs, rows=rows, columns=outputs)
        for group in range(shape.groups):
            for tile in grid:
                inputs, width = tile.shape
                yield Block(matrix, group, tile.inputs.start, inputs, tile.outputs.start, width)
