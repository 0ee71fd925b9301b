"""What holds for every law: shapes and dtypes, ages in between, devices that keep their character, stuck ones."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from crossbar.devices import profile, profiles
from crossbar.devices.ageing import TabulatedDrift, TabulatedState
from crossbar.devices.laws import PolynomialNoise, SaturatingNoise

DAY = 86_400.0
SAMPLES = 100_000


@pytest.mark.parametrize("name", sorted(profiles()))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (0,), (3, 5)])
def test_shapes_and_dtypes_are_kept(name: str, dtype: type, shape: tuple[int, ...]) -> None:
    found = profile(name)
    target = np.full(shape, found.conductance_max_siemens / 2, dtype)
    for seconds in (0.0, 10.0, DAY):
        sampled = found.programmed(target, np.random.default_rng(0), seconds)
        for array in (sampled, found.read_sd_siemens(sampled, seconds), found.programming_sd_siemens(target)):
            assert array.dtype == dtype
            assert array.shape == shape
    assert not target.size or target.max() == dtype(found.conductance_max_siemens / 2)


@pytest.mark.parametrize("name", sorted(profiles()))
def test_float32_agrees_with_float64(name: str) -> None:
    found = profile(name)
    target = np.linspace(found.conductance_min_siemens, found.conductance_max_siemens, 200)
    deviates = np.random.default_rng(1).standard_normal(200)
    scale = 1e-5 * found.conductance_max_siemens
    for seconds in (0.0, 1.0, 1e4, 3e6):
        fine = found.aged_siemens(target, deviates, seconds)
        coarse = found.aged_siemens(target.astype(np.float32), deviates.astype(np.float32), seconds)
        assert coarse == pytest.approx(fine, abs=scale)
        fine = found.read_sd_siemens(target, seconds)
        assert found.read_sd_siemens(target.astype(np.float32), seconds) == pytest.approx(fine, abs=scale)


def test_the_same_generator_gives_the_same_devices() -> None:
    found, target = profile("pcm_nandakumar2019"), np.full(100, 1e-5)
    first, second = (found.programmed(target, np.random.default_rng(3), DAY) for _ in range(2))
    assert np.array_equal(first, second)


def test_a_device_keeps_its_deviate_for_life() -> None:
    """A device that has drifted most after an hour is the one that has drifted most after a year."""
    for name in ("pcm_nandakumar2019", "cmo_hfox", "wan2022"):
        found = profile(name)
        target = np.full(100, found.conductance_max_siemens / 2)
        deviates = np.random.default_rng(2).standard_normal(100)
        hour, year = (found.aged_siemens(target, deviates, seconds) for seconds in (3600.0, 365 * DAY))
        assert np.array_equal(np.argsort(hour), np.argsort(year))


def test_a_target_that_is_not_given_is_taken_from_what_was_programmed() -> None:
    found = profile("pcm_nandakumar2019")
    target, deviates = np.full(1000, 1e-5), np.random.default_rng(4).standard_normal(1000)
    programmed = found.programmed(target, np.random.default_rng(5))
    known = found.aged_siemens(programmed, deviates, DAY, target=target)
    guessed = found.aged_siemens(programmed, deviates, DAY)
    assert np.abs(known - guessed).max() < 0.05 * 1e-5
    assert not np.array_equal(known, guessed)


def test_between_measured_times_the_scatter_is_interpolated_over_the_logarithm_of_time() -> None:
    drift = TabulatedDrift(
        states=(
            TabulatedState(seconds=0.0, sd=PolynomialNoise(coefficients=(0.0,))),
            TabulatedState(seconds=100.0, sd=PolynomialNoise(coefficients=(2.0,)), shift=(-4.0, 0.5)),
            TabulatedState(seconds=10_000.0, sd=PolynomialNoise(coefficients=(4.0,)), shift=(-4.0, 0.5)),
        )
    )
    target, one = np.array([10e-6]), np.ones(1)

    def moved(seconds: float) -> tuple[float, float]:
        high, low = (drift.aged_siemens(target, target, z, seconds)[0] for z in (one, -one))
        return float(high + low) / 2e-6 - 10, float(high - low) / 2e-6

    assert moved(1.0) == pytest.approx((0, 0))
    assert moved(0.01) == pytest.approx((0, 0))
    assert moved(10.0) == pytest.approx((0.5, np.sqrt(2)))  # half the way: half the shift, half the variance
    assert moved(100.0) == pytest.approx((1, 2))
    assert moved(1000.0) == pytest.approx((1, np.sqrt(10)))
    assert moved(10_000.0) == pytest.approx((1, 4))
    assert moved(1e9) == pytest.approx((1, 4))


def test_a_shift_is_held_beyond_the_data_it_was_fitted_to() -> None:
    state = TabulatedState(
        seconds=1.0, sd=SaturatingNoise(limit=1.0, scale=1.0), shift=(0.0, 1.0), shift_valid_to=5.0
    )
    assert state.shift_siemens(np.array([2e-6, 5e-6, 50e-6])) == pytest.approx([2e-6, 5e-6, 5e-6])
    found = profile("sonos_agrawal2022")
    top, near = found.aged_siemens(np.array([16e-6, 14e-6]), np.zeros(2), DAY)
    assert 16e-6 - top == pytest.approx(14e-6 - near)


def test_stuck_devices_are_as_frequent_as_stated_and_neither_scatter_nor_age() -> None:
    found = dataclasses.replace(profile("pcm_nandakumar2019"), stuck_on_rate=0.02, stuck_off_rate=0.05)
    sampled = found.programmed(np.full(SAMPLES, 1e-5), np.random.default_rng(6), DAY)
    for value, rate in ((found.conductance_max_siemens, 0.02), (found.conductance_min_siemens, 0.05)):
        share = np.mean(sampled == value)
        assert abs(share - rate) < 5 * np.sqrt(rate / SAMPLES)
    broken = dataclasses.replace(found, stuck_on_rate=1.0, stuck_off_rate=0.0)
    assert (broken.programmed(np.full(10, 1e-5), np.random.default_rng(7)) == 25e-6).all()


def test_device_variation_scales_what_a_device_conducts() -> None:
    varied = dataclasses.replace(profile("generic"), device_variation=0.05)
    for target in (10e-6, 80e-6):
        sd = np.hypot(2e-6, 0.05 * target)
        assert varied.programming_sd_siemens(np.array([target])) == pytest.approx([sd])
        sampled = varied.programmed(np.full(SAMPLES, target), np.random.default_rng(8))
        assert abs(sampled.std() - sd) < 5 * sd / np.sqrt(2 * SAMPLES)


def test_levels_are_evenly_spaced_over_the_window() -> None:
    found = dataclasses.replace(profile("generic"), levels=5)
    step = (1e-4 - 1e-6) / 4
    nearest = found.nearest_level_siemens(np.array([0.0, 1e-6 + 0.4 * step, 1e-6 + 0.6 * step, 1e-4, 1.0]))
    assert nearest == pytest.approx([1e-6, 1e-6, 1e-6 + step, 1e-4, 1e-4])
    assert profile("generic").nearest_level_siemens(np.array([0.0, 5e-5])) == pytest.approx([1e-6, 5e-5])
