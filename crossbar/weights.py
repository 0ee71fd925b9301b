"""Owns what weights and vectors may be: their dtypes, shapes and magnitudes. What is done with them is others'."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from crossbar.engine import FloatArray
from crossbar.errors import WeightsInvalid

LARGEST_MAX = 1e37
"""Of the largest weight, and its reciprocal the least: arrays are simulated in float32, which ends just beyond."""


def checked_weights(weights: npt.ArrayLike) -> FloatArray:
    """Return weights (outputs, inputs) as they can be programmed: C-contiguous, float32 or, if they were, float64.

    Raises:
        WeightsInvalid: not real numbers, empty, not finite, or not of two dimensions.
    """
    checked = real_numbers(weights, "weights")
    if checked.dtype.type not in (np.float32, np.float64):
        checked = checked.astype(np.float32)
    if checked.ndim != 2 or not checked.size:
        raise WeightsInvalid(f"weights must have outputs and inputs, not the shape {checked.shape}")
    if not np.isfinite(checked).all():
        raise WeightsInvalid(
            "weights cannot be programmed",
            why="some of them are NaN or infinite",
            hint="Replace them first: numpy.nan_to_num(weights).",
        )
    return np.ascontiguousarray(checked)


def require_magnitude(weights: npt.NDArray[Any]) -> None:
    """Raise WeightsInvalid if arrays, simulated in float32, cannot hold finite weights of this magnitude."""
    largest = max(float(weights.max(initial=0.0)), -float(weights.min(initial=0.0)))
    if largest and math.isfinite(largest) and not 1 / LARGEST_MAX <= largest <= LARGEST_MAX:
        raise WeightsInvalid(
            f"weights of at most {largest:.3g} cannot be programmed",
            why=f"the largest must be between {1 / LARGEST_MAX:g} and {LARGEST_MAX:g}: arrays are simulated in float32",
            hint="Scale them, and products back.",
        )


def real_numbers(array: npt.ArrayLike, what: str) -> npt.NDArray[Any]:
    """Return an array of real numbers as it is; raise WeightsInvalid for anything else, complex numbers among it."""
    numbers = np.asarray(array)
    if numbers.dtype.kind not in "biuf":
        raise WeightsInvalid(f"{what} must be real numbers, not {numbers.dtype}")
    return numbers
