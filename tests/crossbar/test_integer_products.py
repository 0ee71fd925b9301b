from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossbar.engine import ProgrammedPartition
from crossbar.exact.integer_products import LARGEST_WEIGHT, RESULT_LIMIT
from crossbar.ideal import IdealEngine


def program(weights: np.ndarray) -> ProgrammedPartition:
    return IdealEngine().program(weights)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 400),
    columns=st.integers(1, 1500),
    panel_columns=st.integers(1, 9),
    bits=st.integers(0, 24),
    transposed=st.booleans(),
)
def test_integers_are_multiplied_exactly_or_refused(
    seed: int, rows: int, columns: int, panel_columns: int, bits: int, transposed: bool
) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.integers(-128, 128, (rows, columns)).astype(np.int8)
    terms = rows if transposed else columns
    panel = rng.integers(-(2**bits), 2**bits + 1, (panel_columns, terms)).astype(np.int32)
    partition = program(weights)
    multiply = partition.multiply_transposed if transposed else partition.multiply
    if LARGEST_WEIGHT * int(np.abs(panel).max()) * terms >= RESULT_LIMIT:
        with pytest.raises(OverflowError):
            multiply(panel)
        return
    got = multiply(panel)
    assert got.dtype == (np.float64 if transposed else np.int32)
    np.testing.assert_array_equal(got, panel.astype(np.int64) @ (weights if transposed else weights.T))


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
@pytest.mark.parametrize("transposed", [False, True])
def test_the_largest_sums_that_fit_are_exact(dtype: type, transposed: bool) -> None:
    terms = RESULT_LIMIT // LARGEST_WEIGHT**2 - 1
    weights = np.full((terms, 1) if transposed else (1, terms), -128, np.int8)
    panel = np.full((1, terms), -128, dtype)
    partition = program(weights)
    got = partition.multiply_transposed(panel) if transposed else partition.multiply(panel)
    assert int(got[0, 0]) == terms * 128 * 128

    longer = program(np.full((terms + 1, 1) if transposed else (1, terms + 1), -128, np.int8))
    multiply = longer.multiply_transposed if transposed else longer.multiply
    with pytest.raises(OverflowError, match="131072"):
        multiply(np.full((1, terms + 1), -128, dtype))


def test_the_most_negative_integer_counts_as_it_is() -> None:
    with pytest.raises(OverflowError):
        program(np.ones((1, 1), np.int8)).multiply(np.full((1, 1), -(2**31), np.int32))


def test_integers_are_for_int8_weights_only() -> None:
    with pytest.raises(TypeError, match="int32"):
        program(np.zeros((2, 2), np.float32)).multiply(np.zeros((1, 2), np.int32))
    with pytest.raises(TypeError, match="int64"):
        program(np.zeros((2, 2), np.int8)).multiply(np.zeros((1, 2), np.int64))
