"""The fast path and the reference path: the same means and variances, within five standard errors of the samples."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import crossbar
from crossbar.devices import DeviceProfile
from crossbar.devices.laws import ConstantNoise, PolynomialNoise
from crossbar.planning.plan import Plan
from crossbar.programmed import program
from crossbar.reference import ReferenceCrossbar

QUIET = DeviceProfile(
    name="quiet", conductance_min_siemens=2e-6, conductance_max_siemens=1e-4,
    rows=16, columns=32, dac_bits=None, adc_bits=None,
)  # fmt: skip
CONSTANT = ConstantNoise(sd=2.0)
BY_STATE = PolynomialNoise(coefficients=(0.5, 0.04))

PLANS: tuple[dict[str, Any], ...] = (
    {},
    {"encoding": "offset"},
    {"slices": 2},
    {"replicas": 3},
    {"scale": "matrix"},
)


def normal(*shape: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def assert_alike(ours: Any, theirs: Any, *, axis: int) -> None:
    """Compare means and variances of independent samples along `axis`.

    A variance of n samples has the relative standard error sqrt((kurtosis - 1) / n); 3 is the normal kurtosis, and 5
    bounds those of clipped or verified ones here. All elements are compared at once, hence six and not five.
    """
    count = ours.shape[axis]
    assert theirs.shape[axis] == count
    variances = ours.var(axis=axis), theirs.var(axis=axis)
    scale = np.abs(theirs).max()
    error = np.sqrt((variances[0] + variances[1]) / count)
    assert (np.abs(ours.mean(axis=axis) - theirs.mean(axis=axis)) <= 6 * error + 1e-5 * scale).all()
    share = 6 * np.sqrt(2 * 4 / count)
    assert (np.abs(variances[0] - variances[1]) <= share * np.maximum(*variances) + (1e-5 * scale) ** 2).all()
    total = variances[0].sum(), variances[1].sum()
    assert total[0] == pytest.approx(total[1], rel=0.06, abs=(1e-4 * scale) ** 2)


@pytest.mark.parametrize("law", [CONSTANT, BY_STATE])
@pytest.mark.parametrize("changes", PLANS[:4])
def test_read_noise(law: Any, changes: dict[str, Any]) -> None:
    profile = dataclasses.replace(QUIET, read_noise=law)
    plan = dataclasses.replace(Plan.default(profile), **changes)
    weights = normal(6, 24)
    x = np.repeat(normal(24, 1, seed=1), 1500, axis=1)
    ours = program(weights, profile, seed=1, plan=plan).apply(x)
    theirs = ReferenceCrossbar(weights, profile, plan, seed=1).apply(x)
    assert_alike(ours, theirs, axis=1)


@pytest.mark.parametrize("law", [CONSTANT, BY_STATE])
def test_read_noise_backwards(law: Any) -> None:
    profile = dataclasses.replace(QUIET, read_noise=law, rows=32, columns=16)
    plan = dataclasses.replace(Plan.default(profile), scale="matrix")
    weights = normal(24, 6)
    x = np.repeat(normal(24, 1, seed=1), 1500, axis=1)
    ours = program(weights, profile, seed=1, plan=plan).apply_transposed(x)
    turned = dataclasses.replace(profile, rows=16, columns=32)
    plan = dataclasses.replace(plan, rows=16, columns=32)
    theirs = ReferenceCrossbar(weights.T, turned, plan, seed=1).apply(x)
    assert_alike(ours, theirs, axis=1)


def held(made: Any, inputs: int) -> Any:
    """Return the weights (outputs, inputs) that devices without read noise and converters hold."""
    return made.apply(np.eye(inputs, dtype=np.float32))


@pytest.mark.parametrize("changes", PLANS)
@pytest.mark.parametrize(
    "verify", [{}, {"write_verify_tolerance": 0.01, "write_verify_tries": 4}], ids=("once", "verified")
)
@pytest.mark.parametrize("law", [CONSTANT, BY_STATE])
def test_programming_noise(law: Any, verify: dict[str, Any], changes: dict[str, Any]) -> None:
    profile = dataclasses.replace(QUIET, programming_noise=law, device_variation=0.02)
    plan = dataclasses.replace(Plan.default(profile), **changes, **verify)
    weights = np.repeat(normal(1, 24), 1600, axis=0)  # every output is a sample of the same cells
    weights[:, 3] = 0
    ours = held(program(weights, profile, seed=1, plan=plan), 24)
    theirs = held(ReferenceCrossbar(weights, profile, plan, seed=1), 24)
    if changes.get("encoding") == "offset":  # outputs of one tile share a reference column: fewer samples
        ours, theirs = ours[::31], theirs[::31]
        error = np.sqrt((ours.var(axis=0) + theirs.var(axis=0)) / len(ours))
        assert (np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) <= 6 * error).all()
        assert ours.var(axis=0).sum() == pytest.approx(theirs.var(axis=0).sum(), rel=0.3)
        return
    assert_alike(ours, theirs, axis=0)


@pytest.mark.parametrize("name", ["pcm_nandakumar2019", "cmo_hfox", "wan2022"])
def test_drift(name: str) -> None:
    profile = dataclasses.replace(
        crossbar.profile(name), word_line_ohm=0.0, bit_line_ohm=0.0, read_noise=None,
        rows=16, columns=32, dac_bits=None, adc_bits=None,
    )  # fmt: skip
    weights = np.repeat(normal(1, 24), 1600, axis=0)
    plan = Plan.default(profile)
    day = 86400.0
    ours = held(program(weights, profile, seed=1, plan=plan).aged(day, compensated=False), 24)
    theirs = held(ReferenceCrossbar(weights, profile, plan, seed=1, seconds=day), 24)
    assert_alike(ours, theirs, axis=0)


@pytest.mark.parametrize("changes", PLANS)
def test_faults_and_compensation_are_the_very_same(changes: dict[str, Any]) -> None:
    profile = dataclasses.replace(QUIET, stuck_on_rate=0.03, stuck_off_rate=0.05)
    weights = normal(70, 40)
    compensations = (False,) if changes.get("encoding") == "offset" else (False, True)
    for compensation in compensations:
        plan = dataclasses.replace(Plan.default(profile), partner_compensation=compensation, **changes)
        ours = held(program(weights, profile, seed=1, plan=plan), 40)
        theirs = held(ReferenceCrossbar(weights, profile, plan, seed=1), 40)
        assert ours == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("changes", PLANS[:2])
def test_nonlinear_currents(changes: dict[str, Any]) -> None:
    profile = dataclasses.replace(
        crossbar.profile("milo2021"), word_line_ohm=0.0, bit_line_ohm=0.0, programming_noise=None,
        read_noise=None, rows=16, columns=32, dac_bits=None, adc_bits=None,
    )  # fmt: skip
    plan = dataclasses.replace(Plan.default(profile), **changes)
    weights, x = normal(70, 40), normal(40, 5, seed=1)
    ours = program(weights, profile, seed=1, plan=plan).apply(x)
    theirs = ReferenceCrossbar(weights, profile, plan, seed=1).apply(x)
    assert np.abs(theirs - weights @ x).max() > 1e-2  # there is something to agree on
    assert ours == pytest.approx(theirs, abs=2e-4)


@pytest.mark.parametrize("changes", PLANS[:2])
def test_wires(changes: dict[str, Any]) -> None:
    profile = dataclasses.replace(QUIET, word_line_ohm=20.0, bit_line_ohm=20.0)
    plan = dataclasses.replace(Plan.default(profile), **changes)
    weights, x = normal(40, 24), normal(24, 5, seed=1)
    programmed = program(weights, profile, seed=1, plan=plan)
    theirs = ReferenceCrossbar(weights, profile, plan, seed=1).apply(x)
    assert np.abs(theirs - weights @ x).max() > 1e-2
    assert programmed.apply(x) == pytest.approx(theirs, abs=1e-4)


def test_wires_weaken_read_noise() -> None:
    # Small noise: the reference lets no cell of a network conduct less than nothing.
    small = ConstantNoise(sd=0.5)
    profile = dataclasses.replace(QUIET, word_line_ohm=40.0, bit_line_ohm=40.0, read_noise=small)
    weights = normal(20, 16)
    x = np.repeat(normal(16, 1, seed=1), 300, axis=1)
    ours = program(weights, profile, seed=1).apply(x).var(axis=1).sum()
    theirs = ReferenceCrossbar(weights, profile, seed=1).apply(x).var(axis=1).sum()
    unfolded = dataclasses.replace(Plan.default(profile), fold_ir_drop=False)
    without = program(weights, profile, seed=1, plan=unfolded).apply(x).var(axis=1).sum()
    assert theirs < without / 1.2
    assert ours == pytest.approx(theirs, rel=0.15)


@pytest.mark.parametrize("mode", ["max", "calibrated", "column"])
@pytest.mark.parametrize("changes", [*PLANS, {"column_gain": True}])
def test_converters(mode: str, changes: dict[str, Any]) -> None:
    profile = dataclasses.replace(
        QUIET, dac_bits=6, adc_bits=6, adc_range=mode, programming_noise=None, stuck_on_rate=0.02
    )
    plan = dataclasses.replace(Plan.default(profile), **changes)
    if plan.replicas > 1 and mode == "column":
        pytest.skip("replicas differ by faults, and only the reference gives them one range together")
    weights, x = normal(70, 40), normal(40, 30, seed=1)
    ours = program(weights, profile, seed=1, plan=plan).apply(x)
    theirs = ReferenceCrossbar(weights, profile, plan, seed=1).apply(x)
    if not plan.column_gain:  # ours is found before the ADC
        # Rounding in float32 takes a few sums to the next code: else all are the same.
        assert (np.abs(ours - theirs) > 1e-4 * np.abs(theirs).max()).mean() < 0.02
    assert np.linalg.norm(ours - theirs) < 0.02 * np.linalg.norm(theirs)
