"""Owns the trial that follows programming: calibration vectors are sent through the arrays to set ADC ranges.

Read noise has no part in it.
"""

from __future__ import annotations

import numpy as np

from crossbar.devices.profile import DeviceProfile
from crossbar.kernels.reading import convert_inputs
from crossbar.planning.plan import Plan
from crossbar.simulation.arrays import Arrays, Float32
from crossbar.simulation.converters import RangeFinder, levels


def adc_ranges(arrays: Arrays, profile: DeviceProfile, plan: Plan, panel: Float32) -> Float32:
    """Return the ranges (S, outputs) of the ADCs, in the units of `Arrays.weights`.

    Args:
        panel: calibration vectors (vectors, inputs), C-contiguous.
    """
    grid, rows, vectors = arrays.grid, len(arrays.weights), len(panel)
    group = grid.tile_rows * plan.replicas  # a slice has one calibrated range
    finder = RangeFinder(plan.adc_range, profile.adc_bits, rows, grid.outputs, group)
    lines = np.empty((grid.tile_rows, vectors, grid.rows), np.float32)
    norms = np.empty((grid.tile_rows, vectors), np.float32)
    scales = np.empty(vectors, np.float32)
    convert_inputs(panel, levels(profile.dac_bits), scales, lines, norms)
    for row in range(rows):
        partial = _partial_sums(arrays, row, lines[row % grid.tile_rows]) if finder.needs_sums else None
        finder.add(row, np.float32(grid.rows * arrays.reach) * arrays.window[row], partial)
    return finder.ranges()


def _partial_sums(arrays: Arrays, row: int, lines: Float32) -> Float32:
    partial: Float32 = lines @ arrays.weights[row]
    if arrays.second is not None and arrays.third is not None:
        squares = lines * np.abs(lines)
        partial += squares @ arrays.second[row]
        partial += (squares * np.abs(lines)) @ arrays.third[row]
    return partial
