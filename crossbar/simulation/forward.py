"""Owns the product W X: word lines driven, bit lines read. One batched GEMM over all rows of arrays, then one kernel.

Panels are (vectors, inputs) float32, in units of at most about 1; products are (vectors, outputs). A vector's numbers
do not depend on its company but for the rounding of the GEMM: where that lifts a partial sum over the edge between
two codes of an ADC, the result differs by one step of it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from crossbar.kernels.reading import CONSTANT_NOISE, GIVEN_NOISE, NO_NOISE, convert_inputs, finish
from crossbar.simulation.arrays import Arrays, Float32
from crossbar.simulation.converters import Converters
from crossbar.simulation.workspace import Workspace

VECTORS_AT_ONCE = 128
"""Columns of X in one GEMM: 256 are 3 % faster, and take twice the memory."""

_OUTPUTS_AT_ONCE = 256  # so that partial sums are still in a cache when they are converted
_SINGLE_VECTORS = 3  # up to here BLAS multiplies one vector after the other faster than all together

_UNUSED = np.zeros((1, 1, 1), np.float32)


class ForwardProducts:
    """Multiplies panels with programmed arrays. Safe to call from several threads at once."""

    def __init__(self, arrays: Arrays, converters: Converters) -> None:
        self._arrays, self._converters, self._workspace = arrays, converters, Workspace()
        self._kind = NO_NOISE
        if arrays.variances is not None:
            self._kind = GIVEN_NOISE
        elif arrays.read_deviation > 0:
            self._kind = CONSTANT_NOISE
        self._noise = arrays.window * np.float32(arrays.read_deviation)

    @property
    def memory_bytes(self) -> int:
        return self._noise.nbytes

    def multiply(self, panel: Float32, keys: npt.NDArray[np.uint64], product: Float32) -> None:
        """Write the product (B, outputs) of `panel` (B, inputs), both C-contiguous; `keys` (B,) are the vectors'."""
        for first in range(0, len(panel), VECTORS_AT_ONCE):
            here = slice(first, first + VECTORS_AT_ONCE)
            self._multiply(panel[here], keys[here], product[here], self._kind)

    def multiply_without_noise(self, panel: Float32) -> Float32:
        """Return the product (B, outputs) that noiseless reads of these very devices would give."""
        product = np.empty((len(panel), self._arrays.grid.outputs), np.float32)
        for first in range(0, len(panel), VECTORS_AT_ONCE):
            here = panel[first : first + VECTORS_AT_ONCE]
            keys = np.zeros(len(here), np.uint64)
            self._multiply(here, keys, product[first : first + VECTORS_AT_ONCE], NO_NOISE)
        return product

    def _multiply(self, panel: Float32, keys: npt.NDArray[np.uint64], product: Float32, kind: int) -> None:
        arrays, converters = self._arrays, self._converters
        lines, norms, scales = self._converted(panel)
        scales *= np.float32(arrays.unit)
        outputs = arrays.grid.outputs
        at_once = outputs if len(panel) <= _SINGLE_VECTORS else _OUTPUTS_AT_ONCE
        variances = _UNUSED
        for column in range(0, outputs, at_once):
            columns = slice(column, min(column + at_once, outputs))
            partial = self._sums("partial", lines, arrays.weights, columns)
            self._add_nonlinear(lines, columns, partial)
            if kind == GIVEN_NOISE and arrays.variances is not None:
                variances = self._sums("variances", np.square(lines), arrays.variances, columns)
            finish(
                partial,
                column,
                kind,
                norms,
                self._noise,
                variances,
                converters.adc_levels,
                converters.steps,
                converters.per_step,
                keys,
                scales,
                product,
            )

    def _converted(self, panel: Float32) -> tuple[Float32, Float32, Float32]:
        """Return what the word lines carry (tile rows, B, lines), its norms (tile rows, B), the scales (B,)."""
        arrays, vectors = self._arrays, len(panel)
        tile_rows = arrays.grid.tile_rows
        lines = self._workspace.array("lines", (tile_rows, vectors, arrays.grid.rows))
        norms = self._workspace.array("norms", (tile_rows, vectors))
        scales = self._workspace.array("scales", (vectors,))
        convert_inputs(panel, self._converters.dac_levels, scales, lines, norms)
        return lines, norms, scales

    def _add_nonlinear(self, lines: Float32, columns: slice, partial: Float32) -> None:
        """Add what currents have beyond Ohm's law to partial sums (S, B, columns)."""
        arrays = self._arrays
        if arrays.second is not None and arrays.third is not None:
            squares = lines * np.abs(lines)
            partial += self._sums("nonlinear", squares, arrays.second, columns)
            partial += self._sums("nonlinear", squares * np.abs(lines), arrays.third, columns)

    def _sums(self, name: str, lines: Float32, stack: Float32, columns: slice) -> Float32:
        """Return (S, B, columns): lines (tile rows, B, T) times a stack (S, T, N); slices and replicas share lines."""
        tile_rows, vectors, width = lines.shape
        held = stack.reshape(-1, tile_rows, width, stack.shape[2])[..., columns]
        shape = (len(held), tile_rows, vectors, columns.stop - columns.start)
        sums = self._workspace.array(name, shape)
        if vectors <= _SINGLE_VECTORS:
            for b in range(vectors):
                np.matmul(lines[:, b : b + 1], held, out=sums[:, :, b : b + 1])
        else:
            np.matmul(lines, held, out=sums)
        return sums.reshape(-1, vectors, shape[3])
