"""Owns the kernels of exact products with few columns, where BLAS is weak. `crossbar.exact.narrow` decides when they
run.

X and Y are panels: one column a row. Weights (m, n) are read once, or a few times from the nearest caches. Both are
read-only; float16 comes as a view of uint16; panels are float64 for float64 weights, else float32.

Order of summation. Straight: blocks of 4,096 elements of a row one after the other; within a block each of 8 lanes (4
of float64) by itself, then the lanes, then the rest. Transposed: 256 rows one after the other in float32, the sums of
such blocks in float64; of float64 all rows one after the other. A column's result does not depend on the columns beside
it.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from crossbar.error_bound import TRANSPOSED_BLOCK_ROWS
from crossbar.kernels.vectors import straight_tile, transposed_tile

_compiled = njit(nogil=True, cache=True, error_model="numpy")
_TILE_ROWS = 3  # with four columns: 12 sums, three weights and one factor, the 16 vector registers of x86-64
_BLOCK_COLUMNS = 4096  # 16 columns of X in float32 take 256 KiB: half of a second cache
_TURNED_ROWS = 4
_TURNED_COLUMNS = 1024  # three columns of sums and four rows of W in float32 take 28 KiB: a first cache

_straight_1 = straight_tile(_TILE_ROWS, 1)
_straight_2 = straight_tile(_TILE_ROWS, 2)
_straight_3 = straight_tile(_TILE_ROWS, 3)
_straight_4 = straight_tile(_TILE_ROWS, 4)
_turned_1 = transposed_tile(_TURNED_ROWS, 1)
_turned_2 = transposed_tile(_TURNED_ROWS, 2)
_turned_3 = transposed_tile(_TURNED_ROWS, 3)
_last_rows = transposed_tile(1, 1)


@_compiled
def multiply(weights, panel, product):  # type: ignore[no-untyped-def]
    """Write W X into `product` (k, m), for a panel (k, n); k is at least 1."""
    rows, columns = weights.shape
    width = len(panel)
    groups = (width + 3) // 4
    sums = np.empty(width * _TILE_ROWS, product.dtype)
    for row in range(0, rows, _TILE_ROWS):
        valid = min(_TILE_ROWS, rows - row)
        for index in range(len(sums)):
            sums[index] = 0
        for start in range(0, columns, _BLOCK_COLUMNS):
            stop = min(columns, start + _BLOCK_COLUMNS)
            for group in range(groups):
                # As even as can be: one column alone would use a register in three.
                first, after = group * width // groups, (group + 1) * width // groups
                if after - first == 4:
                    _straight_4(weights, row, valid, panel, first, start, stop, sums)
                elif after - first == 3:
                    _straight_3(weights, row, valid, panel, first, start, stop, sums)
                elif after - first == 2:
                    _straight_2(weights, row, valid, panel, first, start, stop, sums)
                else:
                    _straight_1(weights, row, valid, panel, first, start, stop, sums)
        for column in range(width):
            for r in range(valid):
                product[column, row + r] = sums[column * _TILE_ROWS + r]


@_compiled
def multiply_transposed(weights, panel, product):  # type: ignore[no-untyped-def]
    """Add W^T X to `product` (k, n), float64, for a panel (k, m); k is at least 1."""
    rows, columns = weights.shape
    width = len(panel)
    groups = (width + 2) // 3
    sums = np.empty((width, columns), panel.dtype)
    block_rows = rows if panel.dtype == product.dtype else TRANSPOSED_BLOCK_ROWS
    for row in range(0, rows, block_rows):
        for column in range(width):
            for j in range(columns):
                sums[column, j] = 0
        for start in range(0, columns, _TURNED_COLUMNS):
            stop = min(columns, start + _TURNED_COLUMNS)
            _add_rows(weights, row, min(rows, row + block_rows), panel, groups, start, stop, sums)
        for column in range(width):
            for j in range(columns):
                product[column, j] += sums[column, j]


@_compiled
def _add_rows(weights, first_row, last_row, panel, groups, start, stop, sums):  # type: ignore[no-untyped-def]
    width = len(panel)
    whole = last_row - (last_row - first_row) % _TURNED_ROWS
    for row in range(first_row, whole, _TURNED_ROWS):
        for group in range(groups):
            first, after = group * width // groups, (group + 1) * width // groups
            if after - first == 3:
                _turned_3(weights, row, panel, first, start, stop, sums)
            elif after - first == 2:
                _turned_2(weights, row, panel, first, start, stop, sums)
            else:
                _turned_1(weights, row, panel, first, start, stop, sums)
    for row in range(whole, last_row):
        for column in range(width):
            _last_rows(weights, row, panel, column, start, stop, sums)
