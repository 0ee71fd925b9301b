"""IR drop: what the resistance of its wires does to the currents of an array.

Word lines are driven from the left and bit lines grounded at the bottom, each through one segment of wire; one segment
of the same resistance lies between neighbouring devices. Conductances (rows, columns) in siemens: row i is word line i
from the top, column j is bit line j from the left.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from crossbar.errors import NetworkInvalid
from crossbar.irdrop import folding, nodal, relaxation
from crossbar.irdrop.lines import Array
from crossbar.irdrop.network import checked_conductance, checked_voltages, checked_wires, terminal_first

__all__ = ["Method", "fold", "fold_stack", "is_worth_folding", "solve"]

Method = Literal["auto", "exact", "relaxation", "folded"]

# Folding takes longer * shorter^3 and is ahead of the sparse solution up to here, even for one vector.
_FOLDED_SIDE_MAX = 512

# Devices of the arrays that are folded in one go: their copies in float64 are then small beside a row of tiles.
_FOLDED_TOGETHER = 1 << 17


def solve(
    conductance_siemens: npt.ArrayLike,
    voltages: npt.ArrayLike,
    r_word_ohm: float,
    r_bit_ohm: float,
    *,
    method: Method = "auto",
    tolerance: float = 1e-9,
) -> Array:
    """Return the currents (columns, vectors), float64 amperes, that flow into the ground at the feet of the bit lines.

    Args:
        conductance_siemens: (rows, columns); 0 is an open device.
        voltages: (rows, vectors) volts at the left ends of the word lines, of any sign.
        r_word_ohm: of every segment of the word lines; 0 is a wire without losses.
        r_bit_ohm: of every segment of the bit lines; 0 is a wire without losses.
        method: "exact" solves a sparse system of all nodes; "folded" computes the effective matrix of the array and
            multiplies with it, also exact; "auto" takes the faster of these two. "relaxation" iterates vector by
            vector, some fifty times faster for one vector; those which do not reach the tolerance are solved exactly.
        tolerance: of "relaxation" alone: the error of the voltage of any node, relative to the largest voltage of its
            vector. A current is then wrong by no more than that voltage times the conductance of its column.

    Raises:
        NetworkInvalid: shapes that do not fit, negative or non-finite values, an unknown method.
    """
    if method not in get_args(Method):
        raise NetworkInvalid(
            f"no method is called {method!r}", hint="Choose one of: " + ", ".join(get_args(Method))
        )
    if not (math.isfinite(tolerance) and tolerance > 0.0):
        raise NetworkInvalid(f"a tolerance must be positive, not {tolerance:g}")
    checked = checked_conductance(conductance_siemens, dimensions=2)
    driven = terminal_first(checked_voltages(voltages, len(checked)))
    wires = checked_wires(r_word_ohm, r_bit_ohm, float(checked.max()))
    array = terminal_first(checked.astype(np.float64, copy=False))
    if method == "relaxation":
        currents, done = relaxation.currents(array, driven, *wires, tolerance)
        if not done.all():
            currents[:, ~done] = _exact(array, driven[:, ~done], *wires)
        return currents
    if method == "exact":
        return nodal.currents(array, driven, *wires)
    if method == "folded":
        return _folded(array, driven, *wires)
    return _exact(array, driven, *wires)


def fold(
    conductance_siemens: npt.ArrayLike, r_word_ohm: float, r_bit_ohm: float
) -> npt.NDArray[np.floating[Any]]:
    """Return the effective conductances M (rows, columns) in siemens: the currents are M^T V, losses included.

    Computed in float64; returned in the dtype of the conductances if that is float32. See `solve` for arguments and
    errors.
    """
    checked = checked_conductance(conductance_siemens, dimensions=2)
    folded: npt.NDArray[np.floating[Any]] = fold_stack(checked[np.newaxis], r_word_ohm, r_bit_ohm)[0]
    return folded


def fold_stack(
    conductance_siemens: npt.ArrayLike, r_word_ohm: float, r_bit_ohm: float, *, compiled: bool = False
) -> npt.NDArray[np.floating[Any]]:
    """Fold many arrays of one shape, (arrays, rows, columns), each as `fold` does.

    Args:
        compiled: by kernels, in a twentieth of the time for arrays of 16 x 16 and two thirds of it for 128 x 128.
            Compiling them first takes seconds. Results differ by rounding.
    """
    checked = checked_conductance(conductance_siemens, dimensions=3)
    wires = checked_wires(r_word_ohm, r_bit_ohm, float(checked.max()))
    effective = np.empty(checked.shape, np.float32 if checked.dtype == np.float32 else np.float64)
    together = max(1, _FOLDED_TOGETHER // checked[0].size) if compiled else 1
    for first in range(0, len(checked), together):
        here = slice(first, first + together)
        arrays = terminal_first(checked[here].astype(np.float64, copy=False))
        if compiled:
            folded = folding.effective_conductances(arrays, *wires)
        else:
            folded = folding.effective_conductance(arrays[0], *wires)[np.newaxis]
        effective[here] = terminal_first(folded)
    return effective


def is_worth_folding(vectors: int, rows: int, columns: int) -> bool:
    """True if folding an array takes less time than relaxing this many vectors on it.

    Fitted to arrays of 64 to 256 rows at 1 ohm and a tolerance of 1e-6 (`scripts/bench/crossbar/irdrop.py`): a folded
    column takes 40 us + 0.15 ns side^3 with the shorter side, relaxation 30 ns for each device and vector.
    """
    side = min(rows, columns)
    return vectors * side * 30e-9 >= 40e-6 + 0.15e-9 * side**3


def _exact(array: Array, driven: Array, word_ohm: float, bit_ohm: float) -> Array:
    if min(array.shape) <= _FOLDED_SIDE_MAX or word_ohm == 0.0 or bit_ohm == 0.0:
        return _folded(array, driven, word_ohm, bit_ohm)
    return nodal.currents(array, driven, word_ohm, bit_ohm)


def _folded(array: Array, driven: Array, word_ohm: float, bit_ohm: float) -> Array:
    currents: Array = folding.effective_conductance(array, word_ohm, bit_ohm).T @ driven
    return currents
