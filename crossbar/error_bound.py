"""Owns the stated bound on the rounding error of a product, used wherever 'wrong' must mean something.

For a sum of n products in floating point with unit roundoff u = eps / 2, in any order of summation,

    |dY| <= n u / (1 - n u) * |W| |X|

(N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, section 3.5). Rounding X to the
dtype of sums (float64 for float64 weights, else float32) adds u, rounding a sum of partial results another u. So

    |dY| <= c n eps |W| (|X| + tiny) + n * smallest_subnormal        with c = 2

holds with room for every n that a partition can have (n u < 1/4); the two small terms cover underflow. It
does not cover overflow: where |W| |X| passes the largest number of the dtype, the product may be infinite.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from crossbar.engine import FloatArray

ERROR_CONSTANT = 2.0
"""The c of the bound."""

TRANSPOSED_BLOCK_ROWS = 256
"""Rows of a float32 partition that a transposed product sums in float32; the blocks are summed in float64.

Measured with one thread on partitions of 1,536 to 4,096 rows: 256 rows cost 0-25 % more than one float32
product of the whole partition, 64 rows 20-40 %, a float64 product of converted blocks 30-500 %.
"""


def arithmetic_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Return what products with weights of `dtype` are summed in: float64 for float64, float32 for all others.

    float16 and int8 are float32 numbers too: widening them adds no error.
    """
    return np.dtype(np.float64 if np.dtype(dtype) == np.float64 else np.float32)


def summed_terms(rows: int, columns: int, dtype: npt.DTypeLike, *, transposed: bool = False) -> int:
    """Return n of the bound: how many products are summed in float32, or float64 for float64 weights, in one go."""
    if not transposed:
        return columns
    return min(rows, TRANSPOSED_BLOCK_ROWS) if arithmetic_dtype(dtype) == np.float32 else rows


def error_bound(magnitude: FloatArray, terms: int, dtype: npt.DTypeLike) -> npt.NDArray[np.float64]:
    """Return the largest |dY| allowed, element by element.

    Args:
        magnitude: |W| (|X| + tiny) in float64, with tiny the smallest normal number of the dtype of
            sums; see `magnitudes`.
        terms: n, from `summed_terms`.
        dtype: W's dtype.
    """
    limits = np.finfo(arithmetic_dtype(dtype))
    return ERROR_CONSTANT * terms * float(limits.eps) * magnitude.astype(
        np.float64, copy=False
    ) + terms * float(limits.smallest_subnormal)


def magnitudes(panel: FloatArray, dtype: npt.DTypeLike) -> npt.NDArray[np.float64]:
    """Return |X| + tiny in float64: what |W| is multiplied with in the bound."""
    return np.abs(panel.astype(np.float64)) + float(np.finfo(arithmetic_dtype(dtype)).tiny)


def product_error_bound(
    weights: npt.NDArray[Any],
    panel: FloatArray,
    *,
    transposed: bool = False,
    scale: npt.NDArray[Any] | None = None,
) -> npt.NDArray[np.float64]:
    """Return the largest |dY| allowed for every element of a product of `weights` (rows, columns).

    Args:
        panel: (k, columns), or (k, rows) if `transposed`.
        transposed: the product is W^T X.
        scale: (rows,), of W's rows: each product with one is rounded once more.

    Returns:
        float64, (k, rows), or (k, columns) if `transposed`. Makes a float64 copy of |W|: meant for tests and
        demos.
    """
    rows, columns = weights.shape
    absolute = np.abs(weights.astype(np.float64))
    terms = summed_terms(rows, columns, weights.dtype, transposed=transposed)
    if scale is not None:
        absolute *= np.abs(scale.astype(np.float64))[:, None]
        terms += 1
    with np.errstate(all="ignore"):
        magnitude = magnitudes(panel, weights.dtype) @ (absolute if transposed else absolute.T)
        return error_bound(magnitude, terms, weights.dtype)
