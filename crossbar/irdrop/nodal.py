"""Owns the exact solution: every node of an array in one sparse system of linear equations.

Two nodes for each device, one on its word line and one on its bit line; see `crossbar.irdrop.lines` for the equations
and the order of nodes. Modified nodal analysis: Ho, Ruehli, Brennan, IEEE Trans. Circuits Syst. 22 (1975) 504.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from crossbar.irdrop.lines import Array

if TYPE_CHECKING:
    from scipy.sparse import csc_array

# Right-hand sides and solutions held at once: two of them of this size are small beside the factors of an array.
_PANEL_BYTES = 16 << 20


def currents(conductance: Array, voltages: Array, word_ohm: float, bit_ohm: float) -> Array:
    """Return the currents (columns, vectors) in amperes at the feet of the bit lines.

    Args:
        conductance: (rows, columns) siemens, row 0 nearest to the ground.
        voltages: (rows, vectors) volts, in the same order of rows.
        word_ohm: of every segment of the word lines; may be 0.
        bit_ohm: of every segment of the bit lines; may be 0.
    """
    from scipy.sparse.linalg import splu

    rows, columns = conductance.shape
    devices = rows * columns
    # Diagonally dominant by rows, so that no pivoting is needed and the pattern alone decides the order.
    factors = splu(
        system(conductance, word_ohm, bit_ohm),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    found = np.empty((columns, voltages.shape[1]))
    block = max(1, _PANEL_BYTES // (2 * devices * voltages.itemsize))
    for start in range(0, voltages.shape[1], block):
        panel = voltages[:, start : start + block]
        driven = np.zeros((2 * devices, panel.shape[1]))
        driven[0:devices:columns] = panel
        nodes = factors.solve(driven).reshape(2, rows, columns, -1)
        found[:, start : start + block] = np.einsum("ij,ijv->jv", conductance, nodes[0] - nodes[1])
    return found


def system(conductance: Array, word_ohm: float, bit_ohm: float) -> csc_array:
    """Return the matrix of the equations of all nodes: first those on word lines, then those on bit lines.

    Shape (2 rows columns, 2 rows columns); within each half the nodes follow the devices row by row.
    """
    from scipy.sparse import block_array, csc_array, diags_array, eye_array, kron

    rows, columns = conductance.shape
    devices = diags_array(conductance.ravel())
    along_words = kron(eye_array(rows), _line(columns))
    along_bits = kron(_line(rows), eye_array(columns))
    return csc_array(
        block_array(
            [
                [along_words + word_ohm * devices, -word_ohm * devices],
                [-bit_ohm * devices, along_bits + bit_ohm * devices],
            ]
        )
    )


def _line(nodes: int) -> csc_array:
    """Return L of `crossbar.irdrop.lines`."""
    from scipy.sparse import csc_array, diags_array

    diagonal = np.full(nodes, 2.0)
    diagonal[-1] = 1.0
    beside = np.full(nodes - 1, -1.0)
    return csc_array(diags_array([beside, diagonal, beside], offsets=[-1, 0, 1], shape=(nodes, nodes)))
