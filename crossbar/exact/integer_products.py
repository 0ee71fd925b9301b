"""Owns exact products of int8 weights with integers: BLAS on floats that hold every partial sum exactly.

Sums of integers are exact in float32 up to 2^24 and in float64 up to 2^53, in any order. Results are int32. Whether
they fit is decided before anything is computed, by the largest |x|: products of `terms` elements are taken where

    128 * max |x| * terms < 2^31,

so int8 times int8 up to 131,071 terms. What may not fit is refused, whatever the weights are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from crossbar.exact.widening import BLOCK_BYTES, widened_blocks

Weights = npt.NDArray[np.int8]
Panel = npt.NDArray[np.signedinteger[Any]]

LARGEST_WEIGHT = 128
RESULT_LIMIT = 1 << 31
_FLOAT32_EXACT = 1 << 24
# Terms that are worth a float32 product of their own; below, float64 is faster.
_FLOAT32_TERMS_MIN = 256
_ROWS = 256  # of a block in a transposed product


def largest_magnitude(panel: Panel) -> int:
    """Return the largest |x| of a panel, 0 if it is empty."""
    return max(int(panel.max()), -int(panel.min())) if panel.size else 0


def fits(panel: Panel, terms: int) -> bool:
    """Return whether sums of `terms` products of int8 with elements of a panel fit int32 whatever the int8 are."""
    return LARGEST_WEIGHT * largest_magnitude(panel) * terms < RESULT_LIMIT


def multiply(weights: Weights, panel: Panel) -> npt.NDArray[np.int32]:
    """Return Y (k, rows) = W X for `weights` (rows, columns) and `panel` (k, columns).

    Raises:
        OverflowError: a result may not fit int32.
    """
    terms, dtype = _exact_terms(panel, weights.shape[1])
    floats = panel.astype(dtype)
    product = np.zeros((len(panel), len(weights)), np.int32)
    for rows, columns, block in widened_blocks(weights, dtype, len(weights), terms):
        product[:, rows] += (floats[:, columns] @ block.T).astype(np.int32)
    return product


def multiply_transposed(weights: Weights, panel: Panel) -> npt.NDArray[np.float64]:
    """Return W^T X (k, columns) in float64, whole numbers, for `panel` (k, rows).

    Raises:
        OverflowError: a result may not fit int32.
    """
    terms, dtype = _exact_terms(panel, len(weights))
    floats = panel.astype(dtype)
    product = np.zeros((len(panel), weights.shape[1]), np.float64)
    height = min(terms, _ROWS)
    for rows, columns, block in widened_blocks(
        weights, dtype, height, BLOCK_BYTES // (height * dtype.itemsize)
    ):
        product[:, columns] += floats[:, rows] @ block
    return product


def _exact_terms(panel: Panel, terms: int) -> tuple[int, np.dtype[Any]]:
    """Return how many terms are summed at once, and in which dtype."""
    largest = largest_magnitude(panel) * LARGEST_WEIGHT
    if not fits(panel, terms):
        raise OverflowError(f"sums of {terms} products of up to {largest} may not fit int32")
    exact = _FLOAT32_EXACT // max(1, largest)
    if exact >= min(terms, _FLOAT32_TERMS_MIN):
        return max(1, min(exact, terms)), np.dtype(np.float32)
    return terms, np.dtype(np.float64)
