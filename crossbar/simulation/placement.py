"""Owns where the cells of one row of tiles are on their arrays, and which of them are stuck.

Draws the fault map of every array, has `crossbar.mapping` choose lines around the faults and make up for them, and
sticks cells after they were programmed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crossbar.devices.profile import DeviceProfile
from crossbar.mapping.assignment import assign
from crossbar.mapping.encoding import Window
from crossbar.mapping.faults import HEALTHY, STUCK_ON, FaultMap, compensated, fault_map
from crossbar.mapping.tiling import TileGrid
from crossbar.planning.plan import Plan
from crossbar.simulation.arrays import Float32

FILLING = Window(0.0, 1.0)
"""Cells as shares of their window."""

Lines = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Placement:
    """One tile on its array (or pair of arrays).

    Attributes:
        outputs: the matrix's outputs that the tile holds.
        rows, columns: the word line of each input and the bit line of each output.
        faults: (polarities, inputs, outputs), those that the weights meet.
        reference_faults: (inputs,), those of an offset encoding's reference column; else None.
    """

    outputs: slice
    rows: Lines
    columns: Lines
    faults: FaultMap
    reference_faults: FaultMap | None

    def stick(self, cells: list[Float32], tile_column: int) -> int:
        """Set the stuck ones among `cells` (one array a polarity) to what they conduct; return how many there are."""
        for filled, faults in zip(cells, self.faults, strict=False):
            _stick(filled[:, self.outputs], faults)
        if self.reference_faults is not None:
            _stick(cells[1][:, tile_column], self.reference_faults)
        return int(np.count_nonzero(self.faults))


def place(
    targets: Float32,
    window: Float32,
    grid: TileGrid,
    profile: DeviceProfile,
    plan: Plan,
    seed: int,
    array: tuple[int, int, int],
) -> list[Placement]:
    """Place the tiles of one row, and change `targets` where the partner of a stuck cell makes up for it.

    Args:
        targets: (polarities, inputs, outputs), as shares of the window.
        window: (outputs,), what a full window means to each output.
        array: slice, replica and tile row, which tell these arrays from others of the same seed.
    """
    polarities, inputs, _ = targets.shape
    bit_lines = plan.columns - (plan.encoding == "offset")
    placements = []
    for tile_column in range(grid.tile_columns):
        outputs = grid.output_range(tile_column)
        tile = targets[:, :, outputs]
        slice_, replica, tile_row = array
        faults = np.stack(
            [
                fault_map(
                    seed, slice_, replica, polarity, tile_row, tile_column,
                    rows=plan.rows, columns=plan.columns,
                    stuck_on_rate=profile.stuck_on_rate, stuck_off_rate=profile.stuck_off_rate,
                )
                for polarity in range(polarities)
            ]
        )  # fmt: skip
        rows, columns, reference_column = np.arange(inputs), np.arange(tile.shape[2]), tile.shape[2]
        if plan.assignment != "none":
            found = assign(
                tile,
                faults[:, :, :bit_lines],
                FILLING,
                weight_per_siemens=window[outputs].astype(np.float64),
                partner_compensation=plan.partner_compensation,
                rows_too=plan.assignment == "rows_and_columns",
            )
            rows, columns, reference_column = found.rows, found.columns, bit_lines
        met = faults[:, rows[:, np.newaxis], columns]
        if plan.partner_compensation:
            tile[:] = compensated(tile, met, FILLING)
        reference = faults[0, rows, reference_column] if plan.encoding == "offset" else None
        placements.append(Placement(outputs, rows, columns, met, reference))
    return placements


def _stick(filled: Float32, faults: FaultMap) -> None:
    stuck = faults != HEALTHY
    filled[stuck] = faults[stuck] == STUCK_ON
