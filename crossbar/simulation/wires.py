"""Owns what resistive wires make of the cells of one row of tiles: each array is folded by itself.

A tile that was assigned to chosen lines is folded on its whole array, whose unused cells conduct the least of the
window. Any other tile is folded as large as it is: arrays are taken to be cut to the remainders at a matrix's edges.
"""

from __future__ import annotations

import itertools

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
    tiles = [grid.output_range(tile_column) for tile_column in range(grid.tile_columns)]
    if has_reference:
        first, second = cells
        parts = [np.hstack((first[:, outputs], second[:, [at]])) for at, outputs in enumerate(tiles)]
    else:
        parts = [filled[:, outputs] for outputs in tiles for filled in cells]
    if placements is None:
        folded = _folded(parts, wires)
    else:
        arrays_of_a_tile = len(parts) // len(tiles)
        placed = [placement for placement in placements for _ in range(arrays_of_a_tile)]
        folded = _folded_in_place(parts, placed, wires, array, idle_siemens)
    for at, outputs in enumerate(tiles):
        width = outputs.stop - outputs.start
        effective[0][:, outputs] = folded[at][:, :width] if has_reference else folded[2 * at]
        effective[1][:, outputs] = folded[at][:, width:] if has_reference else folded[2 * at + 1]
    return effective


def _folded(arrays: list[Float32], wires: tuple[float, float]) -> list[Float32]:
    """Fold arrays, those beside each other that have one shape together."""
    folded: list[Float32] = []
    for _, alike in itertools.groupby(arrays, key=np.shape):
        effective = irdrop.fold_stack(np.stack(list(alike)), *wires, compiled=True)
        folded.extend(np.asarray(effective, np.float32))
    return folded


def _folded_in_place(
    parts: list[Float32],
    placements: list[Placement],
    wires: tuple[float, float],
    array: tuple[int, int],
    idle_siemens: float,
) -> list[Float32]:
    """Fold tiles on whole arrays, where each is on the lines that it was assigned to."""
    wholes, lines = [], []
    for part, placement in zip(parts, placements, strict=True):
        columns = placement.columns
        if part.shape[1] > len(columns):
            columns = np.append(columns, array[1] - 1)  # the reference column is an array's last
        whole = np.full(array, idle_siemens, np.float32)
        whole[placement.rows[:, np.newaxis], columns] = part
        wholes.append(whole)
        lines.append((placement.rows[:, np.newaxis], columns))
    folded = _folded(wholes, wires)
    return [np.ascontiguousarray(whole[at]) for whole, at in zip(folded, lines, strict=True)]
