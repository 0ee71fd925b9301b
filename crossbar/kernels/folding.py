"""Owns the compiled elimination that folds the wires of an array into its conductances.

Called by `crossbar.irdrop.folding` only, which says what is eliminated and why. Symmetric matrices are kept as their
lower triangles. They are inverted in place by sweeps (Beaton, ETS Research Bulletin 1964), four pivots at a time: a
sweep of all pivots leaves -A^-1, which is how the inverse enters the matrix of the next column.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

Array = npt.NDArray[np.float64]

_BLOCK = 4
"""Pivots swept at once: as many as let two rows of a matrix be updated without leaving the registers."""

_compiled = njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz", "arcp"}, error_model="numpy")


@_compiled
def _solve_line(g: Array, resistance: float, reciprocals: Array, own: Array, drained: Array) -> None:
    """Write 1 / pivots of S = L + r diag(g) of one bit line, the diagonal of S^-1, and D S^-1 e_0."""
    last = len(g) - 1
    reciprocals[last] = 1.0 / (1.0 + resistance * g[last])
    for node in range(last - 1, -1, -1):
        reciprocals[node] = 1.0 / (2.0 + resistance * g[node] - reciprocals[node + 1])
    decay, before = 1.0, 0.0
    for node in range(last + 1):
        before = reciprocals[node] * (1.0 + reciprocals[node] * before)  # positive terms only
        own[node] = before
        decay *= reciprocals[node]
        drained[node] = decay * g[node]


@_compiled
def _add_loads(
    left: Array, g: Array, reciprocals: Array, own: Array, scale: float, word_ohm: float, along: float,
    line: Array,
) -> None:  # fmt: skip
    """Add along I + r_w (D - r_b D S^-1 D) to the lower triangle of `left`; `scale` is r_w r_b.

    S^-1 is semiseparable: S^-1_ik = S^-1_ii / (pivot_(i+1) ... pivot_k) for i <= k.
    """
    for k in range(len(g)):
        falls = reciprocals[k]
        for i in range(k):
            line[i] *= falls
        line[k] = scale * own[k] * g[k]
        conductance = g[k]
        for i in range(k + 1):
            left[k, i] -= line[i] * conductance
        left[k, k] += along + word_ohm * conductance


@_compiled
def _sweep(matrix: Array, wide: Array, scaled: Array, block: Array) -> None:
    """Replace the lower triangle of a positive definite matrix A by that of -A^-1.

    With B the rows of a block of pivots and A_BB their own square, a sweep subtracts B^T A_BB^-1 B from the matrix and
    puts A_BB^-1 B where B was, and -A_BB^-1 in its square.

    Args:
        matrix: (n, n), n a multiple of `_BLOCK`; its upper triangle is room to work in.
        wide, scaled: (`_BLOCK`, n), room for B and A_BB^-1 B.
        block: (`_BLOCK`, `_BLOCK`), room.
    """
    for first in range(0, len(matrix), _BLOCK):
        _take_block(matrix, first, wide)
        for p in range(_BLOCK):
            for q in range(_BLOCK):
                block[p, q] = wide[p, first + q]
        _sweep_block(block)
        for p in range(_BLOCK):
            a, b, c, d = -block[p, 0], -block[p, 1], -block[p, 2], -block[p, 3]
            for i in range(len(matrix)):
                scaled[p, i] = a * wide[0, i] + b * wide[1, i] + c * wide[2, i] + d * wide[3, i]
        _subtract_products(matrix, wide, scaled)
        _put_block(matrix, first, scaled, block)


@_compiled
def _take_block(matrix: Array, first: int, wide: Array) -> None:
    """Copy whole rows, from `first` on, of a matrix that is kept as its lower triangle."""
    for p in range(_BLOCK):
        for i in range(first + p + 1):
            wide[p, i] = matrix[first + p, i]
    for i in range(first, len(matrix)):
        for p in range(min(_BLOCK, i - first)):
            wide[p, i] = matrix[i, first + p]


@_compiled
def _put_block(matrix: Array, first: int, wide: Array, block: Array) -> None:
    """Put rows back, with `block` for their own square."""
    for p in range(_BLOCK):
        for i in range(first):
            matrix[first + p, i] = wide[p, i]
        for q in range(p + 1):
            matrix[first + p, first + q] = block[p, q]
    for i in range(first + _BLOCK, len(matrix)):
        for p in range(_BLOCK):
            matrix[i, first + p] = wide[p, i]


@_compiled
def _sweep_block(block: Array) -> None:
    """Replace a small positive definite matrix by minus its inverse, one pivot after the other."""
    size = len(block)
    for p in range(size):
        reciprocal = 1.0 / block[p, p]
        block[p, p] = 0.0
        for i in range(size):
            factor = block[i, p] * reciprocal
            for j in range(size):
                if i != p and j != p:
                    block[i, j] -= factor * block[p, j]
        for i in range(size):
            block[i, p] *= reciprocal
            block[p, i] *= reciprocal
        block[p, p] = -reciprocal


@_compiled
def _subtract_products(matrix: Array, wide: Array, scaled: Array) -> None:
    """Subtract scaled^T wide from the lower triangle of `matrix`, two rows at once."""
    for i in range(0, len(matrix), 2):
        upper, lower = matrix[i], matrix[i + 1]
        a0, a1, a2, a3 = scaled[0, i], scaled[1, i], scaled[2, i], scaled[3, i]
        b0, b1, b2, b3 = scaled[0, i + 1], scaled[1, i + 1], scaled[2, i + 1], scaled[3, i + 1]
        for j in range(i + 2):
            w0, w1, w2, w3 = wide[0, j], wide[1, j], wide[2, j], wide[3, j]
            upper[j] -= a0 * w0 + a1 * w1 + a2 * w2 + a3 * w3
            lower[j] -= b0 * w0 + b1 * w1 + b2 * w2 + b3 * w3


@_compiled
def _mirror(matrix: Array) -> None:
    for i in range(len(matrix)):
        for j in range(i):
            matrix[j, i] = matrix[i, j]


@_compiled
def _multiply(matrix: Array, vectors: Array, start: int, stop: int, product: Array) -> None:
    """Replace the rows v of `vectors` from `start` to `stop` by -A v for a symmetric A, two at once.

    One row more may change. `product` has room for two.
    """
    size = len(matrix)
    one, other = product[0], product[1]
    for row in range(start, stop, 2):
        first, second = vectors[row], vectors[row + 1]
        for i in range(size):
            one[i] = other[i] = 0.0
        for k in range(0, size, 4):
            a0, a1, a2, a3 = first[k], first[k + 1], first[k + 2], first[k + 3]
            b0, b1, b2, b3 = second[k], second[k + 1], second[k + 2], second[k + 3]
            for i in range(size):
                m0, m1, m2, m3 = matrix[k, i], matrix[k + 1, i], matrix[k + 2, i], matrix[k + 3, i]
                one[i] -= a0 * m0 + a1 * m1 + a2 * m2 + a3 * m3
                other[i] -= b0 * m0 + b1 * m1 + b2 * m2 + b3 * m3
        for i in range(size):
            first[i] = one[i]
            second[i] = other[i]


@_compiled
def fold(
    conductance: Array, word_ohm: float, bit_ohm: float, effective: Array, lines: Array, square: Array,
    block: Array,
) -> None:  # fmt: skip
    """Write the effective matrices of arrays with wires.

    Args:
        conductance: (arrays, rows, columns) siemens, C-contiguous, row 0 nearest to the ground.
        word_ohm, bit_ohm: of every segment of the word and bit lines, above 0.
        effective: (arrays, rows, columns), out.
        lines, square, block: `rooms`.
    """
    arrays, rows, columns = conductance.shape
    size = square.shape[2]
    g, reciprocals, own, found = lines[0], lines[1], lines[2], lines[3]
    left = square[0]  # -P_(j+1)
    wide, scaled, line = square[1], square[2], square[3, 0]
    for array in range(arrays):
        for column in range(columns):
            for row in range(size):  # nodes without devices beyond the free end change nothing
                g[column, row] = conductance[array, row, column] if row < rows else 0.0
            _solve_line(g[column], bit_ohm, reciprocals[column], own[column], found[column])
        for i in range(size):
            for j in range(size):
                left[i, j] = 0.0
        for column in range(columns - 1, -1, -1):
            along = 1.0 if column == columns - 1 else 2.0
            _add_loads(
                left, g[column], reciprocals[column], own[column], word_ohm * bit_ohm, word_ohm, along, line
            )
            _sweep(left, wide, scaled, block)
            _mirror(left)
            _multiply(left, found, column, columns, scaled)
        for row in range(rows):
            for column in range(columns):
                effective[array, row, column] = found[column, row]


def rooms(rows: int, columns: int) -> tuple[Array, Array, Array]:
    """Return what `fold` needs room for besides its result: allocated there, it would take seconds more to compile."""
    size = -(-rows // _BLOCK) * _BLOCK
    return np.zeros((4, columns + 1, size)), np.empty((4, size, size)), np.empty((_BLOCK, _BLOCK))
