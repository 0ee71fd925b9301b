"""Owns what a block costs: cells, pulses, and conversions and reads for every vector. Counts; knows no joules.

An array is driven and read once for a vector, whatever its zeros are.
"""

from __future__ import annotations

from dataclasses import dataclass

from crossbar.mapping.tiling import TileGrid
from crossbar.planning.plan import Plan
from crossbar.simulation.arrays import Arrays


@dataclass(frozen=True, slots=True)
class Report:
    """What one programmed block takes. All figures are 0 for a block that is digital.

    Attributes:
        arrays: crossbar arrays; a pair of arrays with subtracted currents counts as two.
        cells_used: those that hold a weight: all its slices and both cells of a pair, no replicas.
        cells_allocated: those of all arrays, spares, replicas and remainders included.
        cells_stuck: stuck ones among those under weights.
        programming_pulses: spent on programming, reference columns included.
        digital_weights: weights that digital arithmetic corrects, or all of them if the block is digital.
        dac_conversions: for each vector: one for every word line driven; a pair, and tiles beside each other, share it.
        adc_conversions: for each vector: one for every bit line of every tile; a pair has one.
        cell_reads: for each vector: cells whose current is summed, reference columns included.
        programmed_bytes: memory of this process that the block takes.
    """

    arrays: int
    cells_used: int
    cells_allocated: int
    cells_stuck: int
    programming_pulses: int
    digital_weights: int
    dac_conversions: int
    adc_conversions: int
    cell_reads: int
    programmed_bytes: int

    @property
    def utilisation(self) -> float:
        """Cells used / cells allocated; 1 if nothing is allocated."""
        return self.cells_used / self.cells_allocated if self.cells_allocated else 1.0

    @classmethod
    def of(cls, arrays: Arrays, plan: Plan, *, digital_weights: int, memory_bytes: int) -> Report:
        """Count a block on arrays."""
        grid = arrays.grid
        weights = grid.outputs * grid.inputs
        polarities = 2 if plan.encoding == "differential" else 1
        count = grid.tiles * polarities * arrays.copies
        references = 0 if polarities == 2 else grid.inputs * grid.tile_columns
        return cls(
            arrays=count,
            cells_used=weights * polarities * plan.slices,
            cells_allocated=count * plan.rows * plan.columns,
            cells_stuck=arrays.stuck,
            programming_pulses=arrays.pulses,
            digital_weights=digital_weights,
            dac_conversions=grid.inputs * arrays.copies,
            adc_conversions=grid.tile_rows * grid.outputs * arrays.copies,
            cell_reads=(weights * polarities + references) * arrays.copies,
            programmed_bytes=memory_bytes,
        )

    @classmethod
    def digital(cls, grid: TileGrid) -> Report:
        """Count a block without arrays."""
        return cls(0, 0, 0, 0, 0, grid.outputs * grid.inputs, 0, 0, 0, 0)
