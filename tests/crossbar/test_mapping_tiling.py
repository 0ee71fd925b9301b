from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossbar.mapping.tiling import TileGrid

sizes = st.integers(1, 40)


@given(outputs=sizes, inputs=sizes, rows=sizes, columns=sizes)
def test_tiles_cover_every_weight_once(outputs: int, inputs: int, rows: int, columns: int) -> None:
    grid = TileGrid(outputs=outputs, inputs=inputs, rows=rows, columns=columns)
    covered = np.zeros((inputs, outputs), int)
    full = 0
    for tile in grid:
        covered[tile.inputs, tile.outputs] += 1
        assert tile.shape == covered[tile.inputs, tile.outputs].shape
        assert tile.shape[0] <= rows
        assert tile.shape[1] <= columns
        full += tile.shape == (rows, columns)
    assert (covered == 1).all()
    assert full == grid.full_tiles
    remainders = list(grid.remainders())
    assert grid.tiles == full + len(remainders)
    assert len(set(map(repr, remainders))) == len(remainders)
    assert all(tile.shape != (rows, columns) for tile in remainders)
    assert 0 < grid.utilisation <= 1


def test_an_array_larger_than_the_matrix_holds_it_in_one_tile() -> None:
    grid = TileGrid(outputs=3, inputs=5, rows=128, columns=128)
    assert grid.tiles == 1
    assert grid.full_tiles == 0
    assert (grid.remaining_inputs, grid.remaining_outputs) == (5, 3)
    assert [tile.shape for tile in grid.remainders()] == [(5, 3)]


def test_nothing_cannot_be_tiled() -> None:
    with pytest.raises(ValueError, match="inputs"):
        TileGrid(outputs=3, inputs=0, rows=4, columns=4)
    with pytest.raises(IndexError):
        TileGrid(outputs=3, inputs=3, rows=4, columns=4).input_range(1)
