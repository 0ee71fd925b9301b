"""Predicted errors against those of arrays on which every device and every read is drawn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossbar.devices import IDEAL, DeviceProfile, profile, profiles
from crossbar.errors import WeightsInvalid
from crossbar.planning.budget import ErrorBudget, expected_pulses, predict
from crossbar.planning.calibration import measured_error
from crossbar.planning.plan import Plan
from crossbar.planning.statistics import BlockStatistics
from crossbar.programmed import program
from crossbar.reference import ReferenceCrossbar

NOISY = sorted(set(profiles()) - {"ideal"})
BAND = (0.85, 1.15)
"""Of measured to predicted. Two chips and 24 vectors spread by 3 %, the formulas are good to 10 %."""

DAY = 86400.0
VERIFIED = {"write_verify_tolerance": 0.01, "write_verify_tries": 10}
FAULTS = {"stuck_on_rate": 0.003, "stuck_off_rate": 0.02}


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((80, 150)) / 12


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return np.random.default_rng(2).standard_normal((150, 24))


def without_wires(name: str, **changes: Any) -> DeviceProfile:
    """Wires are left out where they are not the subject: reading noisy networks takes long."""
    return replace(profile(name), rows=64, columns=64, word_line_ohm=0.0, bit_line_ohm=0.0, **changes)


def measured(
    weights: np.ndarray, vectors: np.ndarray, devices: DeviceProfile, plan: Plan, seconds: float
) -> float:
    errors = [
        measured_error(
            ReferenceCrossbar(weights, devices, plan, seed=seed, seconds=seconds).apply, weights, vectors
        ).value
        for seed in (1, 2)
    ]
    return float(np.sqrt(np.mean(np.square(errors))))


@pytest.mark.parametrize("name", NOISY)
@pytest.mark.parametrize(
    ("levers", "devices", "seconds"),
    [
        ({}, {}, 0.0),
        ({"scale": "matrix", "adc_range": "max"}, {}, 0.0),
        ({"adc_range": "column", **VERIFIED}, FAULTS, DAY),
        ({"column_gain": True}, {"stuck_off_rate": 0.2}, 0.0),
        ({"replicas": 2, "slices": 2, "partner_compensation": True}, FAULTS | {"levels": 8}, 0.0),
        ({"encoding": "offset", "adc_range": "column"}, {"adc_bits": 5, "device_variation": 0.04}, DAY),
    ],
    ids=[
        "default",
        "static",
        "verified-faults-day",
        "gain",
        "slices-replicas-compensated",
        "offset-5-bits-day",
    ],
)
def test_prediction_is_what_devices_do(
    name: str,
    levers: dict[str, Any],
    devices: dict[str, Any],
    seconds: float,
    weights: np.ndarray,
    vectors: np.ndarray,
) -> None:
    described = without_wires(name, **devices)
    plan = replace(Plan.default(described), **levers)
    predicted = predict(weights, described, plan, seconds=seconds, compensated=False).total
    assert BAND[0] < measured(weights, vectors, described, plan, seconds) / predicted < BAND[1]


@pytest.mark.parametrize("name", NOISY)
@pytest.mark.parametrize(
    ("levers", "devices", "seconds"),
    [
        ({"adc_range": "column", "column_gain": True, **VERIFIED}, FAULTS, DAY),
        ({"rows": 64, "columns": 64, "encoding": "offset"}, {}, 0.0),
        ({"residual_share": 0.03}, FAULTS | {"word_line_ohm": 0.0, "bit_line_ohm": 0.0}, 0.0),
        (
            {"assignment": "columns", "spare_columns": 8, "partner_compensation": True, "column_gain": True},
            {"stuck_on_rate": 0.02, "stuck_off_rate": 0.05},
            0.0,
        ),
    ],
    ids=["compensated-day", "wires-offset", "residual", "assigned"],
)
def test_prediction_is_what_programming_gives(
    name: str, levers: dict[str, Any], devices: dict[str, Any], seconds: float
) -> None:
    """Wires, drift compensation and levers that need whole tiles, on the fast path."""
    rng = np.random.default_rng(6)
    weights = rng.standard_normal((200, 256), np.float32)
    described = replace(profile(name), **devices)
    plan = replace(Plan.default(described), **levers)
    predicted = predict(weights, described, plan, seconds=seconds).total
    crossbar = program(weights, described, seed=3, plan=plan).aged(seconds)
    found = crossbar.error(rng.standard_normal((256, 32), np.float32))
    assert BAND[0] < found / predicted < BAND[1]


@pytest.mark.parametrize("encoding", ["differential", "offset"])
@pytest.mark.parametrize("column_gain", [False, True])
def test_prediction_of_wires(encoding: Any, column_gain: bool, weights: np.ndarray) -> None:
    described = replace(
        profile("milo2021"),
        programming_noise=None,
        nonlinearity=None,
        dac_bits=None,
        adc_bits=None,
        word_line_ohm=2.0,
        bit_line_ohm=1.0,
    )
    plan = replace(Plan.default(described), rows=64, columns=64, encoding=encoding, column_gain=column_gain)
    predicted = predict(weights, described, plan)
    assert predicted.total == predicted.ir_drop > 0
    found = program(weights, described, seed=1, plan=plan).error(
        np.random.default_rng(3).standard_normal((150, 32))
    )
    assert BAND[0] < found / predicted.total < BAND[1]


def test_given_inputs_count(weights: np.ndarray) -> None:
    """Inputs that are mostly zero have a high peak, so converters cost more than for normal ones."""
    described = without_wires("generic", read_noise=None, programming_noise=None)
    rng = np.random.default_rng(4)
    sparse = rng.standard_normal((150, 200)) * (rng.random((150, 200)) < 0.05)
    plan = replace(Plan.default(described), adc_range="max")
    predicted = predict(weights, described, plan, inputs=sparse)
    found = measured(weights, sparse[:, :60], described, plan, 0.0)
    assert BAND[0] < found / predicted.total < BAND[1]
    assert predicted.dac > predict(weights, described, plan).dac


@pytest.mark.parametrize(
    ("lever", "term", "devices"),
    [
        ({"scale": "column"}, "programming", {}),
        ({"adc_range": "calibrated"}, "adc", {}),
        ({"adc_range": "column"}, "adc", {}),
        ({"column_gain": True}, "ir_drop", {}),
        ({"column_gain": True}, "nonlinearity", {}),
        ({"write_verify_tolerance": 0.02, "write_verify_tries": 5}, "programming", {}),
        ({"write_verify_tolerance": 0.005, "write_verify_tries": 40}, "programming", {}),
        ({"rows": 64, "columns": 64}, "ir_drop", {}),
        ({"replicas": 2}, "programming", {}),
        ({"replicas": 2}, "read", {}),
        ({"replicas": 2}, "faults", FAULTS),
        ({"slices": 2}, "quantization", {"levels": 16}),
        ({"partner_compensation": True}, "faults", FAULTS),
        ({"assignment": "columns"}, "faults", FAULTS),
        ({"assignment": "columns", "spare_columns": 16}, "faults", FAULTS),
        ({"residual_share": 0.01}, "programming", {}),
        ({"residual_share": 0.01}, "faults", FAULTS),
        ({"digital": True}, "programming", {}),
    ],
)
@pytest.mark.parametrize("name", ["generic", "milo2021", "pcm_nandakumar2019"])
def test_a_lever_never_raises_its_own_term(
    name: str, lever: dict[str, Any], term: str, devices: dict[str, Any]
) -> None:
    block = BlockStatistics(np.random.default_rng(5).standard_normal((130, 130)))
    described = replace(profile(name), **devices)
    before = Plan.static(replace(described, adc_range="max"))
    budgets = [
        predict(block, described, plan, seconds=DAY).terms[term]
        for plan in (before, replace(before, **lever))
    ]
    assert budgets[1] <= budgets[0] * (1 + 1e-9)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    array=st.integers(1, 48),
    name=st.sampled_from(NOISY),
    seed=st.integers(0, 1000),
    power=st.integers(-30, 30),
)
def test_any_shape_and_size_of_weights_has_a_budget(
    rows: int, columns: int, array: int, name: str, seed: int, power: int
) -> None:
    """Scaling all weights changes nothing: errors are relative."""
    described = replace(profile(name), rows=array, columns=array, **FAULTS)
    block = np.random.default_rng(seed).standard_normal((rows, columns))
    plan = replace(Plan.default(described), partner_compensation=True, column_gain=True)
    terms = predict(block, described, plan, seconds=DAY).terms
    assert all(np.isfinite(value) and value >= 0 for value in terms.values())
    scaled = predict(block * 2.0**power, described, plan, seconds=DAY).terms
    assert scaled == pytest.approx(terms, rel=1e-9, abs=1e-12)


def test_nothing_is_wrong_without_devices(weights: np.ndarray) -> None:
    assert predict(weights, IDEAL, Plan.default(IDEAL)) == ErrorBudget()
    digital = Plan(rows=64, columns=64, digital=True)
    assert predict(weights, profile("generic"), digital).total == 0
    assert predict(np.zeros((3, 4)), profile("generic"), Plan.default(profile("generic"))) == ErrorBudget()


def test_total_is_the_root_of_the_sum_of_squares() -> None:
    assert ErrorBudget(read=0.3, adc=0.4).total == pytest.approx(0.5)


def test_expected_pulses_are_those_that_verifying_takes(weights: np.ndarray) -> None:
    """Uniform sd 2 %, far from 0 S: tolerance 1 % is met with P(|z| < 1/2) = 0.3829 by every pulse."""
    described = replace(profile("generic"), conductance_min_siemens=5e-5)
    verified = replace(Plan.default(described), write_verify_tolerance=0.01, write_verify_tries=200)
    assert expected_pulses(weights, described, verified) == pytest.approx(1 / 0.38292, rel=1e-3)
    assert expected_pulses(weights, described, Plan.default(described)) == 1


@pytest.mark.parametrize(
    "weights", [np.ones(3), np.ones((0, 3)), np.array([[1.0, np.nan]]), np.array([[1.0, -np.inf]])]
)
def test_weights_without_conductances_are_refused(weights: np.ndarray) -> None:
    with pytest.raises(WeightsInvalid):
        BlockStatistics(weights)


@pytest.mark.parametrize("inputs", [np.ones((3, 2)), np.ones(4), np.ones((4, 0)), np.full((4, 2), np.nan)])
def test_inputs_that_do_not_fit_are_refused(inputs: np.ndarray) -> None:
    with pytest.raises(WeightsInvalid):
        BlockStatistics(np.ones((2, 4)), inputs)
