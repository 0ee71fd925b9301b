"""Owns what programming leaves behind: the weights that the arrays of a block really hold, and their noise.

All arrays of a block are one stack of rows of tiles: those of the first slice and replica from top to bottom, then
those of the next. A row of tiles is as wide as the matrix has outputs; where one array ends and the next begins matters
to wires, faults and ranges of products the other way round only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crossbar.mapping.tiling import TileGrid

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Arrays:
    """Programmed arrays, in units of `unit` times the weights' own.

    With S rows in the stack, T word lines of an array and N outputs:

    Attributes:
        grid: how the matrix is cut into tiles.
        unit: a power of two near the largest weight.
        weights: (S, T, N), what each pair of cells contributes to the product; 0 where the last row of tiles has
            no inputs left.
        window: (S, N), the contribution of a cell whose conductance is one window above the other's.
        reach: the largest weight as a share of `window`: 1 for a pair, 1/2 for a cell and its reference.
        read_deviation: standard deviation of one read of a pair as a share of its window, where all pairs are alike;
            0 without read noise.
        variances: (S, T, N), variance of one read of each pair, where they differ; else None.
        second, third: (S, T, N), coefficients of |x| x and x^3 if current does not follow voltage; else None.
        pulses: programming pulses spent.
        stuck: cells under weights that are stuck.
    """

    grid: TileGrid
    unit: float
    weights: Float32
    window: Float32
    reach: float
    read_deviation: float
    variances: Float32 | None
    second: Float32 | None
    third: Float32 | None
    pulses: int
    stuck: int

    @property
    def nbytes(self) -> int:
        held = (self.weights, self.window, self.variances, self.second, self.third)
        return sum(array.nbytes for array in held if array is not None)

    @property
    def copies(self) -> int:
        """Slices times replicas."""
        return len(self.weights) // self.grid.tile_rows

    def multiply_outputs(self, factors: npt.NDArray[np.floating] | float) -> None:
        """Multiply everything that arrives at each output, as a digital gain (outputs,) does."""
        gain = np.asarray(factors, np.float32)
        for array in (self.weights, self.window, self.second, self.third):
            if array is not None:
                array *= gain
        if self.variances is not None:
            self.variances[...] *= np.square(gain)

    def held(self, tile_row: int) -> Float32:
        """Return (inputs of one row of tiles, outputs): the weights that its slices and replicas hold together."""
        inputs = self.grid.input_range(tile_row)
        held: Float32 = self.weights[tile_row :: self.grid.tile_rows, : inputs.stop - inputs.start].sum(
            axis=0
        )
        return held
