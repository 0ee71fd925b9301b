"""Owns the iterative solution: fast for a few vectors, to a tolerance. The arithmetic is compiled on first need."""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from crossbar.irdrop.lines import Array

# Steps to 1e-9 grow with the root of how far wires outweigh devices: 4 where a third of the current is lost (128 x 128
# at 1 ohm), 23 where 98 % are (512 x 512 at 10 ohm), 53 where 99.7 % are. A vector that is not done by 500 wants more
# digits than float64 has.
STEPS_MAX = 500

_KEPT_BYTES = 8 << 20  # for each thread: the room for 256 x 256; on larger arrays new pages hardly count
_kept = threading.local()


def currents(
    conductance: Array, voltages: Array, word_ohm: float, bit_ohm: float, tolerance: float
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Return the currents (columns, vectors) in amperes, and which vectors reached the tolerance.

    Every vector is solved by itself: its currents do not depend on what others are asked for with it.

    Args:
        conductance: (rows, columns) siemens, row 0 nearest to the ground, C-contiguous.
        voltages: (rows, vectors) volts, in the same order of rows.
        word_ohm: of every segment of the word lines; may be 0.
        bit_ohm: of every segment of the bit lines; may be 0.
        tolerance: estimated error of the voltage of any node, relative to the largest voltage applied.
    """
    from crossbar.kernels.relaxation import relax

    driven = np.ascontiguousarray(voltages.T)
    found, steps = relax(
        conductance, driven, word_ohm, bit_ohm, tolerance, STEPS_MAX, _room(conductance.size)
    )
    return np.ascontiguousarray(found.T), steps >= 0


def _room(devices: int) -> Array:
    """Return room for the kernel, this thread's own: fresh pages cost as much as the solution itself."""
    from crossbar.kernels.relaxation import ROOM

    kept: Array | None = getattr(_kept, "room", None)
    if kept is not None and kept.shape[1] == devices:
        return kept
    room = np.empty((ROOM, devices))
    if room.nbytes <= _KEPT_BYTES:
        _kept.room = room
    return room
