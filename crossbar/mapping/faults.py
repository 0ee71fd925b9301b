"""Owns stuck devices: where they are, what they conduct, and how the healthy cell of a pair makes up for them.

A fault map is an int8 array shaped like the conductances it belongs to. Faults do not depend on what is programmed:
the same seed gives an array the same faults for life.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from crossbar import randomness
from crossbar.engine import FloatArray
from crossbar.mapping.encoding import Window

FaultMap = npt.NDArray[np.int8]

HEALTHY = 0
STUCK_ON = 1
"""The device conducts as much as it can, whatever is written."""
STUCK_OFF = 2
"""The device conducts as little as it can, whatever is written."""


def fault_map(
    seed: int, *array: int, rows: int, columns: int, stuck_on_rate: float, stuck_off_rate: float
) -> FaultMap:
    """Return the faults (rows, columns) of one array of devices, all of its lines included.

    Args:
        array: whole numbers that tell this array from others of the same seed: slice, replica, polarity, tile row
            and tile column, for instance.
        stuck_on_rate, stuck_off_rate: the probability of each fault, of every device on its own.
    """
    if not stuck_on_rate and not stuck_off_rate:
        return np.zeros((rows, columns), np.int8)
    draws = randomness.uniforms(randomness.key(seed, randomness.FAULTS, *array), rows * columns)
    faults = np.zeros(rows * columns, np.int8)
    faults[draws < stuck_on_rate + stuck_off_rate] = STUCK_OFF
    faults[draws < stuck_on_rate] = STUCK_ON
    return faults.reshape(rows, columns)


def fault_digest(faults: FaultMap) -> bytes:
    """Return 16 bytes that change when faults do."""
    shape = ",".join(map(str, faults.shape)).encode()
    return hashlib.blake2b(shape + b";" + faults.tobytes(), digest_size=16).digest()


def with_faults(conductance: FloatArray, faults: FaultMap, window: Window) -> FloatArray:
    """Return what devices of these faults conduct when `conductance` (siemens, any shape) has been written."""
    result = conductance.copy()
    result[faults == STUCK_ON] = window.maximum_siemens
    result[faults == STUCK_OFF] = window.minimum_siemens
    return result


def compensated(targets: FloatArray, faults: FaultMap, window: Window) -> FloatArray:
    """Return new targets in which the healthy cell of a half-stuck pair restores the pair's difference.

    It is clipped to the window: a weight is lost if the cell that should hold it is stuck off, or the idle one stuck
    on. Nothing needs to be rounded to levels again, since a stuck device is at one.

    Args:
        targets, faults: (..., 2, inputs, outputs), the cells of positive weights first.
    """
    if targets.ndim < 3 or targets.shape[-3] != 2 or targets.shape != faults.shape:
        raise ValueError(
            f"pairs of cells and their faults were expected, not {targets.shape}, {faults.shape}"
        )
    result = targets.copy()
    for cell, partner in ((0, 1), (1, 0)):
        half_stuck = np.nonzero(
            (faults[..., cell, :, :] == HEALTHY) & (faults[..., partner, :, :] != HEALTHY)
        )
        stuck_on = faults[..., partner, :, :][half_stuck] == STUCK_ON
        stuck = np.where(stuck_on, window.maximum_siemens, window.minimum_siemens)
        difference = targets[..., cell, :, :][half_stuck] - targets[..., partner, :, :][half_stuck]
        restored = np.clip(stuck + difference, window.minimum_siemens, window.maximum_siemens)
        result[..., cell, :, :][half_stuck] = restored
    return result
