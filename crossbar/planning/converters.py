"""Owns what converters add to the error of a block: rounding of inputs by the DAC, rounding and clipping by the ADC.

Both are symmetric: codes -q to q with q = 2^(bits-1) - 1 (`calibration.largest_code`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from crossbar.planning.calibration import CALIBRATION_VECTORS, HEADROOM, largest_code, loading_factor

if TYPE_CHECKING:
    from crossbar.planning.plan import AdcRange
    from crossbar.planning.statistics import BlockStatistics

Array = npt.NDArray[np.float64]

_BINS = 256  # of standard deviations; rounding them up to the next edge makes a range wider by 1/256 at most
_HARMONICS = (
    8  # of the sawtooth; the eighth is below exp(-2 pi^2 64 v) of a step, nothing where rounding is fine
)


@dataclass(frozen=True, slots=True)
class ConversionError:
    """Squared errors of a block's output: `independent` of a replica's own, `shared` by all of them."""

    independent: float
    shared: float


def dac_error(statistics: BlockStatistics, bits: int) -> float:
    """Return the squared error of the output that rounding the inputs causes.

    A vector is divided by its max |x| and rounded to steps of 1 / q: an error of variance max|x|^2 / (12 q^2) for
    every input but the largest, which is exact. Through the weights it becomes that times the sum of w^2.
    """
    inexact = (statistics.inputs - 1) / statistics.inputs
    step = math.sqrt(statistics.peak_power) / largest_code(bits)
    return float(inexact * statistics.weight_power * step * step / 12)


def adc_error(powers: Array, ranges: Array, bits: int) -> ConversionError:
    """Return the squared error of conversions, summed over bit lines.

    A normal partial sum of variance v, clipped at +-R and rounded to steps of d = R / q, is wrong by

        d^2 / 12 + d^2 / pi^2 * sum over m of (-1)^m / m^2 exp(-2 pi^2 m^2 v / d^2)      (rounding)
        + 2 v ((1 + c^2) Q(c) - c phi(c)) with c = R / sqrt(v)                             (clipping)

    The first is the mean of the squared sawtooth's Fourier series (Widrow and Kollar, Quantization Noise, 2008,
    appendix G); where steps are coarse it goes to v: everything is lost.

    Args:
        powers, ranges: variance v of each bit line's partial sum, and R in the same units: any equal shapes.
    """
    live = (powers > 0) & (ranges > 0)
    variance, limit = powers[live], ranges[live]
    step = limit / largest_code(bits)
    fineness = variance / np.square(step)
    rounding = np.full_like(variance, 1 / 12)
    for harmonic in range(1, _HARMONICS + 1):
        damping = np.exp(-2 * math.pi**2 * harmonic**2 * fineness)
        rounding += (-1) ** harmonic / (math.pi * harmonic) ** 2 * damping
    loading = limit / np.sqrt(variance)
    clipped = variance * 2 * _clipped_share(loading)
    rounded = np.minimum(np.square(step) * np.maximum(rounding, 0.0), variance)
    return ConversionError(independent=float(rounded.sum()), shared=float(clipped.sum()))


def predicted_ranges(powers: Array, bounds: Array, mode: AdcRange, bits: int) -> Array:
    """Return the ranges that calibration will set for bit lines of these powers: same shape.

    Args:
        powers: (tile rows, outputs), second moments of partial sums, inputs scaled as for conversion.
        bounds: (tile rows, outputs), the largest partial sum there can be.
        mode: "max" takes the bounds; "calibrated" the largest that the calibration vectors gave anywhere, found as
            the median of the largest of so many normal numbers; "column" what `calibration.column_ranges` does.
    """
    if mode == "max":
        return bounds
    deviations = np.sqrt(powers)
    if mode == "column":
        seen = HEADROOM * _median_largest(np.ones(1), CALIBRATION_VECTORS)
        return np.asarray(np.minimum(max(loading_factor(bits), seen) * deviations, bounds))
    largest = HEADROOM * _median_largest(deviations.ravel(), CALIBRATION_VECTORS)
    return np.full_like(powers, min(largest, float(bounds.max())))


def _median_largest(deviations: Array, each: int) -> float:
    """Return the median of the largest |z| among `each` normal numbers of every deviation, by bisection."""
    largest = float(deviations.max(initial=0.0))
    repeats, edges = np.histogram(deviations, bins=_BINS, range=(0.0, largest or 1.0))
    groups = [
        (count, edge) for count, edge in zip(repeats.tolist(), edges[1:].tolist(), strict=True) if count
    ]
    low, high = 0.0, 12.0 * largest
    for _ in range(40):
        middle = (low + high) / 2
        beyond = sum(count * math.erfc(middle / (deviation * math.sqrt(2))) for count, deviation in groups)
        if each * beyond > math.log(2):
            low = middle
        else:
            high = middle
    return high


def _clipped_share(loading: Array) -> Array:
    """Return (1 + c^2) Q(c) - c phi(c): half the share of a normal signal's power that clipping at c removes."""
    within = np.minimum(loading, 12.0)
    tail = np.array([math.erfc(value / math.sqrt(2)) / 2 for value in within.ravel()]).reshape(within.shape)
    density = np.exp(-np.square(within) / 2) / math.sqrt(2 * math.pi)
    return np.asarray(np.maximum((1 + np.square(within)) * tail - within * density, 0.0))
