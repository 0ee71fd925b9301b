"""Owns converters: the steps of the DAC, and the range that every ADC is set to.

Ranges are in the units of partial sums: weights times shares of the largest input. "max" is the largest sum that a tile
can give; "calibrated" the largest that calibration vectors gave anywhere in a slice, with head-room; "column" what
`calibration.column_ranges` finds for each bit line of each tile, at most "max". Read noise has no part in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crossbar.planning.calibration import HEADROOM, column_ranges, largest_code
from crossbar.planning.plan import AdcRange
from crossbar.simulation.arrays import Float32


@dataclass(frozen=True, slots=True)
class Converters:
    """ADCs of a stack of S rows with N lines each.

    Attributes:
        dac_levels, adc_levels: steps on either side of 0; 0 where there is no converter.
        steps, per_step: (S, N), one step, and its inverse or 0.
    """

    dac_levels: np.float32
    adc_levels: np.float32
    steps: Float32
    per_step: Float32

    @classmethod
    def of(cls, dac_bits: int | None, adc_bits: int | None, ranges: Float32) -> Converters:
        """Return converters of these bits, the ADCs reaching to +-`ranges` (S, N)."""
        adc_levels = levels(adc_bits)
        steps = (ranges / max(adc_levels, np.float32(1))).astype(np.float32)
        tiny = np.finfo(np.float32).tiny
        return cls(
            dac_levels=levels(dac_bits),
            adc_levels=adc_levels,
            steps=steps,
            per_step=np.divide(1, steps, out=np.zeros_like(steps), where=steps > tiny),
        )


def levels(bits: int | None) -> np.float32:
    """Return the steps of a symmetric converter on either side of 0; 0 without one."""
    return np.float32(0 if bits is None else largest_code(bits))


class RangeFinder:
    """Finds ADC ranges from calibration, one row of the stack after the other.

    Args:
        rows, lines: of the stack.
        group: rows that have one range together if `mode` is "calibrated".
    """

    def __init__(self, mode: AdcRange, bits: int | None, rows: int, lines: int, group: int) -> None:
        self._mode, self._bits, self._group = mode, bits, group
        self._ranges = np.zeros((rows, lines), np.float32)

    @property
    def needs_sums(self) -> bool:
        """True unless the bounds alone say it all."""
        return self._bits is not None and self._mode != "max"

    def add(self, row: int, bound: Float32, partial: Float32 | None) -> None:
        """Consider one row of arrays: the largest sums possible (lines,), and those seen (vectors, lines)."""
        if self._bits is None:
            return
        if self._mode == "max" or partial is None:
            self._ranges[row] = bound
        elif self._mode == "column":
            self._ranges[row] = np.minimum(column_ranges(partial, self._bits), bound)
        else:
            self._ranges[row] = np.abs(partial).max() * np.float32(HEADROOM)

    def ranges(self) -> Float32:
        """Return the ranges (rows, lines) of all ADCs."""
        if self._mode == "calibrated":
            for first in range(0, len(self._ranges), self._group):
                group = self._ranges[first : first + self._group]
                group[...] = group.max()
        return self._ranges
