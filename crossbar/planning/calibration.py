"""Owns calibration: the vectors that a programmed block is tried with, converter ranges and column gains from them,
and the measured error with its standard error.

Calibration vectors are drawn with keys of their own, so that data that a test draws is never among them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from crossbar import randomness
from crossbar.engine import FloatArray

CALIBRATION_VECTORS = 64
"""Vectors of one calibration. The power of a column is known to 1 / sqrt(2 * 64) = 9 %; more cost time only."""

HEADROOM = 1.05
"""Ranges are this much wider than what calibration saw: the largest of 64 is not the largest of all."""

_LOADING_MAX = 16.0  # standard deviations: beyond it a float64 normal distribution has no tail left


@dataclass(frozen=True, slots=True)
class MeasuredError:
    """A relative L2 error over several vectors.

    Attributes:
        value: ||Y - Y_exact|| / ||Y_exact|| over all vectors; 0 if both are 0.
        standard_error: of `value`, from the spread of the vectors. It does not cover what all vectors share, such
            as the noise that the devices were programmed with.
        vectors: how many were tried.
    """

    value: float
    standard_error: float
    vectors: int


def calibration_vectors(
    inputs: int, count: int = CALIBRATION_VECTORS, *, seed: int = 0, samples: FloatArray | None = None
) -> npt.NDArray[np.float32]:
    """Return `count` vectors as columns (inputs, count): standard normal, or drawn from `samples`.

    Args:
        samples: (inputs, vectors) as the block will see them. Drawn without replacement; with fewer than `count` of
            them all are returned, once each.
    """
    if samples is None:
        stream = randomness.key(seed, randomness.CALIBRATION)
        return randomness.normals(stream, inputs * count).reshape(inputs, count)
    if samples.ndim != 2 or samples.shape[0] != inputs or not samples.shape[1]:
        raise ValueError(f"samples must have the shape ({inputs}, vectors), not {samples.shape}")
    rng = np.random.default_rng(randomness.key(seed, randomness.CALIBRATION))
    chosen = rng.choice(samples.shape[1], min(count, samples.shape[1]), replace=False)
    return np.ascontiguousarray(samples[:, chosen], dtype=np.float32)


def measured_error(
    apply: Callable[[FloatArray], FloatArray], weights: FloatArray, vectors: FloatArray
) -> MeasuredError:
    """Compare `apply(vectors)` with weights @ vectors.

    Args:
        weights: (outputs, inputs). vectors: (inputs, vectors).
    """
    exact = (weights @ vectors).astype(np.float64)
    wrong = np.asarray(apply(vectors), np.float64) - exact
    error_power = np.square(wrong).sum(axis=0)
    signal_power = np.square(exact).sum(axis=0)
    signal = float(signal_power.sum())
    if signal == 0.0:
        return MeasuredError(0.0 if not error_power.any() else math.inf, 0.0, vectors.shape[1])
    value = math.sqrt(float(error_power.sum()) / signal)
    count = vectors.shape[1]
    if count < 2 or value == 0.0:
        return MeasuredError(value, 0.0, count)
    # The ratio of two means, to first order; half of it because the error is the square root of the ratio.
    residual = error_power - value**2 * signal_power
    spread = math.sqrt(float(np.square(residual).sum()) * count / (count - 1)) / signal
    return MeasuredError(value, spread / (2 * value), count)


@lru_cache(maxsize=32)  # one entry for every number of bits that a converter can have
def loading_factor(bits: int) -> float:
    """Return the range, in standard deviations, at which a converter loses least of a normal signal.

    With q = 2^(bits-1) - 1 steps to either side the error is c^2 / (12 q^2) from rounding plus
    2 ((1 + c^2) Q(c) - c phi(c)) from clipping; it is least where c / (6 q^2) = 4 (phi(c) - c Q(c))
    (J. Max, IRE Trans. Inf. Theory 6:7-12, 1960). 3.92 for 8 bits, 3.27 for 6, 2.48 for 4.
    """
    steps = largest_code(bits)
    low, high = 0.0, _LOADING_MAX
    for _ in range(60):  # halvings of 16: float64 has no more digits
        middle = (low + high) / 2
        density = math.exp(-middle * middle / 2) / math.sqrt(2 * math.pi)
        tail = math.erfc(middle / math.sqrt(2)) / 2
        if middle / (6 * steps * steps) < 4 * (density - middle * tail):
            low = middle
        else:
            high = middle
    return low


def largest_code(bits: int) -> int:
    """Return q = 2^(bits-1) - 1 (at least 1): a symmetric converter has the codes -q to q."""
    return max(1, (1 << (bits - 1)) - 1)


def column_ranges(partials: FloatArray, bits: int) -> npt.NDArray[np.float32]:
    """Return a converter range for every bit line from the partial sums (vectors, outputs) of one row of tiles.

    The larger of what was seen, with headroom, and of the best range for a normal signal of the same power: the
    largest of a few vectors alone is exceeded so often that clipping costs three times what rounding does
    (64 vectors and 8 bits: 0.029 of the output, against 0.009).
    """
    power = np.sqrt(np.square(partials.astype(np.float64)).mean(axis=0))
    peak = np.abs(partials).max(axis=0) * HEADROOM
    return np.asarray(np.maximum(peak, loading_factor(bits) * power), np.float32)


def column_gains(measured: FloatArray, exact: FloatArray) -> npt.NDArray[np.float32]:
    """Return the factor for every output (outputs, vectors) that brings `measured` closest to `exact`.

    Least squares, one factor an output; 1 where nothing was measured.
    """
    power = np.square(measured.astype(np.float64)).sum(axis=1)
    product = np.multiply(measured, exact, dtype=np.float64).sum(axis=1)
    return np.asarray(np.divide(product, power, out=np.ones_like(power), where=power > 0), np.float32)
