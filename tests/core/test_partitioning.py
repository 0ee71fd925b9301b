from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sedmad.core.partitioning import PANEL_LIMIT_BYTES, PARTITION_TARGET_BYTES, ROW_LIMIT_BYTES, Partitioning
from sedmad.errors import MatrixTooLarge, UsageError
from sedmad.sizes import MIB

shapes = st.tuples(
    st.integers(1, 10**7),
    st.one_of(st.integers(1, 1 << 19), st.integers(1, 2000)),
    st.sampled_from((1, 2, 4, 8)),
)


@given(shapes)
def test_partitions_cover_the_rows_once_in_equal_blocks(shape: tuple[int, int, int]) -> None:
    cut = Partitioning(*shape)
    sizes = [cut.size_bytes(index) for index in (0, cut.count - 1)]
    assert cut.row_range(0).start == 0
    assert cut.row_range(cut.count - 1).stop == cut.rows
    assert (cut.count - 1) * sizes[0] + sizes[-1] == cut.total_bytes
    if cut.count > 1:
        middle = cut.row_range(cut.count // 2)
        assert middle.start == cut.row_range(cut.count // 2 - 1).stop
        assert cut.partition_rows % 64 == 0
        assert 1 <= len(cut.row_range(cut.count - 1)) <= cut.partition_rows
        assert sizes[0] <= PARTITION_TARGET_BYTES or cut.partition_rows == 64


@given(shapes)
def test_panels_stay_within_their_limit(shape: tuple[int, int, int]) -> None:
    rows, columns, itemsize = *shape[:2], max(4, shape[2])  # of X and Y: weights of fewer bits are widened
    cut = Partitioning(*shape)
    assert 1 <= cut.panel_columns <= 64
    assert 1 <= cut.transposed_panel_columns <= 64
    tallest = min(rows, cut.partition_rows)
    assert cut.panel_columns * max(columns, tallest) * itemsize <= PANEL_LIMIT_BYTES
    assert cut.transposed_panel_columns * max(columns * 8, tallest * itemsize) <= PANEL_LIMIT_BYTES


def test_familiar_shapes() -> None:
    square = Partitioning(4096, 4096, 4)
    assert (square.count, square.partition_rows, square.size_bytes(7)) == (8, 512, 8 * MIB)
    assert square.panel_columns == 64
    words = Partitioning(30_522, 384, 4)
    assert (words.count, words.partition_rows) == (6, 5440)
    assert words.row_range(5) == range(27_200, 30_522)
    assert Partitioning(1, 1, 8).count == 1
    longest = Partitioning(65, ROW_LIMIT_BYTES // 8, 8)
    assert (longest.count, longest.partition_rows, longest.panel_columns) == (2, 64, 2)
    assert Partitioning(10**7, 1, 8).panel_columns == 1


def test_what_cannot_be_cut_is_refused() -> None:
    for shape in ((0, 4, 4), (4, 0, 4), (-1, 4, 4)):
        with pytest.raises(UsageError, match="at least one row"):
            Partitioning(*shape)
    for itemsize in (1, 2, 4):
        with pytest.raises(MatrixTooLarge, match="4,194,304"):
            Partitioning(1, ROW_LIMIT_BYTES // 4 + 1, itemsize)


@pytest.mark.parametrize("index", [-1, 8])
def test_there_is_no_partition_beyond_the_last(index: int) -> None:
    with pytest.raises(IndexError, match="of 8"):
        Partitioning(4096, 4096, 4).row_range(index)
