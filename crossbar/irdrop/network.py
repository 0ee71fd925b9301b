"""Owns what may be said of an array of resistors and its wires: checks it, and turns it terminal first."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from crossbar.errors import NetworkInvalid
from crossbar.irdrop.lines import Array


def terminal_first(values: Array) -> Array:
    """Return a contiguous copy with the rows upside down: the order inside this package, and back."""
    return np.ascontiguousarray(values[..., ::-1, :])


def checked_conductance(conductance_siemens: npt.ArrayLike, dimensions: int) -> npt.NDArray[Any]:
    """Return the conductances as an array with (..., rows, columns), finite, not negative, at least 1 x 1."""
    conductance = _real("conductances", conductance_siemens)
    if conductance.ndim != dimensions or 0 in conductance.shape:
        stacked = "(arrays, rows, columns)" if dimensions > 2 else "(rows, columns)"
        raise NetworkInvalid(
            f"conductances of shape {conductance.shape} are no {stacked}",
            why="an array has at least one word line and one bit line",
        )
    lowest = float(conductance.min())
    if lowest < 0.0:
        at = tuple(int(index) for index in np.unravel_index(int(conductance.argmin()), conductance.shape))
        raise NetworkInvalid(
            f"the conductance at {at} is negative: {lowest:g} S",
            why="a resistor between two wires conducts, or does not",
            hint="Solve the two arrays of a differential pair one after the other.",
        )
    return conductance


def checked_voltages(voltages: npt.ArrayLike, rows: int) -> Array:
    """Return the voltages as float64 (rows, vectors)."""
    checked = _real("voltages", voltages)
    if checked.ndim != 2 or len(checked) != rows:
        raise NetworkInvalid(
            f"voltages of shape {checked.shape} do not drive {rows} word lines",
            why=f"the shape must be ({rows}, vectors)",
            hint="Write voltages[:, None] for a single vector." if checked.ndim == 1 else "",
        )
    return np.asarray(checked, np.float64)


def checked_wires(r_word_ohm: float, r_bit_ohm: float, largest_siemens: float) -> tuple[float, float]:
    """Return both resistances as floats: finite, not negative, and not out of all proportion to the devices."""
    found = []
    for name, value in (("word", r_word_ohm), ("bit", r_bit_ohm)):
        ohm = float(value)
        if not (math.isfinite(ohm) and ohm >= 0.0):
            raise NetworkInvalid(
                f"the segments of {name} lines cannot have {ohm:g} ohm",
                why="a resistance is finite and not negative; 0 is a wire without losses",
            )
        if ohm * largest_siemens > _LARGEST_RATIO:
            raise NetworkInvalid(
                f"segments of {name} lines of {ohm:g} ohm isolate devices of {largest_siemens:g} S",
                why=f"beyond a ratio of {_LARGEST_RATIO:g} no current is left to compute",
            )
        found.append(ohm)
    return found[0], found[1]


# Of a segment's resistance to the least one of a device. Real arrays stay below 1; here every product of a few such
# ratios is still a number, and rounding leaves some digits of the drop along a line.
_LARGEST_RATIO = 1e12


def _real(name: str, values: npt.ArrayLike) -> npt.NDArray[Any]:
    found = np.asarray(values)
    if found.dtype.kind not in "fiub":
        raise NetworkInvalid(f"{name} must be real numbers, not {found.dtype}")
    if not np.isfinite(found).all():
        raise NetworkInvalid(f"{name} must be finite", why="one of them is NaN or infinite")
    return found
