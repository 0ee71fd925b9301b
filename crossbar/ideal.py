"""Owns the ideal engine: exact floating-point arithmetic by BLAS, straight from the mapped weights.

Which way of multiplying a panel of k columns is fastest depends on k. Milliseconds, one thread of OpenBLAS
0.3.31, 4096 x 1365 float32 (`scripts/bench/engine.py`):

    k   one gemv per column   gemm   as implemented
    1          0.5             0.5        0.6
    2          1.0             2.4        1.2
    3          1.4             3.0        1.4
    4          1.8             1.9        1.9
    7          3.3             3.6        2.3
    8          4.7             2.7        2.6
    15         8.4             4.8        3.7
    64          32             9.3        9.3

Hence the rule below: up to three columns one gemv each, from four on one gemm over a panel that is filled up
with zero rows to a multiple of four. `panel @ W.T` and `(W @ panel.T).T` are within the noise of each other;
the first gives C order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from crossbar.engine import FloatArray, SelfTest
from crossbar.error_bound import TRANSPOSED_BLOCK_ROWS, error_bound, magnitudes, summed_terms

NARROW_COLUMNS = 3
"""The widest panel for which one gemv per column beats a gemm."""

GEMM_COLUMNS = 4
"""BLAS kernels work on this many columns at once; a remainder costs more than zeros that fill it up."""

_SELF_TEST_COLUMNS = (1, GEMM_COLUMNS + 1)  # both ways of computing, and the padding
# Of each column, against float64: a kernel that is wrong is wrong for more than one element in 64.
_SELF_TEST_ELEMENTS = 64
_SELF_TEST_BLOCK_BYTES = 1 << 20  # float64 copies made by a self-test stay within a few of these


class IdealEngine:
    """An `Engine` without devices: results differ from exact ones by rounding only
    (`crossbar.error_bound`)."""

    def program(self, weights: FloatArray) -> IdealPartition:
        return IdealPartition(weights)


class IdealPartition:
    """A `ProgrammedPartition` that is a view of the weights and nothing else."""

    def __init__(self, weights: FloatArray) -> None:
        if weights.dtype.type not in (np.float32, np.float64):
            raise TypeError(f"weights must be float32 or float64, not {weights.dtype}")
        if weights.ndim != 2 or 0 in weights.shape:
            raise ValueError(f"weights must have rows and columns, not the shape {weights.shape}")
        if not (weights.flags.c_contiguous and weights.flags.aligned and weights.dtype.isnative):
            raise ValueError("weights must be C-contiguous, aligned and in native byte order")
        self._weights = np.asarray(weights)  # a plain view: products of a numpy.memmap would be memmaps

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self._weights.shape
        return rows, columns

    @property
    def memory_bytes(self) -> int:
        return 0

    def multiply(self, panel: FloatArray) -> FloatArray:
        weights = self._weights
        _check_panel(panel, weights.shape[1])
        panel_columns = len(panel)
        with np.errstate(all="ignore"):
            panel = _filled(panel, weights.dtype)
            if panel_columns > NARROW_COLUMNS:
                wide: FloatArray = (panel @ weights.T)[:panel_columns]
                return wide
            product = np.empty((panel_columns, len(weights)), weights.dtype)
            for column, result in zip(panel, product, strict=True):
                np.dot(weights, column, out=result)
        return product

    def multiply_transposed(self, panel: FloatArray) -> npt.NDArray[np.float64]:
        weights = self._weights
        _check_panel(panel, len(weights))
        panel_columns = len(panel)
        with np.errstate(all="ignore"):
            panel = _filled(panel, weights.dtype)
            product = np.zeros((len(panel), weights.shape[1]), np.float64)
            block_rows = TRANSPOSED_BLOCK_ROWS if weights.dtype == np.float32 else len(weights)
            partial = np.empty_like(product, dtype=weights.dtype)
            for start in range(0, len(weights), block_rows):
                block = weights[start : start + block_rows]
                slices = panel[:, start : start + block_rows]
                if panel_columns > NARROW_COLUMNS:
                    np.matmul(slices, block, out=partial)
                else:
                    for column, result in zip(slices, partial, strict=True):
                        np.dot(column, block, out=result)
                product += partial
        return product[:panel_columns]

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
        panel = rng.standard_normal((panel_columns, rows if transposed else columns)).astype(weights.dtype)
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
        bounded = magnitude < float(np.finfo(weights.dtype).max) / 2
        if not bounded.any():
            return SelfTest(measured=0.0, allowed=0.0)
        # A NaN that the engine made itself must fail, not hide.
        ratio = np.where(bounded, np.nan_to_num(error / allowed, nan=np.inf), -1.0)
        at = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
        measured = float(error[at])
        return SelfTest(measured=measured if measured == measured else np.inf, allowed=float(allowed[at]))


def _check_panel(panel: FloatArray, length: int) -> None:
    if panel.dtype.type not in (np.float32, np.float64):
        raise TypeError(f"a panel must be float32 or float64, not {panel.dtype}")
    if panel.ndim != 2 or panel.shape[1] != length:
        raise ValueError(f"a panel of shape (k, {length}) was expected, not {panel.shape}")


def _filled(panel: FloatArray, dtype: np.dtype[Any]) -> FloatArray:
    """Return `panel` in `dtype`, C-contiguous, with zero rows added if it goes through a gemm."""
    missing = -len(panel) % GEMM_COLUMNS
    if len(panel) <= NARROW_COLUMNS or not missing:
        return np.ascontiguousarray(panel, dtype=dtype)
    filled = np.zeros((len(panel) + missing, panel.shape[1]), dtype)
    filled[: len(panel)] = panel
    return filled
