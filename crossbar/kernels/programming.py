"""Owns the kernels that program one row of tiles: weights to windows, noise, write-verify, and back to weights.

A cell is described by how far it fills the window of its devices: 0 is the least and 1 the largest conductance that
can be programmed; what noise makes of it may lie outside. Shapes: K word lines of a row of tiles, N outputs.

Laws come as tables over a range of fillings with equal steps, linear in between. Of the laws in the catalogue, 1024
points over the window miss none by more than 2e-5 of the largest conductance.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from crossbar.kernels.randomness import compiled, extended, normal, stream_at

PULSE_STRIDE_BITS = 22
"""A cell's n-th pulse draws at its column + n * 2^22: 4,194,304 outputs and 1024 pulses fit one stream."""


_TURNED_AT_ONCE = 16  # outputs of a block that is transposed: as many floats fill one line of a cache


@compiled
def take_lines(weights, first, factor, lines):  # type: ignore[no-untyped-def]
    """Write `factor` times the inputs from `first` on of weights (outputs, inputs) to `lines` (K, outputs)."""
    count, outputs = lines.shape
    for start in range(0, outputs, _TURNED_AT_ONCE):
        stop = min(start + _TURNED_AT_ONCE, outputs)
        for k in range(count):
            for n in range(start, stop):
                lines[k, n] = weights[n, first + k] * factor


@compiled
def encode_pairs(weights, per_scale, steps, positive, negative):  # type: ignore[no-untyped-def]
    """Turn weights into one-sided pairs: `crossbar.mapping.encoding` with one slice.

    Args:
        weights: (K, N).
        per_scale: (N,), 1 / scale, or 0 for a column of zeros.
        steps: levels - 1, or 0 if the devices are continuous.
        positive, negative: (K, N), out.
    """
    lines, outputs = weights.shape
    for k in range(lines):
        for n in range(outputs):
            share = min(max(weights[k, n] * per_scale[n], np.float32(-1)), np.float32(1))
            if steps > np.float32(0):
                share = np.rint(share * steps) / steps
            positive[k, n] = max(share, np.float32(0))
            negative[k, n] = max(-share, np.float32(0))


@compiled
def encode_offset(weights, per_scale, steps, filled):  # type: ignore[no-untyped-def]
    """Turn weights into single cells around the middle of the window; arguments as in `encode_pairs`."""
    lines, outputs = weights.shape
    for k in range(lines):
        for n in range(outputs):
            share = min(max(weights[k, n] * per_scale[n], np.float32(-1)), np.float32(1))
            share = (share + np.float32(1)) * np.float32(0.5)
            if steps > np.float32(0):
                share = np.rint(share * steps) / steps
            filled[k, n] = share


@njit(inline="always")
def _looked_up(law, position):  # type: ignore[no-untyped-def]
    """Interpolate a table at `position` >= 0, in steps of the table; it ends at the last point."""
    position = min(position, np.float32(len(law) - 1))
    index = min(np.uint32(position), np.uint32(len(law) - 2))
    left = law[index]
    return left + (position - np.float32(index)) * (law[index + np.uint32(1)] - left)


@compiled
def program_once(filled, key, law, flat, floor):  # type: ignore[no-untyped-def]
    """Program every cell with one pulse.

    Args:
        filled: (K, N), targets within the window; what became of them, out.
        key: of this row of tiles and plane; a word line's stream is it extended by the line.
        law: standard deviation over the window.
        flat: whether it is the same everywhere.
        floor: the filling at which a device conducts nothing, at most 0.
    """
    lines, outputs = filled.shape
    points = np.float32(len(law) - 1)
    for k in range(lines):
        low, high = stream_at(extended(key, np.uint64(k)), np.uint32(0))
        if flat:
            deviation = law[0]
            for n in range(outputs):
                error = deviation * normal(low, high, np.uint32(n))
                filled[k, n] = max(filled[k, n] + error, floor)
        else:
            for n in range(outputs):
                deviation = _looked_up(law, filled[k, n] * points)
                error = deviation * normal(low, high, np.uint32(n))
                filled[k, n] = max(filled[k, n] + error, floor)


@compiled
def program_verified(filled, key, law, tolerance, tries, floor):  # type: ignore[no-untyped-def]
    """Program every cell until it is within `tolerance` of its target, and keep the best of at most `tries`.

    Args:
        tolerance: as a share of the window. All others as in `program_once`.

    Returns:
        How many pulses it took in all.
    """
    lines, outputs = filled.shape
    points = np.float32(len(law) - 1)
    pulses = 0
    for k in range(lines):
        low, high = stream_at(extended(key, np.uint64(k)), np.uint32(0))
        for n in range(outputs):
            target = filled[k, n]
            deviation = _looked_up(law, target * points)
            best = np.float32(np.inf)
            for pulse in range(tries):
                place = np.uint32(n) + (np.uint32(pulse) << np.uint32(PULSE_STRIDE_BITS))
                # What a device cannot do, conduct less than nothing, is no error that verifying would see.
                error = max(target + deviation * normal(low, high, place), floor) - target
                pulses += 1
                if abs(error) < abs(best):
                    best = error
                if abs(best) <= tolerance:
                    break
            filled[k, n] = target + best
    return pulses


@compiled
def subtract_cells(positive, negative, weight_per_window, weights):  # type: ignore[no-untyped-def]
    """Write the weights (K, N) that pairs of cells hold; `weight_per_window` (N,) is what a full window means."""
    lines, outputs = positive.shape
    for k in range(lines):
        for n in range(outputs):
            weights[k, n] = (positive[k, n] - negative[k, n]) * weight_per_window[n]


@compiled
def read_variances(positive, negative, weight_per_window, law, floor, per_point, variances):  # type: ignore[no-untyped-def]
    """Write the variance (K, N) of one read of each pair of cells, in units of weights.

    Args:
        law: standard deviation of a read over fillings from `floor` on.
        per_point: points of the table for a full window.
    """
    lines, outputs = positive.shape
    for k in range(lines):
        for n in range(outputs):
            one = _looked_up(law, (positive[k, n] - floor) * per_point) * weight_per_window[n]
            other = _looked_up(law, (negative[k, n] - floor) * per_point) * weight_per_window[n]
            variances[k, n] = one * one + other * other
