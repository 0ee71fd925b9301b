"""Owns the effective matrix of an array: M with I = V^T M, the wires of the array folded into its conductances.

An array of resistors is linear, so M says everything about it. It is found by block elimination of the word lines'
nodes, column by column, from the free end to the driven one (a discrete Riccati recursion), in
O(rows^3 columns). Rows are in the order of `crossbar.irdrop.lines`.

With the bit line of column j solved, its devices load the word lines by Y_j = D - r_b D S^-1 D and drain the current
c_j^T u_j, where D = diag(g_j), S = L + r_b D, c_j = D S^-1 e_0. Then u_j = P_j u_(j-1), with u_(-1) = V and

    P_j = (2 I + r_w Y_j - P_(j+1))^-1,  P_last = (I + r_w Y_last)^-1,  M[:, j] = P_0 P_1 ... P_j c_j.

The network is reciprocal: exchanging its word and bit lines transposes M, so the shorter side is eliminated.

Two implementations: LAPACK, here, takes a few arrays at once; compiled kernels take many small ones in less time, once
they are there.
"""

from __future__ import annotations

import numpy as np

from crossbar.irdrop.lines import Array, pivots
from crossbar.threads import one_blas_thread

# exp(600) and its reciprocal are numbers with room to spare: up to here a product of pivots and its reciprocal are.
_LARGEST_EXPONENT = 600.0


def effective_conductance(conductance: Array, word_ohm: float, bit_ohm: float) -> Array:
    """Return M (rows, columns) in siemens for conductances (rows, columns), row 0 nearest to the ground."""
    rows, columns = conductance.shape
    if word_ohm == 0.0:  # every device sees V itself
        return conductance / np.cumprod(pivots(conductance, bit_ohm), axis=0)
    if bit_ohm == 0.0 or rows > columns:
        return effective_conductance(np.ascontiguousarray(conductance.T), bit_ohm, word_ohm).T
    import scipy.linalg.blas  # noqa: F401 - limits hold for libraries that are loaded

    with one_blas_thread():
        return _eliminated(conductance, word_ohm, bit_ohm)


def effective_conductances(conductance: Array, word_ohm: float, bit_ohm: float) -> Array:
    """Return M of many arrays (arrays, rows, columns), found by compiled kernels."""
    _, rows, columns = conductance.shape
    if word_ohm == 0.0 or bit_ohm == 0.0:  # nothing that takes time
        return np.stack([effective_conductance(array, word_ohm, bit_ohm) for array in conductance])
    if rows > columns:
        return _turned(effective_conductances(_turned(conductance), bit_ohm, word_ohm))
    from crossbar.kernels import folding

    effective = np.empty_like(conductance)
    folding.fold(conductance, word_ohm, bit_ohm, effective, *folding.rooms(rows, columns))
    return effective


def _turned(arrays: Array) -> Array:
    return np.ascontiguousarray(arrays.transpose(0, 2, 1))


def _eliminated(conductance: Array, word_ohm: float, bit_ohm: float) -> Array:
    """Return M by eliminating columns, the last first. Symmetric matrices are kept as their upper triangles."""
    from scipy.linalg.blas import dsymm
    from scipy.linalg.lapack import dpotrf, dpotri

    rows, columns = conductance.shape
    factors = pivots(conductance, bit_ohm)
    decay = np.cumsum(np.log(factors), axis=0)
    drained = conductance * np.exp(-decay)
    own = _inverse_diagonals(factors)
    effective = np.empty((rows, columns), order="F")
    left = np.zeros((rows, rows), order="F")  # P_(j+1)
    for column in range(columns - 1, -1, -1):
        g = conductance[:, column]
        left += _shared(g, own[:, column], decay[:, column], word_ohm * bit_ohm)
        np.negative(left, out=left)
        np.einsum("ii->i", left)[:] += (1.0 if column == columns - 1 else 2.0) + word_ohm * g
        triangle, failed = dpotrf(left, lower=0, clean=0, overwrite_a=1)
        assert not failed, "a passive network has a positive definite matrix"
        left, failed = dpotri(triangle, lower=0, overwrite_c=1)
        assert not failed
        effective[:, column] = drained[:, column]
        effective[:, column:] = dsymm(1.0, left, effective[:, column:], lower=0)
    return effective


def _inverse_diagonals(factors: Array) -> Array:
    """Return the diagonals of S^-1, one column per line, from the pivots of S: sums of positive terms only."""
    reciprocals = 1.0 / factors
    squares = np.square(reciprocals)
    for node in range(1, len(factors)):
        reciprocals[node] += squares[node] * reciprocals[node - 1]
    return reciprocals


def _shared(conductance: Array, own: Array, decay: Array, scale: float) -> Array:
    """Return scale D S^-1 D for one bit line, in the upper triangle; what stands below it means nothing.

    S^-1 is semiseparable: S^-1_ik = S^-1_ii exp(decay_i - decay_k) for i <= k.
    """
    near = scale * own * conductance
    if decay[-1] < _LARGEST_EXPONENT:
        return np.outer(conductance * np.exp(-decay), near * np.exp(decay)).T
    falls = np.exp(np.minimum(decay[:, None] - decay[None, :], 0.0))
    return near[:, None] * falls * conductance[None, :]
