"""Calibration vectors, converter ranges, gains, and the error that is measured with them."""

from __future__ import annotations

import numpy as np
import pytest

from crossbar.planning.calibration import (
    HEADROOM,
    calibration_vectors,
    column_gains,
    column_ranges,
    largest_code,
    loading_factor,
    measured_error,
)
from crossbar.planning.converters import adc_error, predicted_ranges


def test_vectors_are_seeded_and_apart() -> None:
    vectors = calibration_vectors(200, 100, seed=1)
    assert vectors.dtype == np.float32
    assert vectors.shape == (200, 100)
    assert np.array_equal(vectors, calibration_vectors(200, 100, seed=1))
    assert not np.array_equal(vectors, calibration_vectors(200, 100, seed=2))
    assert abs(vectors.std() - 1) < 5 / np.sqrt(2 * vectors.size)


def test_vectors_are_drawn_from_samples() -> None:
    samples = np.arange(30.0).reshape(3, 10)
    drawn = calibration_vectors(3, 4, seed=1, samples=samples)
    columns = {tuple(column) for column in samples.T.tolist()}
    chosen = {tuple(column) for column in drawn.T.tolist()}
    assert len(chosen) == 4
    assert chosen < columns
    assert calibration_vectors(3, 64, samples=samples).shape == (3, 10)
    with pytest.raises(ValueError, match="shape"):
        calibration_vectors(4, samples=samples)


def test_the_best_loading_of_a_converter() -> None:
    """J. Max's table has the outer levels of uniform quantisers: 8 bits 3.92, 4 bits about 2.5."""
    assert loading_factor(8) == pytest.approx(3.92, abs=0.02)
    assert loading_factor(4) == pytest.approx(2.48, abs=0.02)
    assert all(loading_factor(bits) < loading_factor(bits + 1) for bits in range(2, 16))


@pytest.mark.parametrize("bits", [3, 6, 8])
@pytest.mark.parametrize("loading", [0.5, 2.0, 4.0, 40.0])
def test_conversion_error_is_that_of_a_converter(bits: int, loading: float) -> None:
    samples = np.random.default_rng(1).standard_normal(200_000) * 3
    codes = largest_code(bits)
    step = 3 * loading / codes
    converted = np.clip(np.rint(samples / step), -codes, codes) * step
    expected = adc_error(np.array([9.0]), np.array([3 * loading]), bits)
    found = float(np.square(converted - samples).mean())
    assert expected.independent + expected.shared == pytest.approx(found, rel=0.06)


def test_column_ranges_are_neither_what_64_vectors_happened_to_reach_nor_less() -> None:
    rng = np.random.default_rng(2)
    partials = rng.standard_normal((64, 500)) * np.arange(1, 501)
    ranges = column_ranges(partials, 8)
    assert (ranges >= np.abs(partials).max(axis=0) * (HEADROOM - 1e-6)).all()
    predicted = predicted_ranges(
        np.square(np.arange(1.0, 501))[np.newaxis], np.full((1, 500), np.inf), "column", 8
    )
    assert ranges / predicted[0] == pytest.approx(np.ones(500), abs=0.5)
    assert (ranges / predicted[0]).mean() == pytest.approx(1, abs=0.02)


def test_the_calibrated_range_is_the_largest_of_many() -> None:
    rng = np.random.default_rng(3)
    deviations = np.linspace(0.2, 1, 300)
    largest = [np.abs(rng.standard_normal((64, 300)) * deviations).max() for _ in range(40)]
    predicted = predicted_ranges(
        np.square(deviations)[np.newaxis], np.full((1, 300), np.inf), "calibrated", 8
    )
    assert predicted[0, 0] / HEADROOM == pytest.approx(np.median(largest), rel=0.04)


def test_gains_bring_columns_back() -> None:
    rng = np.random.default_rng(4)
    exact = rng.standard_normal((5, 40))
    lost = np.array([0.5, 0.9, 1.0, 2.0, 0.0])
    assert column_gains(exact * lost[:, np.newaxis], exact) == pytest.approx([2, 1 / 0.9, 1, 0.5, 1])


def test_measured_error_has_the_spread_that_it_states() -> None:
    rng = np.random.default_rng(5)
    weights = rng.standard_normal((6, 30))
    wrong = weights + 0.1 * rng.standard_normal((6, 30))
    found = [
        measured_error(lambda vectors: wrong @ vectors, weights, rng.standard_normal((30, 50)))
        for _ in range(300)
    ]
    values = np.array([one.value for one in found])
    stated = np.mean([one.standard_error for one in found])
    assert stated == pytest.approx(values.std(), rel=0.25)
    assert found[0].vectors == 50


def test_measured_error_of_zeros() -> None:
    zeros, vectors = np.zeros((2, 3)), np.ones((3, 4))
    assert measured_error(lambda x: zeros @ x, zeros, vectors).value == 0
    assert measured_error(lambda x: zeros @ x + 1, zeros, vectors).value == np.inf
