"""Owns the tile that stands for all others where something has to be tried rather than computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from crossbar.mapping.tiling import TileGrid

if TYPE_CHECKING:
    from crossbar.planning.plan import Plan
    from crossbar.planning.statistics import BlockStatistics


def sample_tile(
    statistics: BlockStatistics, plan: Plan
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the weights (inputs, outputs) of a full tile from the middle of the block, and E[x^2] of its inputs."""
    grid = TileGrid(statistics.outputs, statistics.inputs, plan.rows, plan.data_columns)
    full_rows = max(1, statistics.inputs // plan.rows)
    full_columns = max(1, statistics.outputs // plan.data_columns)
    tile = grid.tile((full_rows - 1) // 2, (full_columns - 1) // 2)
    weights = statistics.weights[tile.outputs, tile.inputs].T.astype(np.float64)
    return np.ascontiguousarray(weights), statistics.second_moments[tile.inputs]
