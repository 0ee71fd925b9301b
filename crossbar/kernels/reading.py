"""Owns the kernels of one product: DAC, read noise, ADC and the sum over tile rows. Knows no device and no plan.

Shapes: R rows of arrays above each other (those of all slices and replicas among them), B vectors, T word lines of
an array, N outputs. Partial sums are in units of weights times inputs of at most 1.

Numbers are rounded half to even.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from crossbar.kernels.randomness import compiled, extended, normal, stream_at

_COLUMNS_AT_ONCE = 512  # outputs whose totals stay in the first cache while rows are added to them
_MAGNITUDE_BITS = np.uint32(0x7FFFFFFF)
_INFINITY_BITS = np.uint32(0x7F800000)

NO_NOISE, CONSTANT_NOISE, GIVEN_NOISE = 0, 1, 2
"""Where the standard deviation of read noise comes from; see `finish`."""


@compiled
def convert_inputs(panel, levels, scales, lines, norms):  # type: ignore[no-untyped-def]
    """Scale every vector to at most 1, round it as a DAC does, and lay it out line by line.

    Args:
        panel: (B, inputs).
        levels: steps of the DAC on either side of 0; 0 is no DAC.
        scales: (B,), out: the largest |x| of each vector; NaN if one of them is not finite.
        lines: (R, B, T), out: what the word lines carry, 0 where the last array has more than there are inputs.
        norms: (R, B), out: the L2 norm of each row of `lines`.
    """
    rows, vectors, width = lines.shape
    inputs = panel.shape[1]
    step = np.float32(1) / max(levels, np.float32(1))
    for b in range(vectors):
        bits = panel[b].view(np.uint32)  # without its sign a number is ordered as an integer, NaN last
        most = np.uint32(0)
        for k in range(inputs):
            most = max(most, bits[k] & _MAGNITUDE_BITS)
        largest = np.float32(np.nan)
        if most < _INFINITY_BITS:
            largest = np.float32(0)
            for k in range(inputs):
                if bits[k] & _MAGNITUDE_BITS == most:
                    largest = abs(panel[b, k])
                    break
        scales[b] = largest
        divisor = largest if most > np.uint32(0) else np.float32(1)
        for r in range(rows):
            first = r * width
            line = lines[r, b]
            count = min(width, inputs - first)
            here = panel[b, first : first + count]
            if levels > np.float32(0):
                for k in range(count):
                    line[k] = np.rint(here[k] / divisor * levels) * step
            else:
                for k in range(count):
                    line[k] = here[k] / divisor
            line[count:] = np.float32(0)
            norms[r, b] = _norm(line)


@njit(nogil=True, error_model="numpy", fastmath={"contract", "reassoc"})
def _norm(line):  # type: ignore[no-untyped-def]
    squares = np.float32(0)
    for k in range(len(line)):
        squares += line[k] * line[k]
    return np.sqrt(squares)


@compiled
def finish(  # type: ignore[no-untyped-def]
    partial, column, kind, norms, noise, variances, levels, steps, per_step, keys, scales, product
):
    """Add read noise to partial sums, round them as ADCs do, add them up and undo the vectors' scales.

    Args:
        partial: (R, B, C), what the bit lines of C outputs carry; overwritten. The rows of slices and replicas follow
            each other; all of them share the inputs.
        column: the first of these outputs; all arrays below are of all outputs.
        kind: NO_NOISE; CONSTANT_NOISE, of standard deviation norms[r, b] * noise[r, n]; or GIVEN_NOISE, variances.
        norms: (input rows, B), L2 norms of what the word lines carry.
        noise: (R, N), standard deviation for inputs of norm 1.
        variances: (R, B, C), or anything if not used.
        levels: steps of an ADC on either side of 0; 0 is no ADC.
        steps, per_step: (R, N), one step of each ADC, and its inverse, 0 where the step is 0.
        keys: (B,), one a vector; row r draws from the key extended by r, at the place of the output.
        scales: (B,), from `convert_inputs`.
        product: (B, N), out.
    """
    rows, vectors, outputs = partial.shape
    totals = np.empty(_COLUMNS_AT_ONCE, np.float32)
    for b in range(vectors):
        for start in range(0, outputs, _COLUMNS_AT_ONCE):
            stop = min(start + _COLUMNS_AT_ONCE, outputs)
            count, first, last = stop - start, column + start, column + stop
            totals[:] = np.float32(0)
            for r in range(rows):
                low, high = stream_at(extended(keys[b], r), first)
                sums, each, deviation = (
                    partial[r, b, start:stop],
                    noise[r, first:last],
                    norms[r % len(norms), b],
                )
                per, step = per_step[r, first:last], steps[r, first:last]
                if kind == CONSTANT_NOISE and levels > np.float32(0):
                    for n in range(count):  # the common case: both steps in one loop
                        found = sums[n] + deviation * each[n] * normal(low, high, np.uint32(n))
                        totals[n] += np.rint(min(max(found * per[n], -levels), levels)) * step[n]
                    continue
                given = variances[r, b, start:stop] if kind == GIVEN_NOISE else each
                _add_noise(sums, kind, deviation, each, given, low, high)
                _add_converted(totals, sums, levels, per, step)
            for n in range(count):
                product[b, first + n] = totals[n] * scales[b]


# One loop for each case: with a choice inside, loops are not vectorised.


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def _add_noise(sums, kind, deviation, each, given, low, high):  # type: ignore[no-untyped-def]
    if kind == CONSTANT_NOISE:
        for n in range(len(sums)):
            sums[n] += deviation * each[n] * normal(low, high, np.uint32(n))
    elif kind == GIVEN_NOISE:
        for n in range(len(sums)):
            sums[n] += np.sqrt(given[n]) * normal(low, high, np.uint32(n))


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def _add_converted(totals, sums, levels, per_step, steps):  # type: ignore[no-untyped-def]
    if levels > np.float32(0):
        for n in range(len(sums)):
            totals[n] += np.rint(min(max(sums[n] * per_step[n], -levels), levels)) * steps[n]
    else:
        for n in range(len(sums)):
            totals[n] += sums[n]
