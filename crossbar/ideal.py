"""Owns the ideal engine: exact floating-point arithmetic by BLAS, straight from the mapped weights.

Sums are float32, or float64 for float64 weights; float16 and int8 are widened on their way, and int8 times integers
is exact (`crossbar.exact`). Which way of multiplying a panel of k columns is fastest depends on k. Milliseconds, one
thread of OpenBLAS 0.3.31, 4096 x 4096 float32 (`scripts/bench/engine.py`):

     k   W X, kernels    BLAS   W^T X, kernels    BLAS
     1              -     2.5                -     2.8
     2            3.1     5.7              3.6     4.6
     3            3.3     8.6              3.4     5.7
     4            3.4     9.7              4.5     6.8
     8            5.3    11.9              6.2     8.3
    12            7.0    12.0              8.5    10.0
    16            9.0    14.9             10.0    11.8
    24              -    16.3                -    14.3
    64              -    31.7                -    33.4
    float16
     1            1.9    14.3              2.1    16.1
     4            2.5    16.9              3.5    20.2

Hence the rule: up to 16 columns the compiled kernels, where this engine was given some and once they are ready.
Without them up to three columns one gemv each, from four on one gemm over a panel that is filled up with zero rows to a
multiple of four. `panel @ W.T` and `(W @ panel.T).T` are within the noise of each other; the first gives C order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from crossbar.engine import PanelArray, SelfTest, WeightsArray
from crossbar.error_bound import (
    TRANSPOSED_BLOCK_ROWS,
    arithmetic_dtype,
    error_bound,
    magnitudes,
    summed_terms,
)
from crossbar.exact import integer_products
from crossbar.exact.narrow import COLUMNS_MAX, Kernels, NarrowKernels, read_only
from crossbar.exact.widening import BLOCK_BYTES, widened_blocks

DTYPES = ("float16", "float32", "float64", "int8")
"""What weights may be."""

NARROW_COLUMNS = 3
"""Without compiled kernels, the widest panel for which one gemv per column beats a gemm."""

GEMM_COLUMNS = 4
"""BLAS kernels work on this many columns at once; a remainder costs more than zeros that fill it up."""

_SELF_TEST_COLUMNS = (1, GEMM_COLUMNS + 1)  # both ways of computing, and the padding
# Of each column, against float64: a kernel that is wrong is wrong for more than one element in 64.
_SELF_TEST_ELEMENTS = 64
_SELF_TEST_BLOCK_BYTES = 1 << 20  # float64 copies made by a self-test stay within a few of these


class IdealEngine:
    """An `Engine` without devices: results differ from exact ones by rounding only (`crossbar.error_bound`).

    Args:
        kernels: for products of few columns; BLAS computes them where it is None.
    """

    def __init__(self, kernels: NarrowKernels | None = None) -> None:
        self._kernels = kernels

    def program(self, weights: WeightsArray) -> IdealPartition:
        return IdealPartition(weights, self._kernels)


class IdealPartition:
    """A `ProgrammedPartition` that is a view of the weights and nothing else."""

    def __init__(self, weights: WeightsArray, kernels: NarrowKernels | None = None) -> None:
        if weights.dtype.name not in DTYPES:
            raise TypeError(f"weights must be {', '.join(DTYPES)}, not {weights.dtype}")
        if weights.ndim != 2 or 0 in weights.shape:
            raise ValueError(f"weights must have rows and columns, not the shape {weights.shape}")
        if not (weights.flags.c_contiguous and weights.flags.aligned and weights.dtype.isnative):
            raise ValueError("weights must be C-contiguous, aligned and in native byte order")
        self._weights = read_only(
            np.asarray(weights)
        )  # a plain view: products of a numpy.memmap would be memmaps
        self._dtype = arithmetic_dtype(weights.dtype)
        self._kernels = kernels

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self._weights.shape
        return rows, columns

    @property
    def memory_bytes(self) -> int:
        return 0

    def multiply(self, panel: PanelArray) -> PanelArray:
        weights = self._weights
        self._check_panel(panel, weights.shape[1])
        if np.issubdtype(panel.dtype, np.signedinteger):
            return integer_products.multiply(weights, panel)
        with np.errstate(all="ignore"):
            if kernels := self._kernels_for(len(panel)):
                product = np.empty((len(panel), len(weights)), self._dtype)
                kernels.multiply(self._stored(), self._inputs(panel), product)
                return product
            filled = _filled(panel, self._dtype)
            product = np.empty((len(filled), len(weights)), self._dtype)
            for rows, _, block in widened_blocks(weights, self._dtype, *weights.shape):
                if len(panel) > NARROW_COLUMNS:
                    np.matmul(filled, block.T, out=product[:, rows])
                else:
                    for column, result in zip(filled, product, strict=True):
                        np.dot(block, column, out=result[rows])
        return product[: len(panel)]

    def multiply_transposed(self, panel: PanelArray) -> npt.NDArray[np.float64]:
        weights = self._weights
        self._check_panel(panel, len(weights))
        if np.issubdtype(panel.dtype, np.signedinteger):
            return integer_products.multiply_transposed(weights, panel)
        with np.errstate(all="ignore"):
            if kernels := self._kernels_for(len(panel)):
                product = np.zeros((len(panel), weights.shape[1]), np.float64)
                kernels.multiply_transposed(self._stored(), self._inputs(panel), product)
                return product
            filled = _filled(panel, self._dtype)
            product = np.zeros((len(filled), weights.shape[1]), np.float64)
            for rows, columns, block in widened_blocks(weights, self._dtype, *self._transposed_block()):
                slices = filled[:, rows]
                if len(panel) > NARROW_COLUMNS:
                    product[:, columns] += slices @ block
                else:
                    for column, result in zip(slices, product, strict=True):
                        result[columns] += column @ block
        return product[: len(panel)]

    def _kernels_for(self, panel_columns: int) -> Kernels | None:
        """Return the compiled kernels where they are faster. One column of floats is bound by memory either way."""
        least = 2 if self._weights.dtype == self._dtype else 1
        if self._kernels is None or not least <= panel_columns <= COLUMNS_MAX:
            return None
        return self._kernels.get(self._weights.dtype, self._weights.nbytes)

    def _transposed_block(self) -> tuple[int, int]:
        """Return how many rows and columns of W are multiplied with at once."""
        rows, columns = self.shape
        if self._dtype == np.float64:
            return rows, columns
        height = min(rows, TRANSPOSED_BLOCK_ROWS)
        widened = self._weights.dtype != self._dtype
        # As few rows as a cache would hold of whole ones cost more in float64 sums than strips of columns.
        return height, BLOCK_BYTES // (height * self._dtype.itemsize) if widened else columns

    def _stored(self) -> npt.NDArray[Any]:
        """Return the weights as kernels know them."""
        return self._weights.view(np.uint16) if self._weights.dtype == np.float16 else self._weights

    def _inputs(self, panel: PanelArray) -> npt.NDArray[Any]:
        """Return a panel as kernels know it."""
        return read_only(np.require(panel, self._dtype, ["C", "A"]))

    def _check_panel(self, panel: PanelArray, length: int) -> None:
        integers = np.issubdtype(panel.dtype, np.signedinteger) and panel.dtype.itemsize <= 4
        if panel.dtype.type not in (np.float32, np.float64) and not (
            integers and self._weights.dtype == np.int8
        ):
            raise TypeError(
                f"a panel must be float32 or float64, or integers for int8 weights, not {panel.dtype}"
            )
        if panel.ndim != 2 or panel.shape[1] != length:
            raise ValueError(f"a panel of shape (k, {length}) was expected, not {panel.shape}")

    def self_test(self, rng: np.random.Generator) -> SelfTest:
        worst = SelfTest(measured=0.0, allowed=0.0)
        for panel_columns in _SELF_TEST_COLUMNS:
            for transposed in (False, True):
                found = self._compare(rng, panel_columns, transposed=transposed)
                if found.measured * worst.allowed >= worst.measured * found.allowed:
                    worst = found
        return worst

    def _compare(self, rng: np.random.Generator, panel_columns: int, *, transposed: bool) -> SelfTest:
        """Return the worst of some elements of one random product against float64, a block of weights at a time.

        All weights are multiplied with, but float64 costs ten times what a product does: only some elements, the first
        and the last among them, are computed again. Those whose terms may overflow, or which meet a NaN or Inf of W,
        have no bound and are left out.
        """
        weights = self._weights
        rows, columns = weights.shape
        panel = rng.standard_normal((panel_columns, rows if transposed else columns)).astype(self._dtype)
        product = self.multiply_transposed(panel) if transposed else self.multiply(panel)
        length = product.shape[1]
        chosen = rng.choice(length, min(length, _SELF_TEST_ELEMENTS), replace=False)
        sample = np.union1d(chosen, (0, length - 1))
        got = product[:, sample]
        expected = np.zeros(got.shape, np.float64)
        magnitude = np.zeros(got.shape, np.float64)
        exact, absolute = panel.astype(np.float64), magnitudes(panel, weights.dtype)
        with np.errstate(all="ignore"):
            if transposed:
                block_rows = max(1, _SELF_TEST_BLOCK_BYTES // (len(sample) * 8))
                for start in range(0, rows, block_rows):
                    here = slice(start, start + block_rows)
                    block = weights[here, sample].astype(np.float64)
                    expected += exact[:, here] @ block
                    magnitude += absolute[:, here] @ np.abs(block, out=block)
            else:
                block_rows = max(1, _SELF_TEST_BLOCK_BYTES // (columns * 8))
                for start in range(0, len(sample), block_rows):
                    here = slice(start, start + block_rows)
                    block = weights[sample[here]].astype(np.float64)
                    expected[:, here] = exact @ block.T
                    magnitude[:, here] = absolute @ np.abs(block, out=block).T
            error = np.abs(got - expected)
            allowed = error_bound(
                magnitude, summed_terms(rows, columns, weights.dtype, transposed=transposed), weights.dtype
            )
        # Partial sums stay below the sum of magnitudes: half the largest number leaves room for rounding.
        bounded = magnitude < float(np.finfo(self._dtype).max) / 2
        if not bounded.any():
            return SelfTest(measured=0.0, allowed=0.0)
        # A NaN that the engine made itself must fail, not hide.
        ratio = np.where(bounded, np.nan_to_num(error / allowed, nan=np.inf), -1.0)
        at = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
        measured = float(error[at])
        return SelfTest(measured=measured if measured == measured else np.inf, allowed=float(allowed[at]))


def _filled(panel: PanelArray, dtype: np.dtype[Any]) -> PanelArray:
    """Return `panel` in `dtype`, C-contiguous, with zero rows added if it goes through a gemm."""
    missing = -len(panel) % GEMM_COLUMNS
    if len(panel) <= NARROW_COLUMNS or not missing:
        return np.ascontiguousarray(panel, dtype=dtype)
    filled = np.zeros((len(panel) + missing, panel.shape[1]), dtype)
    filled[: len(panel)] = panel
    return filled
