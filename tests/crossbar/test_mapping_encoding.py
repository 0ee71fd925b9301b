from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossbar.mapping.encoding import Encoder, Window, column_scales

MICRO = 1e-6


def encoder(levels: int, encoding: str, slices: int) -> Encoder:
    return Encoder(Window(2 * MICRO, 50 * MICRO, levels), encoding, slices)  # type: ignore[arg-type]


def gaussian(seed: int, dtype: type = np.float64) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((12, 9)).astype(dtype)


@given(
    levels=st.sampled_from([0, 2, 3, 4, 16, 33, 256]),
    encoding=st.sampled_from(["differential", "offset"]),
    slices=st.integers(1, 8),
    seed=st.integers(0, 1000),
)
def test_what_is_encoded_is_decoded_up_to_rounding_to_levels(
    levels: int, encoding: str, slices: int, seed: int
) -> None:
    code = encoder(levels, encoding, slices)
    weights = gaussian(seed)
    scale = column_scales(weights)
    conductance = code.encode(weights, scale)
    assert conductance.shape == (slices, code.polarities, *weights.shape)
    assert conductance.min() >= code.window.minimum_siemens * (1 - 1e-12)
    assert conductance.max() <= code.window.maximum_siemens * (1 + 1e-12)
    error = np.abs(code.decode(conductance, scale) - weights) / scale
    assert error.max() <= code.rounding_error + 1e-12


@given(
    levels=st.sampled_from([2, 4, 16]),
    encoding=st.sampled_from(["differential", "offset"]),
    slices=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_devices_with_levels_are_programmed_to_levels(
    levels: int, encoding: str, slices: int, seed: int
) -> None:
    code = encoder(levels, encoding, slices)
    weights = gaussian(seed)
    steps = (code.encode(weights, column_scales(weights)) - code.window.minimum_siemens) * (
        (levels - 1) / code.window.span_siemens
    )
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-9)


def test_one_cell_of_a_pair_is_idle_and_the_other_follows_the_formula() -> None:
    weights = np.array([[0.5, -2.0], [-1.0, 0.0]])
    positive, negative = encoder(0, "differential", 1).encode(weights, column_scales(weights))[0]
    np.testing.assert_allclose(positive, [[26 * MICRO, 2 * MICRO], [2 * MICRO, 2 * MICRO]])
    np.testing.assert_allclose(negative, [[2 * MICRO, 50 * MICRO], [50 * MICRO, 2 * MICRO]])


def test_an_offset_cell_is_at_the_middle_for_zero_and_its_reference_is_subtracted() -> None:
    code = encoder(0, "offset", 1)
    weights = np.array([[0.0, 4.0], [1.0, -2.0]])
    scale = column_scales(weights)
    conductance = code.encode(weights, scale)
    np.testing.assert_allclose(conductance[0, 0], [[26 * MICRO, 50 * MICRO], [50 * MICRO, 14 * MICRO]])
    low = np.array([[26 * MICRO, 38 * MICRO]])  # the second row's reference is off by a quarter of the window
    np.testing.assert_allclose(code.decode(conductance, scale, low), [[0, 4], [0.5, -4]], atol=1e-12)


def test_slices_are_digits_with_the_most_significant_one_first() -> None:
    code = encoder(4, "differential", 2)  # 16 values: 0 to 15 in base 4
    weights = np.array([[15.0], [6.0], [-9.0]])
    digits = (code.encode(weights, column_scales(weights)) - 2 * MICRO) * (3 / (48 * MICRO))
    np.testing.assert_allclose(digits[:, 0, :, 0], [[3, 1, 0], [3, 2, 0]], atol=1e-9)
    np.testing.assert_allclose(digits[:, 1, :, 0], [[0, 0, 2], [0, 0, 1]], atol=1e-9)
    np.testing.assert_allclose(code.significance, [12 / 15, 3 / 15])


@pytest.mark.parametrize("encoding", ["differential", "offset"])
@pytest.mark.parametrize("slices", [1, 3])
def test_columns_of_zeros_stay_zero_and_nothing_is_divided_by_zero(encoding: str, slices: int) -> None:
    code = encoder(16, encoding, slices)
    weights = gaussian(1)
    weights[:, 4] = 0
    for scale in (column_scales(weights), column_scales(weights, matrix_scale=7.0)):
        assert scale[4] == 0
        assert (code.decode(code.encode(weights, scale), scale)[:, 4] == 0).all()
    nothing = np.zeros((5, 5), np.float32)
    assert (code.decode(code.encode(nothing, column_scales(nothing)), column_scales(nothing)) == 0).all()


def test_one_scale_for_the_matrix_loses_more_to_levels_than_one_a_column() -> None:
    code = encoder(16, "differential", 1)
    weights = gaussian(3) * np.linspace(0.1, 1, 9)
    errors = []
    for scale in (column_scales(weights, matrix_scale=np.abs(weights).max()), column_scales(weights)):
        errors.append(np.linalg.norm(code.decode(code.encode(weights, scale), scale) - weights))
    assert errors[1] < errors[0]


def test_weights_beyond_the_scale_are_clipped_to_it() -> None:
    code = encoder(0, "differential", 1)
    scale = np.array([1.0])
    np.testing.assert_allclose(code.decode(code.encode(np.array([[3.0], [-3.0]]), scale), scale), [[1], [-1]])


def test_float32_stays_float32_and_the_least_numbers_do_not_overflow() -> None:
    code = encoder(0, "differential", 1)
    weights = gaussian(2, np.float32) * np.float32(1e-40)
    scale = column_scales(weights)
    conductance = code.encode(weights, scale)
    decoded = code.decode(conductance, scale)
    assert conductance.dtype == decoded.dtype == np.float32
    assert np.isfinite(conductance).all()
    np.testing.assert_allclose(decoded, weights, atol=scale.max() * 1e-4)
