"""Owns the contract of an engine: program a partition once, then multiply with it many times.

Panels hold one column of X per row, because that is how they travel and how they are joined: a panel of k
columns is an array of shape (k, n), C-contiguous.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]
"""An array of float32 or float64."""

WeightsArray = npt.NDArray[Any]
"""An array of float16, float32, float64 or int8."""

PanelArray = npt.NDArray[Any]
"""An array of float32 or float64; of int8, int16 or int32 where the weights are int8."""


@dataclass(frozen=True, slots=True)
class SelfTest:
    """The worst element of a self-test: its error, and the error that the engine's bound allows there."""

    measured: float
    allowed: float

    @property
    def passed(self) -> bool:
        """True if the engine keeps its bound."""
        return self.measured <= self.allowed


class ProgrammedPartition(Protocol):
    """A block of rows W of a matrix, ready to be multiplied with, by several threads at once."""

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of W."""

    @property
    def memory_bytes(self) -> int:
        """Bytes allocated beyond the weights themselves."""

    def multiply(self, panel: PanelArray) -> PanelArray:
        """Return Y (k, rows) for `panel` (k, columns): row by row, W times a row of the panel.

        Arithmetic and result are float64 for float64 weights, else float32; the panel is converted first. NaN and Inf
        go through as in any arithmetic, without warnings. With int8 weights and a panel of integers the result is
        exact, in int32.

        Raises:
            ValueError: the panel does not fit W.
            TypeError: the panel has another dtype.
            OverflowError: a result of integers may not fit int32 (`crossbar.exact.integer_products`).
        """

    def multiply_transposed(self, panel: PanelArray) -> npt.NDArray[np.float64]:
        """Return this partition's share (k, columns), float64, of W^T X for its slice `panel` (k, rows) of X.

        Of integers it is exact. The shares of all partitions, added in partition order, are the product. Raises as
        `multiply` does.
        """

    def self_test(self, rng: np.random.Generator) -> SelfTest:
        """Compare elements of products of random panels, in both directions, with plain float64 arithmetic.

        All of W is read for it.
        """


class Engine(Protocol):
    """What turns weights into a programmed partition."""

    def program(self, weights: WeightsArray) -> ProgrammedPartition:
        """Program `weights` (rows, columns): float16, float32, float64 or int8, C-contiguous, at least 1 x 1.

        The array may be a read-only view of a mapped file; it is neither written to nor copied, and must stay
        mapped as long as the result is used.

        Raises:
            ValueError: wrong number of dimensions, empty, not C-contiguous, not aligned, or not in native
                byte order.
            TypeError: another dtype.
        """
