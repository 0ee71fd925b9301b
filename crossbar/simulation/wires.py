"""Owns what resistive wires make of the cells of one row of tiles: each array is folded by itself.

A tile that was assigned to chosen lines is folded on its whole array, whose unused cells conduct the least of the
window. Any other tile is folded as large as it is: arrays are taken to be cut to the remainders at a matrix's edges.
"""

from __future__ import annotations

import numpy as np

from crossbar import irdrop
from crossbar.mapping.tiling import TileGrid
from crossbar.simulation.arrays import Float32
from crossbar.simulation.placement import Placement


def fold_row(
    cells: list[Float32],
    grid: TileGrid,
    wires: tuple[float, float],
    placements: list[Placement] | None,
    array: tuple[int, int],
    idle_siemens: float,
) -> tuple[Float32, Float32]:
    """Return effective conductances (inputs, outputs) of both polarities.

    Args:
        cells: siemens; two of (inputs, outputs), or one with the reference columns (inputs, tile columns) beside it.
        wires: ohm from cell to cell along word lines and along bit lines.
        placements: of the tiles, if they were assigned to chosen lines.
        array: (rows, columns) of a whole array.
        idle_siemens: what unused cells of an array conduct.
    """
    effective = (np.empty_like(cells[0]), np.empty_like(cells[0]))
    has_reference = cells[1].shape != cells[0].shape
    for tile_column in range(grid.tile_columns):
        outputs = grid.output_range(tile_column)
        parts = [cells[0][:, outputs], cells[1][:, outputs]]
        if has_reference:
            parts = [np.hstack((cells[0][:, outputs], cells[1][:, tile_column : tile_column + 1]))]
        placement = None if placements is None else placements[tile_column]
        folded = [_fold(part, wires, placement, array, idle_siemens) for part in parts]
        width = outputs.stop - outputs.start
        effective[0][:, outputs] = folded[0][:, :width]
        effective[1][:, outputs] = folded[0][:, width:] if has_reference else folded[1]
    return effective


def _fold(
    part: Float32,
    wires: tuple[float, float],
    placement: Placement | None,
    array: tuple[int, int],
    idle_siemens: float,
) -> Float32:
    if placement is None:
        return np.asarray(irdrop.fold(part, *wires), np.float32)
    columns = placement.columns
    if part.shape[1] > len(columns):
        columns = np.append(columns, array[1] - 1)  # the reference column is an array's last
    whole = np.full(array, idle_siemens, np.float32)
    whole[placement.rows[:, np.newaxis], columns] = part
    folded = np.asarray(irdrop.fold(whole, *wires), np.float32)
    return np.ascontiguousarray(folded[placement.rows[:, np.newaxis], columns])
