"""Owns how a matrix is cut: into partitions by rows, and products into panels by columns. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, field

from sedmad.errors import MatrixTooLarge, UsageError
from sedmad.sizes import MIB

ROW_MULTIPLE = 64
"""Partitions are a multiple of this many rows: whole tiles for devices, whole vectors for kernels."""

PARTITION_TARGET_BYTES = 8 * MIB
"""Small enough to move, verify and repair in a fraction of a second, large enough that a message per
partition is cheap beside the arithmetic."""

ROW_LIMIT_BYTES = 4 * MIB
"""Longest row: 64 of them, the smallest partition, are 256 MiB, which a node must be able to take at once."""

PANEL_LIMIT_BYTES = 8 * MIB
"""Largest panel of columns of X or Y that is sent as one message."""

PANEL_LIMIT_COLUMNS = 64
"""Widest panel: 64 columns already compute near the speed of the machine; more would only wait longer."""

# Columns of X and Y hold at least float32: weights of fewer bits are widened.
_PANEL_ITEMSIZE_MIN = 4
_PARTIAL_ITEMSIZE = 8  # a transposed product answers one float64 partial per partition


@dataclass(frozen=True, slots=True)
class Partitioning:
    """How a matrix of `rows` x `columns` items of `itemsize` bytes is cut.

    Raises:
        UsageError: no rows, no columns, or no itemsize.
        MatrixTooLarge: a row has more than 4 MiB, or more than 1,048,576 values.
    """

    rows: int
    columns: int
    itemsize: int
    partition_rows: int = field(init=False)
    """Rows of every partition but the last, which may have fewer."""

    def __post_init__(self) -> None:
        if min(self.rows, self.columns, self.itemsize) < 1:
            raise UsageError(
                "a matrix needs at least one row and one column",
                why=f"this one is {self.rows} x {self.columns}",
            )
        if self.columns * self.panel_itemsize > ROW_LIMIT_BYTES:
            raise MatrixTooLarge(
                "the rows of this matrix are too long",
                why=f"a row of X has {self.columns * self.panel_itemsize:,} bytes, "
                f"at most {ROW_LIMIT_BYTES:,} are possible",
                hint="Store its transpose, and ask for transposed products.",
            )
        # A column of a partition's Y is no more than a panel, as it is with rows of float32.
        height = PARTITION_TARGET_BYTES // max(self.row_bytes, self.panel_itemsize)
        height = height // ROW_MULTIPLE * ROW_MULTIPLE
        object.__setattr__(self, "partition_rows", min(self.rows, max(ROW_MULTIPLE, height)))

    @property
    def panel_itemsize(self) -> int:
        """Bytes of an element of X and of Y."""
        return max(self.itemsize, _PANEL_ITEMSIZE_MIN)

    @property
    def row_bytes(self) -> int:
        return self.columns * self.itemsize

    @property
    def count(self) -> int:
        """Number of partitions."""
        return -(-self.rows // self.partition_rows)

    @property
    def total_bytes(self) -> int:
        return self.rows * self.row_bytes

    def row_range(self, index: int) -> range:
        """Return the rows of partition `index`; IndexError if there is none."""
        if not 0 <= index < self.count:
            raise IndexError(f"partition {index} of {self.count}")
        start = index * self.partition_rows
        return range(start, min(start + self.partition_rows, self.rows))

    def size_bytes(self, index: int) -> int:
        """Return the bytes of partition `index`; IndexError if there is none."""
        return len(self.row_range(index)) * self.row_bytes

    @property
    def panel_columns(self) -> int:
        """Most columns that one product W X takes: neither X nor a partition's Y is more than a panel."""
        longest = max(self.columns, self.partition_rows) * self.panel_itemsize
        return _columns_within(longest)

    @property
    def transposed_panel_columns(self) -> int:
        """Most columns that one product W^T X takes, given a partition's slice of X and its partial."""
        longest = max(self.columns * _PARTIAL_ITEMSIZE, self.partition_rows * self.panel_itemsize)
        return _columns_within(longest)


def _columns_within(longest_column_bytes: int) -> int:
    return max(1, min(PANEL_LIMIT_COLUMNS, PANEL_LIMIT_BYTES // longest_column_bytes))
