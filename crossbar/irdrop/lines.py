"""Owns the arithmetic of one resistive line, which word lines and bit lines share.

Inside this package the nodes of a line are counted from its terminal: word lines from the left, where they are
driven, bit lines from the bottom, where they are grounded. Rows are therefore turned upside down on the way in and
out (`crossbar.irdrop.orientation`); in return both kinds of line obey one equation, and transposing an array
swaps them.

With segments of `r` ohm, devices of `g` siemens from the nodes of the line to nodes at voltages w of the other lines,
and v the voltage of the terminal, Kirchhoff's current law at every node, multiplied by r, is

    (L + r diag(g)) u = r diag(g) w + v e_0,     L = tridiagonal, -1 beside (2, 2, ..., 2, 1).

Multiplied by r, not divided by it: r = 0 is no special case then (u = v along the whole line).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def pivots(conductance: Array, resistance_ohm: float) -> Array:
    """Return the pivots of L + r diag(g), eliminated from the free end of each line towards its terminal.

    Args:
        conductance: (nodes, lines) siemens, node 0 beside the terminal; not negative.
        resistance_ohm: r, of every segment.

    Returns:
        (nodes, lines), each at least 1. Seen from the terminal, a voltage falls by one of them from node to node.
    """
    loads = resistance_ohm * conductance
    found = loads + 2.0
    found[-1] = loads[-1] + 1.0
    for node in range(len(found) - 2, -1, -1):
        found[node] -= 1.0 / found[node + 1]
    return found
