from __future__ import annotations

import numpy as np
import pytest

from crossbar.exact.widening import BLOCK_BYTES, widen, widened_blocks


@pytest.mark.parametrize("bits", [range(0x7C00), range(0x7C00, 0x8000), range(0x8000, 0x10000)])
def test_every_float16_is_widened_exactly(bits: range) -> None:
    values = np.array(bits, np.uint16).view(np.float16).reshape(1, -1)
    block = np.empty(values.shape, np.float32)
    widen(values, block)
    np.testing.assert_array_equal(block, values.astype(np.float32))
    numbers = ~np.isnan(block)
    np.testing.assert_array_equal(np.signbit(block[numbers]), np.signbit(values[numbers]))


@pytest.mark.parametrize("shape", [(1, 1), (300, 700), (3, BLOCK_BYTES)])
@pytest.mark.parametrize("rows_max", [8, 256, 1000])
@pytest.mark.parametrize("columns_max", [512, 1 << 30])
def test_blocks_cover_everything_once_and_are_bounded(
    shape: tuple[int, int], rows_max: int, columns_max: int
) -> None:
    weights = np.random.default_rng(0).integers(-128, 128, shape).astype(np.int8)
    seen = np.zeros(shape, int)
    for rows, columns, block in widened_blocks(weights, np.dtype(np.float32), rows_max, columns_max):
        assert len(block) <= rows_max
        assert block.shape[1] <= columns_max
        assert block.nbytes <= BLOCK_BYTES or len(block) == 1
        np.testing.assert_array_equal(block, weights[rows, columns])
        seen[rows, columns] += 1
    assert (seen == 1).all()


def test_weights_that_are_wide_already_are_not_copied() -> None:
    weights = np.ones((500, 30), np.float32)
    [(_, _, block)] = widened_blocks(weights, np.dtype(np.float32), 500, 30)
    assert np.shares_memory(block, weights)
