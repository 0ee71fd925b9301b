"""Sampled devices against the published formulas, which are written out here: mean and standard deviation.

Everything below is in microsiemens and seconds. Expected moments come from integrating the formula over its
standard normal numbers; tolerances are five standard errors of the sample.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from crossbar.devices import profile

Array = npt.NDArray[np.float64]
Formula = Callable[[float, float, Array, Array], Array]
"""(target, seconds, z of programming, z of the device's ageing) -> conductance."""

SAMPLES = 100_000
DAY = 86_400.0
YEAR = 365 * DAY


def ideal(target: float, seconds: float, z: Array, ageing: Array) -> Array:
    return np.full_like(z, target)


def generic(target: float, seconds: float, z: Array, ageing: Array) -> Array:
    return np.maximum(target + 2.0 * z, 0)


def milo2021(target: float, seconds: float, z: Array, ageing: Array) -> Array:
    return np.maximum(target + max(0, 4.782321 - 0.009107 * target) * z, 0)


def joshi2020(target: float, seconds: float, z: Array, ageing: Array) -> Array:
    return np.maximum(target + (0.28638599 + 0.07585724 * target - 0.00178767 * target**2) * z, 0)


def wan2022(target: float, seconds: float, z: Array, ageing: Array) -> Array:
    """Of the tabulated times: the scatter at that time around the target, whatever it was before."""
    a = {
        0.0: (0.348, 16.030, -43.853, 45.393, -16.815),
        1.0: (0.348, 16.030, -43.853, 45.393, -16.815),
        DAY: (0.701, 22.086, -50.773, 47.095, -16.458),
        2 * DAY: (0.782, 20.274, -43.507, 37.062, -11.934),
    }[seconds]
    x = target / 40
    return np.maximum(target + (a[0] + a[1] * x + a[2] * x**2 + a[3] * x**3 + a[4] * x**4) * z, 0)


def cmo_hfox(target: float, seconds: float, z: Array, ageing: Array) -> Array:
    programmed = target + (0.0112185391 + 0.01129027418 * target) * z
    if seconds == 0:
        return np.maximum(programmed, 0)
    t = np.log(seconds)
    return np.maximum(programmed - 0.08900206 * t + (0.04201137 * t + 0.41183342) * ageing, 0)


def nandakumar2019(target: float, seconds: float, z: Array, ageing: Array) -> Array:
    x = target / 25
    programmed = np.maximum(target + (0.26348 + 1.9650 * x - 1.1731 * x**2) * z, 0)
    logarithm = np.log(max(x, 1e-7))
    mean = np.clip(-0.0155 * logarithm + 0.0244, 0.049, 0.1)
    sd = np.clip(-0.0125 * logarithm - 0.0059, 0.008, 0.045)
    return programmed * ((seconds + 20) / 20) ** -np.maximum(mean + sd * ageing, 0)


# Day: (A, B, shift), in nA.
AGRAWAL = {
    0: (19.88665, 176.3115, ()),
    1: (
        *(25.59102, 186.85544),
        (
            *(6.83650e-01, 6.51250e-03, -4.03163e-04, 3.37944e-06, -1.87435e-08, 5.88902e-11),
            *(-1.07685e-13, 1.17751e-16, -7.60016e-20, 2.67255e-23, -3.94954e-27),
        ),
    ),
    2: (
        *(28.72753, 193.56834),
        (
            *(6.60925e-01, 8.60627e-03, -1.72936e-04, 7.44096e-07, -5.94866e-09, 2.36734e-11),
            *(-4.83740e-14, 5.56072e-17, -3.65397e-20, 1.28405e-23, -1.87450e-27),
        ),
    ),
    3: (
        *(31.04318, 198.90332),
        (
            *(1.15821e00, 1.96116e-02, -4.70807e-04, 3.67510e-06, -2.08786e-08, 6.59752e-11),
            *(-1.19499e-13, 1.28435e-16, -8.11574e-20, 2.78802e-23, -4.02057e-27),
        ),
    ),
    4: (
        *(33.76214, 204.77023),
        (
            *(8.72216e-01, 1.70926e-02, -2.23370e-04, 1.57526e-06, -1.32779e-08, 5.08256e-11),
            *(-1.01251e-13, 1.14633e-16, -7.46124e-20, 2.60559e-23, -3.78724e-27),
        ),
    ),
    5: (
        *(34.57909, 207.34309),
        (
            *(1.15294e00, 1.03149e-02, -6.05199e-05, 1.76086e-08, -6.46690e-09, 3.39044e-11),
            *(-7.53872e-14, 8.98185e-17, -6.00346e-20, 2.12615e-23, -3.11099e-27),
        ),
    ),
}


def agrawal2022(target: float, seconds: float, z: Array, ageing: Array) -> Array:
    """In nA: 1 uS is 100 nA at 0.1 V."""
    a, b, shift = AGRAWAL[round(seconds / DAY)]
    current = 100 * target
    current += sum(coefficient * (100 * target) ** power for power, coefficient in enumerate(shift))
    return np.maximum(current + a * (1 - np.exp(-current / b)) * z, 0) / 100


CASES: list[tuple[str, Formula, tuple[float, ...], tuple[float, ...]]] = [
    ("ideal", ideal, (0, 50, 100), (0, YEAR)),
    ("generic", generic, (1, 50, 100), (0, YEAR)),
    ("milo2021", milo2021, (50, 100, 225), (0, YEAR)),
    ("pcm_joshi2020", joshi2020, (0.25, 5, 25), (0, YEAR)),
    ("wan2022", wan2022, (0, 2, 10, 20, 40), (0, 1, DAY, 2 * DAY)),
    ("cmo_hfox", cmo_hfox, (9, 40, 88.2), (0, 1, 3600, DAY, YEAR)),
    ("pcm_nandakumar2019", nandakumar2019, (0, 1, 5, 25), (0, 20, 3600, DAY, YEAR)),
    ("sonos_agrawal2022", agrawal2022, (0.5, 4, 14), (0, DAY, 5 * DAY)),
]


def moments(formula: Formula, target: float, seconds: float) -> tuple[float, float, float]:
    """Mean, standard deviation and fourth central moment of a formula, integrated over both normal numbers."""
    at = np.linspace(-7, 7, 401)
    weight = np.exp(-np.square(at) / 2)
    weight /= weight.sum()
    value = formula(target, seconds, *np.meshgrid(at, at))
    weights = np.outer(weight, weight)
    mean = float(np.sum(weights * value))
    return (
        mean,
        float(np.sqrt(np.sum(weights * (value - mean) ** 2))),
        float(np.sum(weights * (value - mean) ** 4)),
    )


@pytest.mark.parametrize(
    ("name", "formula", "target", "seconds"),
    [(name, formula, g, t) for name, formula, targets, ages in CASES for g in targets for t in ages],
)
def test_sampled_conductances_follow_the_published_formula(
    name: str, formula: Formula, target: float, seconds: float
) -> None:
    mean, sd, fourth = moments(formula, target, seconds)
    rng = np.random.default_rng(int(target * 100 + seconds))
    sampled = profile(name).programmed(np.full(SAMPLES, target * 1e-6), rng, seconds) * 1e6
    assert (sampled >= 0).all()
    assert abs(sampled.mean() - mean) <= 5 * sd / np.sqrt(SAMPLES) + 1e-4 * sd + 1e-9
    variance_error = np.sqrt(max(fourth - sd**4, 0) / SAMPLES)
    assert abs(sampled.var() - sd**2) <= 5 * variance_error + 1e-3 * sd**2 + 1e-12


@pytest.mark.parametrize("day", range(1, 6))
def test_a_sonos_device_moves_exactly_as_published(day: int) -> None:
    found, g = profile("sonos_agrawal2022"), np.array([0.5, 4.0, 8.0, 14.0])
    a, b, shift = AGRAWAL[day]
    mean = 100 * g + np.polyval(shift[::-1], 100 * g)
    late, early = a * (1 - np.exp(-mean / b)), 19.88665 * (1 - np.exp(-100 * g / 176.3115))
    for z in (0.0, 1.0):
        aged = found.aged_siemens(g * 1e-6, np.full(4, z), day * DAY) * 1e8
        assert aged == pytest.approx(mean + z * np.sqrt(late**2 - early**2), abs=1e-9)


def test_a_device_that_drifts_by_a_law_moves_exactly_as_published() -> None:
    for name, formula, g in (("cmo_hfox", cmo_hfox, 40.0), ("pcm_nandakumar2019", nandakumar2019, 0.2)):
        for ageing in (-1.0, 0.0, 2.0):
            for seconds in (60.0, YEAR):
                one = np.full(1, ageing)
                aged = profile(name).aged_siemens(np.full(1, g * 1e-6), one, seconds)
                assert aged * 1e6 == pytest.approx(formula(g, seconds, np.zeros(1), one))


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("generic", 1, 100),
        ("milo2021", 50, 225),
        ("wan2022", 0, 40),
        ("cmo_hfox", 9, 88.199997),
        ("pcm_nandakumar2019", 0, 25),
        ("pcm_joshi2020", 0.25, 25),
        ("sonos_agrawal2022", 0, 16),
    ],
)
def test_windows_are_the_published_ones(name: str, least: float, most: float) -> None:
    found = profile(name)
    assert found.conductance_min_siemens * 1e6 == pytest.approx(least)
    assert found.conductance_max_siemens * 1e6 == pytest.approx(most)


def test_read_noise_follows_the_published_formula() -> None:
    g = np.array([0.1, 5.0, 20.0])
    siemens = g * 1e-6

    assert profile("wan2022").read_sd_siemens(siemens) == pytest.approx(np.full(3, 0.01 * 40e-6))

    t, t_read = DAY, 1e-6
    growing = 0.0277316483 * np.log10(np.maximum(g, 1)) * np.sqrt(np.log((t + t_read) / (2 * t_read)))
    assert profile("cmo_hfox").read_sd_siemens(siemens, DAY) * 1e6 == pytest.approx(np.hypot(0.882, growing))
    assert profile("cmo_hfox").read_sd_siemens(siemens) * 1e6 == pytest.approx(np.full(3, 0.882))

    t, t_read = DAY + 20, 250e-9
    q = np.minimum(0.2, 0.0088 / (g / 25) ** 0.65)
    expected = g * q * np.sqrt(np.log((t + t_read) / (2 * t_read)))
    assert profile("pcm_nandakumar2019").read_sd_siemens(siemens, DAY) * 1e6 == pytest.approx(expected)

    expected = 12.58037 * (1 - np.exp(-100 * g / 215.36557)) / 100
    assert profile("sonos_agrawal2022").read_sd_siemens(siemens, DAY) * 1e6 == pytest.approx(expected)

    for name in ("ideal", "milo2021", "pcm_joshi2020"):
        assert not profile(name).read_sd_siemens(siemens).any()


@pytest.mark.parametrize("volts", [-0.5, -0.1, 0.2, 0.5])
def test_currents_of_milo2021_follow_the_published_formula(volts: float) -> None:
    g = np.array([50e-6, 120e-6, 225e-6])
    level = np.log10(g)
    second = 0.0001388 * level**3 + 0.001541 * level**2 + 0.005711 * level + 0.007063
    third = 8.8710e-5 * level**2 + 6.7919e-4 * level + 1.2968e-3
    expected = np.sign(volts) * (g * abs(volts) + second * volts**2 + third * abs(volts) ** 3)
    current = profile("milo2021").nonlinear_current(g, np.full(3, volts))
    assert current == pytest.approx(expected, rel=1e-9)
    # float32 loses nothing but its own digits, though the terms of the polynomials nearly cancel.
    coarse = profile("milo2021").nonlinear_current(g.astype(np.float32), np.full(3, volts, np.float32))
    assert coarse.dtype == np.float32
    assert coarse == pytest.approx(expected, rel=1e-4)


def test_beyond_the_fitted_currents_a_device_keeps_the_shape_of_the_nearest() -> None:
    found = profile("milo2021")
    low = found.nonlinear_current(np.array([5e-6, 50e-6]), np.full(2, 0.5))
    assert low[0] == pytest.approx(low[1] / 10)
    assert found.nonlinear_current(np.zeros(1), np.full(1, 0.5)) == 0
    assert profile("wan2022").nonlinear_terms(np.zeros(1)) is None
