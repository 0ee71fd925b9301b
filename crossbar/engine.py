"""Owns the contract of an engine: program a partition once, then multiply with it many times.

Panels hold one column of X per row, because that is how they travel and how they are joined: a panel of k
columns is an array of shape (k, n), C-contiguous.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from crossbar.profile import IDEAL, DeviceProfile

FloatArray = npt.NDArray[np.floating[Any]]
"""An array of float32 or float64."""


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

    def multiply(self, panel: FloatArray) -> FloatArray:
        """Return Y (k, rows) in W's dtype for `panel` (k, columns): row by row, W times a row of the panel.

        The panel is first converted to W's dtype. NaN and Inf go through as in any arithmetic, without
        warnings.

        Raises:
            ValueError: the panel does not fit W.
            TypeError: the panel is not float32 or float64.
        """

    def multiply_transposed(self, panel: FloatArray) -> npt.NDArray[np.float64]:
        """Return this partition's share (k, columns), float64, of W^T X for its slice `panel` (k, rows) of X.

        The shares of all partitions, added in partition order, are the product. Raises as `multiply` does.
        """

    def self_test(self, rng: np.random.Generator) -> SelfTest:
        """Compare elements of products of random panels, in both directions, with plain float64 arithmetic.

        All of W is read for it.
        """


class Engine(Protocol):
    """What turns weights into a programmed partition."""

    def program(self, weights: FloatArray) -> ProgrammedPartition:
        """Program `weights` (rows, columns): float32 or float64, C-contiguous, at least 1 x 1.

        The array may be a read-only view of a mapped file; it is neither written to nor copied, and must stay
        mapped as long as the result is used.

        Raises:
            ValueError: wrong number of dimensions, empty, not C-contiguous, not aligned, or not in native
                byte order.
            TypeError: another dtype.
        """


def engine_for(profile: DeviceProfile) -> Engine:
    """Return the engine that computes as `profile` describes.

    Engines are imported on first use: one that compiles kernels costs memory that other nodes should not pay.

    Raises:
        ValueError: no engine models this profile.
    """
    if profile == IDEAL:
        from crossbar.ideal import IdealEngine

        return IdealEngine()
    raise ValueError(f"no engine models the device profile {profile.name!r}")
