"""Owns the product W^T X: bit lines driven, word lines read, one array after the other.

The same cells, wires and noise as forwards (a resistive network's transfer conductances are the same both ways). Where
every tile column has a scale of its own, it is multiplied to its input before the DAC, so that currents add up alike.
Panels are (vectors, outputs) float32; products are (vectors, inputs) float64, summed over tiles in their order.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from crossbar.kernels.reading import CONSTANT_NOISE, GIVEN_NOISE, NO_NOISE, convert_inputs, finish
from crossbar.planning.calibration import calibration_vectors
from crossbar.planning.plan import AdcRange
from crossbar.simulation.arrays import Arrays, Float32
from crossbar.simulation.converters import Converters, RangeFinder, levels
from crossbar.simulation.forward import VECTORS_AT_ONCE

_UNUSED = np.zeros((1, 1, 1), np.float32)


class BackwardProducts:
    """Multiplies panels with programmed arrays from their bit lines. Safe to call from several threads at once.

    The ADCs of the word lines are calibrated at the first product.
    """

    def __init__(
        self,
        arrays: Arrays,
        dac_bits: int | None,
        adc_bits: int | None,
        adc_range: AdcRange,
        seed: int,
    ) -> None:
        self._arrays, self._seed = arrays, seed
        self._dac_levels, self._adc_bits, self._adc_range = levels(dac_bits), adc_bits, adc_range
        self._calibrating = threading.Lock()
        self._converters: list[Converters] | None = None
        self._kind = NO_NOISE
        if arrays.variances is not None:
            self._kind = GIVEN_NOISE
        elif arrays.read_deviation > 0:
            self._kind = CONSTANT_NOISE
        shape = (arrays.grid.tile_columns, arrays.grid.rows)
        self._noise = np.full(shape, arrays.read_deviation, np.float32)

    def multiply(
        self, panel: Float32, keys: npt.NDArray[np.uint64], product: npt.NDArray[np.float64]
    ) -> None:
        """Add the product (B, inputs) of `panel` (B, outputs) to `product`; `keys` (B,) are the vectors'."""
        for first in range(0, len(panel), VECTORS_AT_ONCE):
            here = slice(first, first + VECTORS_AT_ONCE)
            self._multiply(panel[here], keys[here], product[here])

    def _multiply(
        self, panel: Float32, keys: npt.NDArray[np.uint64], product: npt.NDArray[np.float64]
    ) -> None:
        arrays, converters = self._arrays, self._calibrated()
        for row in range(len(arrays.weights)):
            lines, norms, scales = self._converted(panel, row)
            partial = self._partial_sums(row, lines)
            variances = _UNUSED if arrays.variances is None else self._variances(row, lines)
            share = np.empty((len(panel), arrays.grid.rows), np.float32)
            finish(
                partial,
                0,
                self._kind,
                norms,
                self._noise,
                variances,
                converters[row].adc_levels,
                converters[row].steps,
                converters[row].per_step,
                _row_keys(keys, row),
                scales,
                share,
            )
            inputs = arrays.grid.input_range(row % arrays.grid.tile_rows)
            product[:, inputs] += share[:, : inputs.stop - inputs.start].astype(np.float64) * arrays.unit

    def _converted(self, panel: Float32, row: int) -> tuple[Float32, Float32, Float32]:
        """Return what bit lines carry (tile columns, B, columns), its norms (tile columns, B), the scales (B,)."""
        grid, vectors = self._arrays.grid, len(panel)
        lines = np.empty((grid.tile_columns, vectors, grid.columns), np.float32)
        norms = np.empty((grid.tile_columns, vectors), np.float32)
        scales = np.empty(vectors, np.float32)
        convert_inputs(panel * self._arrays.window[row], self._dac_levels, scales, lines, norms)
        return lines, norms, scales

    def _partial_sums(self, row: int, lines: Float32) -> Float32:
        """Return what word lines carry (tile columns, B, T) from one row of the stack."""
        arrays = self._arrays
        partial = self._sums(row, lines, arrays.weights, 1)
        if arrays.second is not None and arrays.third is not None:
            squares = lines * np.abs(lines)
            partial += self._sums(row, squares, arrays.second, 1)
            partial += self._sums(row, squares * np.abs(lines), arrays.third, 1)
        return partial

    def _variances(self, row: int, lines: Float32) -> Float32:
        assert self._arrays.variances is not None
        return self._sums(row, np.square(lines), self._arrays.variances, 2)

    def _sums(self, row: int, lines: Float32, stack: Float32, power: int) -> Float32:
        """Return lines times one row of a stack, whose columns are brought to a window of 1."""
        arrays, grid = self._arrays, self._arrays.grid
        window = arrays.window[row] ** power
        per_window = np.divide(1, window, out=np.zeros_like(window), where=window > 0)
        sums = np.empty((grid.tile_columns, lines.shape[1], grid.rows), np.float32)
        for tile_column in range(grid.tile_columns):
            outputs = grid.output_range(tile_column)
            driven = lines[tile_column, :, : outputs.stop - outputs.start] * per_window[outputs]
            np.matmul(driven, stack[row, :, outputs].T, out=sums[tile_column])
        return sums

    def _calibrated(self) -> list[Converters]:
        """Return the converters of every row of the stack."""
        with self._calibrating:
            if self._converters is None:
                self._converters = self._calibrate()
            return self._converters

    def _calibrate(self) -> list[Converters]:
        arrays, grid = self._arrays, self._arrays.grid
        rows = len(arrays.weights)
        finder = RangeFinder(
            self._adc_range, self._adc_bits, rows * grid.tile_columns, grid.rows, rows * grid.tile_columns
        )
        panel = np.ascontiguousarray(calibration_vectors(grid.outputs, seed=self._seed).T)
        bound = np.full(grid.rows, min(grid.columns, grid.outputs) * arrays.reach, np.float32)
        for row in range(rows):
            sums = self._partial_sums(row, self._converted(panel, row)[0]) if finder.needs_sums else None
            for tile_column in range(grid.tile_columns):
                seen = None if sums is None else sums[tile_column]
                finder.add(row * grid.tile_columns + tile_column, bound, seen)
        ranges = finder.ranges().reshape(rows, grid.tile_columns, grid.rows)
        return [Converters.of(None, self._adc_bits, each) for each in ranges]


def _row_keys(keys: npt.NDArray[np.uint64], row: int) -> npt.NDArray[np.uint64]:
    """Return keys for one row of the stack: streams of the way back, of which `finish` numbers tile columns."""
    from crossbar.kernels.randomness import extend_all

    extended = np.empty_like(keys)
    extend_all(keys, np.uint64((1 << 32) + row), extended)
    return extended
