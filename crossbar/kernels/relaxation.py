"""Owns the compiled line relaxation of an array with resistive wires. Called by `crossbar.irdrop.relaxation` only.

The equations are those of `crossbar.irdrop.lines`: A_w = L + r_w diag(g) for the nodes u of the word lines, and alike
for the bit lines. With the bit lines solved exactly for given u, what remains is

    K u = V e_0,    K = A_w - r_w r_b G A_b^-1 G,

symmetric, positive definite, and close to A_w as long as wires lose little. One step of line relaxation solves A_w for
the residual; conjugate gradients (Hestenes and Stiefel 1952) preconditioned with A_w combine these steps at the price
of a few sums. Steps to 1e-6 at 128 x 128, plain and combined: 6 and 3 at 1 ohm, 24 and 6 at 10 ohm, 174 and 15 at
100 ohm.

Word lines are kept in the order (columns, rows), bit lines in (rows, columns): node after node of all lines at once, so
that both kinds of sweep run along contiguous memory.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

Array = npt.NDArray[np.float64]

ROOM = 11
"""Arrays of the size of the conductances that `relax` needs."""

_compiled = njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz", "arcp"}, error_model="numpy")


@_compiled
def _reciprocal_pivots(loads: Array, found: Array) -> None:
    """Put the reciprocals of `crossbar.irdrop.lines.pivots` into `found`; `loads` are resistance times conductance."""
    nodes, lines = loads.shape
    for line in range(lines):
        found[nodes - 1, line] = 1.0 / (1.0 + loads[nodes - 1, line])
    for node in range(nodes - 2, -1, -1):
        for line in range(lines):
            found[node, line] = 1.0 / (2.0 + loads[node, line] - found[node + 1, line])


@_compiled
def _solve_lines(reciprocals: Array, values: Array) -> None:
    """Solve L + r diag(g) of all lines at once, in place."""
    nodes, lines = values.shape
    for node in range(nodes - 2, -1, -1):
        for line in range(lines):
            values[node, line] += values[node + 1, line] * reciprocals[node + 1, line]
    for line in range(lines):
        values[0, line] *= reciprocals[0, line]
    for node in range(1, nodes):
        for line in range(lines):
            values[node, line] = (values[node, line] + values[node - 1, line]) * reciprocals[node, line]


@_compiled
def _transpose(source: Array, target: Array) -> None:
    """Copy in strips of 8 columns of the source: as many cache lines as the first cache can keep open."""
    rows, columns = source.shape
    for first in range(0, columns, 8):
        last = min(first + 8, columns)
        for row in range(rows):
            for column in range(first, last):
                target[column, row] = source[row, column]


@_compiled
def _answer(loads: Array, words: Array, reciprocals: Array, bits: Array, drop: Array) -> None:
    """Solve the bit lines for given nodes `words` of the word lines, into `drop`; both (columns, rows).

    `loads` (rows, columns) is r_b G; `bits` (rows, columns) is room to work in.
    """
    _transpose(words, bits)
    rows, columns = bits.shape
    for row in range(rows):
        for column in range(columns):
            bits[row, column] *= loads[row, column]
    _solve_lines(reciprocals, bits)
    _transpose(bits, drop)


@_compiled
def _add(scale: float, source: Array, target: Array) -> None:
    for at in range(len(source)):
        target[at] += scale * source[at]


@_compiled
def _turn(scale: float, source: Array, target: Array) -> None:
    """Make `target` the source plus `scale` times itself."""
    for at in range(len(source)):
        target[at] = source[at] + scale * target[at]


@_compiled
def _product(one: Array, other: Array) -> float:
    found = 0.0
    for at in range(len(one)):
        found += one[at] * other[at]
    return found


@_compiled
def _largest(values: Array) -> float:
    found = 0.0
    for at in range(len(values)):
        found = max(found, abs(values[at]))
    return found


@_compiled
def _relax_vector(
    word_loads: Array, bit_loads: Array, word_reciprocals: Array, bit_reciprocals: Array, driven: Array,
    tolerance: float, steps_max: int, bits: Array, work: Array,
) -> int:  # fmt: skip
    """Leave the currents of all devices in `bits`, over their conductances; return the steps taken, or -1."""
    nodes = word_loads.shape
    loads = word_loads.reshape(-1)
    words, drop, direction = work[0], work[1], work[2]
    loaded = work[3]  # A_w direction
    residual = work[4]
    step = work[5]  # A_w^-1 residual: what one more line relaxation would change
    for at in range(loads.size):
        words[at] = driven[at % driven.size]  # u = V along every word line leaves the residual -r_w G (u - b)
    _answer(bit_loads, words.reshape(nodes), bit_reciprocals, bits, drop.reshape(nodes))
    for at in range(loads.size):
        residual[at] = step[at] = loaded[at] = loads[at] * (drop[at] - words[at])
    _solve_lines(word_reciprocals, step.reshape(nodes))
    for at in range(loads.size):
        direction[at] = step[at]
    product = _product(residual, step)
    allowed = tolerance * _largest(driven)
    softest = 1.0  # least Rayleigh quotient of K and A_w so far: a step of plain relaxation leaves 1 - it of the error
    taken = 0
    while _largest(step) > allowed * softest:
        if taken == steps_max:
            return -1
        taken += 1
        _answer(bit_loads, direction.reshape(nodes), bit_reciprocals, bits, drop.reshape(nodes))
        for at in range(loads.size):
            drop[at] = loaded[at] - loads[at] * drop[at]  # K direction
        curvature = _product(direction, drop)
        if not curvature > 0.0:  # nothing but rounding is left
            return -1
        softest = min(softest, curvature / _product(direction, loaded))
        _add(product / curvature, direction, words)
        _add(-product / curvature, drop, residual)
        for at in range(loads.size):
            step[at] = residual[at]
        _solve_lines(word_reciprocals, step.reshape(nodes))
        before = product
        product = _product(residual, step)
        _turn(product / before, step, direction)
        _turn(product / before, residual, loaded)
    _add(1.0, step, words)  # it is there already
    _answer(bit_loads, words.reshape(nodes), bit_reciprocals, bits, drop.reshape(nodes))
    _add(-1.0, drop, words)
    _transpose(words.reshape(nodes), bits)
    return taken


@_compiled
def relax(
    conductance: Array, voltages: Array, word_ohm: float, bit_ohm: float,
    tolerance: float, steps_max: int, room: Array,
) -> tuple[Array, npt.NDArray[np.int64]]:  # fmt: skip
    """Return the currents (vectors, columns) and the steps that each vector took, -1 where they did not suffice.

    Args:
        conductance: (rows, columns) siemens, C-contiguous, row 0 nearest to the ground.
        voltages: (vectors, rows) volts, C-contiguous.
        word_ohm: of every segment of the word lines.
        bit_ohm: of every segment of the bit lines.
        tolerance: estimated error of any node's voltage, relative to the largest one, at which a vector is done.
        steps_max: after which a vector is given up.
        room: (ROOM, rows * columns), C-contiguous, for what is computed on the way; its contents do not matter.
    """
    rows, columns = conductance.shape
    vectors = len(voltages)
    currents = np.zeros((vectors, columns))
    steps = np.empty(vectors, np.int64)
    word_loads = room[0].reshape(columns, rows)
    word_reciprocals = room[1].reshape(columns, rows)
    bit_loads = room[2].reshape(rows, columns)
    bit_reciprocals = room[3].reshape(rows, columns)
    bits = room[4].reshape(rows, columns)
    for row in range(rows):
        for column in range(columns):
            bit_loads[row, column] = bit_ohm * conductance[row, column]
            bits[row, column] = word_ohm * conductance[row, column]
    _transpose(bits, word_loads)
    _reciprocal_pivots(word_loads, word_reciprocals)
    _reciprocal_pivots(bit_loads, bit_reciprocals)
    for vector in range(vectors):
        steps[vector] = _relax_vector(
            word_loads, bit_loads, word_reciprocals, bit_reciprocals, voltages[vector],
            tolerance, steps_max, bits, room[5:],
        )  # fmt: skip
        for row in range(rows):
            for column in range(columns):
                currents[vector, column] += conductance[row, column] * bits[row, column]
    return currents, steps
