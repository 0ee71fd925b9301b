"""Owns the tiling: which inputs and outputs of a matrix share one array. Knows shapes only, no weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, slots=True)
class Tile:
    """What one array, or one pair of arrays, holds of a matrix.

    Attributes:
        row, column: where it is in the grid of tiles.
        inputs, outputs: half-open ranges of the matrix's inputs (word lines) and outputs (bit lines).
    """

    row: int
    column: int
    inputs: slice
    outputs: slice

    @property
    def shape(self) -> tuple[int, int]:
        """(inputs, outputs) of this tile."""
        return self.inputs.stop - self.inputs.start, self.outputs.stop - self.outputs.start


@dataclass(frozen=True)
class TileGrid:
    """A matrix (outputs, inputs) cut into tiles of at most `rows` inputs and `columns` outputs.

    All tiles are full but those of the last row and column, which hold what remains.

    Raises:
        ValueError: one of the four is less than 1.
    """

    outputs: int
    inputs: int
    rows: int
    columns: int

    def __post_init__(self) -> None:
        for name in ("outputs", "inputs", "rows", "columns"):
            if getattr(self, name) < 1:
                raise ValueError(f"a grid of tiles needs {name} of at least 1, not {getattr(self, name)}")

    @cached_property
    def tile_rows(self) -> int:
        """Tiles above each other: partial sums that are added digitally for one output."""
        return -(-self.inputs // self.rows)

    @cached_property
    def tile_columns(self) -> int:
        """Tiles beside each other."""
        return -(-self.outputs // self.columns)

    @property
    def tiles(self) -> int:
        return self.tile_rows * self.tile_columns

    @property
    def full_tiles(self) -> int:
        """Tiles without an unused cell."""
        return (self.inputs // self.rows) * (self.outputs // self.columns)

    @property
    def remaining_inputs(self) -> int:
        """Inputs in the last row of tiles if it is not full, else 0."""
        return self.inputs % self.rows

    @property
    def remaining_outputs(self) -> int:
        """Outputs in the last column of tiles if it is not full, else 0."""
        return self.outputs % self.columns

    @property
    def utilisation(self) -> float:
        """Weights held / weights that the tiles could hold."""
        return self.inputs * self.outputs / (self.tiles * self.rows * self.columns)

    def input_range(self, row: int) -> slice:
        """Return the inputs of one row of tiles."""
        return _range(row, self.tile_rows, self.rows, self.inputs)

    def output_range(self, column: int) -> slice:
        """Return the outputs of one column of tiles."""
        return _range(column, self.tile_columns, self.columns, self.outputs)

    def tile(self, row: int, column: int) -> Tile:
        return Tile(row, column, self.input_range(row), self.output_range(column))

    def __iter__(self) -> Iterator[Tile]:
        """Go through the tiles row by row, as programming does."""
        for row in range(self.tile_rows):
            for column in range(self.tile_columns):
                yield self.tile(row, column)

    def remainders(self) -> Iterator[Tile]:
        """Go through the tiles that are not full: the right edge, the bottom edge, the corner last."""
        if self.remaining_outputs:
            for row in range(self.inputs // self.rows):
                yield self.tile(row, self.tile_columns - 1)
        if self.remaining_inputs:
            for column in range(self.outputs // self.columns):
                yield self.tile(self.tile_rows - 1, column)
        if self.remaining_inputs and self.remaining_outputs:
            yield self.tile(self.tile_rows - 1, self.tile_columns - 1)


def _range(index: int, count: int, size: int, total: int) -> slice:
    if not 0 <= index < count:
        raise IndexError(f"there are {count} tiles in this direction, none at {index}")
    return slice(index * size, min((index + 1) * size, total))
