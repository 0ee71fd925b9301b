from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossbar.mapping.packing import pack
from crossbar.mapping.shapes import MatrixShape
from crossbar.mapping.shared_arrays import CUT_LINES_MIN
from crossbar.mapping.tiling import TileGrid

shape_lists = st.lists(
    st.builds(
        MatrixShape,
        name=st.just("matrix"),
        outputs=st.integers(1, 90),
        inputs=st.integers(1, 90),
        groups=st.sampled_from([1, 1, 1, 2, 5]),
    ),
    max_size=12,
)


@settings(max_examples=40)
@given(
    shapes=shape_lists,
    rows=st.integers(1, 40),
    columns=st.integers(6, 40),
    cells=st.integers(1, 4),
    reserved=st.integers(0, 2),
    cut=st.booleans(),
)
def test_every_weight_is_placed_once_within_an_array_and_no_two_on_one_cell(
    shapes: list[MatrixShape], rows: int, columns: int, cells: int, reserved: int, cut: bool
) -> None:
    packing = pack(shapes, rows, columns, cells, reserved_columns=reserved, cut=cut)
    arrays = np.zeros((packing.arrays, rows, columns), np.int8)
    weights = [np.zeros((shape.groups, shape.inputs, shape.outputs), np.int8) for shape in shapes]
    for placement in packing.placements:
        block = placement.block
        bottom, right = placement.row + block.inputs, placement.column + block.outputs * cells
        assert bottom <= rows
        assert right <= columns - reserved
        arrays[placement.array, placement.row : bottom, placement.column : right] += 1
        weights[block.matrix][
            block.group,
            block.first_input : block.first_input + block.inputs,
            block.first_output : block.first_output + block.outputs,
        ] += 1
    assert arrays.max(initial=0) <= 1
    for shape, placed in zip(shapes, weights, strict=True):
        assert (placed == (0 if shape.depthwise else 1)).all()
    assert packing.cells_used == arrays.sum()
    assert packing.arrays >= packing.arrays_least
    assert 0 < packing.utilisation <= 1
    assert arrays.any(axis=(1, 2)).all()
    assert packing.reads == len(packing.placements) >= packing.reads_in_turn
    assert all(before.array <= after.array for before, after in pairwise(packing.placements))
    assert packing == pack(shapes, rows, columns, cells, reserved_columns=reserved, cut=cut)


@settings(max_examples=40)
@given(shapes=shape_lists, size=st.integers(8, 64))
def test_packing_never_needs_more_arrays_than_tiles_and_cutting_never_more_than_not(
    shapes: list[MatrixShape], size: int
) -> None:
    whole, cut = pack(shapes, size, size, cut=False), pack(shapes, size, size)
    tiles = sum(
        shape.groups * TileGrid(shape.outputs, shape.inputs, size, size // 2).tiles
        for shape in shapes
        if not shape.depthwise
    )
    assert cut.arrays <= whole.arrays <= tiles
    assert whole.cuts == 0


def test_a_block_is_cut_into_the_holes_of_others() -> None:
    # Three blocks of 3/4 of an array's height: each leaves a hole, and the fourth fills all of them.
    shapes = [MatrixShape(f"{index}", outputs=64, inputs=48) for index in range(4)]
    whole, cut = pack(shapes, 64, 64, 1, cut=False), pack(shapes, 64, 64, 1)
    assert (whole.arrays, cut.arrays) == (4, 3)
    assert cut.utilisation == 1
    assert cut.cuts == 2
    assert all(
        min(placement.block.inputs, placement.block.outputs) >= CUT_LINES_MIN for placement in cut.placements
    )


def test_depthwise_layers_are_digital() -> None:
    shapes = [
        MatrixShape("depthwise", outputs=1, inputs=9, groups=96),
        MatrixShape("pointwise", outputs=24, inputs=96),
        MatrixShape("grouped", outputs=8, inputs=36, groups=4),
    ]
    packing = pack(shapes, 64, 64)
    assert packing.digital_weights == 9 * 96
    assert packing.digital_share == pytest.approx(864 / (864 + 2304 + 1152))
    assert {placement.block.matrix for placement in packing.placements} == {1, 2}
    assert pack(shapes[:1], 64, 64).utilisation == 1
    assert pack([], 64, 64).digital_share == 0


def test_layers_of_a_network_fill_their_arrays() -> None:
    """The last stages of a small detector, which a fixed tiling of 256 x 256 uses by about a half."""
    shapes = [
        MatrixShape(f"{outputs}x{inputs}", outputs, inputs)
        for outputs, inputs in (
            *[
                (64, 576),
                (64, 64),
                (80, 576),
                (80, 720),
                (80, 80),
                (64, 1152),
                (80, 1152),
                (64, 2304),
                (80, 2304),
            ],
            *[(128, 384), (64, 576), (64, 576), (128, 192), (128, 1152), (256, 384), (128, 1152), (256, 384)],
        )
    ]
    packing = pack(shapes, 256, 256)
    fixed = sum(TileGrid(shape.outputs, shape.inputs, 256, 128).tiles for shape in shapes)
    assert packing.arrays == packing.arrays_least
    assert packing.cells_used / (fixed * 256**2) < 0.7


def test_few_arrays_are_searched_when_many_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossbar.mapping.shared_arrays.OPEN_ARRAYS_MAX", 8)
    shapes = [
        MatrixShape(f"{index}", outputs=10 + index % 13, inputs=30 + index % 17) for index in range(100)
    ]
    packing = pack(shapes, 64, 64)
    assert packing.cells_used == sum(shape.weights for shape in shapes) * 2
    assert packing.utilisation > 0.85


def test_an_array_without_room_for_a_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="no room"):
        pack([MatrixShape("w", 1, 1)], 4, 4, 3, reserved_columns=2)
    with pytest.raises(ValueError, match="no weights"):
        MatrixShape("w", 0, 1)
