"""The reference path against formulas written out here: what a product on devices is, on average and in scatter."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from crossbar import irdrop
from crossbar.devices import IDEAL, DeviceProfile, profile
from crossbar.devices.laws import ConstantNoise
from crossbar.errors import PlanInvalid, WeightsInvalid
from crossbar.planning.plan import Plan
from crossbar.reference import ReferenceCrossbar


def devices(**changes: Any) -> DeviceProfile:
    """Devices without any fault but those in `changes`: 0 to 100 uS, arrays of 8 x 8, exact converters."""
    plain: dict[str, Any] = {"rows": 8, "columns": 8, "dac_bits": None, "adc_bits": None}
    return dataclasses.replace(IDEAL, name="tried", **{**plain, **changes})


def plan_for(found: DeviceProfile, **changes: Any) -> Plan:
    return dataclasses.replace(Plan.default(found), **changes)


def random_matrix(*shape: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("encoding", ["differential", "offset"])
@pytest.mark.parametrize("scale", ["matrix", "column"])
@pytest.mark.parametrize("slices", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (19, 21), (3, 40)])
def test_ideal_devices_multiply_exactly(
    encoding: Any, scale: Any, slices: int, shape: tuple[int, int]
) -> None:
    found = devices(conductance_min_siemens=1e-6)
    plan = plan_for(found, encoding=encoding, scale=scale, slices=slices, replicas=2)
    weights, vectors = random_matrix(*shape), random_matrix(shape[1], 3, seed=1)
    assert ReferenceCrossbar(weights, found, plan).apply(vectors) == pytest.approx(
        weights @ vectors, rel=1e-9
    )


def test_weights_and_vectors_of_zeros_give_zeros() -> None:
    found = devices(adc_bits=8, dac_bits=8, adc_range="column")
    zero = ReferenceCrossbar(np.zeros((5, 9)), found).apply(random_matrix(9, 2))
    assert not zero.any()
    assert not ReferenceCrossbar(random_matrix(5, 9), found).apply(np.zeros((9, 2))).any()


@pytest.mark.parametrize("encoding", ["differential", "offset"])
def test_programming_noise_scatters_products_as_the_formula_says(encoding: Any) -> None:
    """Each of two devices a weight deviates by s: var = sum of v^2 x 2 s^2 (scale / window)^2.

    An offset cell's window holds -scale to scale, and all outputs of a tile share the reference's deviation.
    """
    sd, window, outputs = 1e-6, 1e-4, 600
    found = devices(
        conductance_min_siemens=50e-6,
        conductance_max_siemens=150e-6,
        programming_noise=ConstantNoise(sd=1.0),
        rows=16,
        columns=2 if encoding == "offset" else 50,  # a reference of its own for every output
    )
    weights, vector = random_matrix(outputs, 40), random_matrix(40, 1, seed=2)
    plan = plan_for(found, encoding=encoding, scale="matrix")
    error = (ReferenceCrossbar(weights, found, plan).apply(vector) - weights @ vector)[:, 0]
    full = window / (2 if encoding == "offset" else 1)
    expected = np.sqrt(2 * np.square(vector).sum()) * sd * np.abs(weights).max() / full
    assert abs(error.mean()) < 5 * expected / np.sqrt(outputs)
    assert abs(error.std() - expected) < 5 * expected / np.sqrt(2 * outputs)


def test_reads_scatter_afresh_for_every_vector_and_request() -> None:
    found = devices(read_noise=ConstantNoise(sd=2.0))
    weights, vector = random_matrix(10, 20), random_matrix(20, 1, seed=3)
    crossbar = ReferenceCrossbar(weights, found, plan_for(found, scale="matrix"))
    vectors = np.repeat(vector, 400, axis=1)
    error = crossbar.apply(vectors) - weights @ vectors
    expected = np.sqrt(2 * np.square(vector).sum()) * 2e-6 * np.abs(weights).max() / 1e-4
    assert abs(error.mean()) < 5 * expected / np.sqrt(error.size)
    assert abs(error.std() - expected) < 5 * expected / np.sqrt(2 * error.size)
    together = np.corrcoef(error)[~np.eye(10, dtype=bool)]
    assert np.abs(together).max() < 6 / np.sqrt(400)
    assert not np.array_equal(crossbar.apply(vectors[:, :2]), crossbar.apply(vectors[:, :2]))


def test_a_seed_is_a_chip() -> None:
    found = profile("wan2022")
    weights, vectors = random_matrix(10, 20), random_matrix(20, 2, seed=3)
    first, same = (ReferenceCrossbar(weights, found, seed=1).apply(vectors) for _ in range(2))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, ReferenceCrossbar(weights, found, seed=2).apply(vectors))


def test_replicas_are_averaged() -> None:
    found = devices(programming_noise=ConstantNoise(sd=1.0), conductance_min_siemens=20e-6)
    weights, vectors = random_matrix(400, 8), random_matrix(8, 1, seed=4)

    def scatter(replicas: int) -> float:
        plan = plan_for(found, replicas=replicas, scale="matrix")
        return float(np.std(ReferenceCrossbar(weights, found, plan).apply(vectors) - weights @ vectors))

    assert scatter(1) / scatter(4) == pytest.approx(2, rel=0.2)


def test_converters_round_as_written_down() -> None:
    """One tile, 4 bits: inputs to multiples of 1/7, partial sums to multiples of range / 7."""
    found = devices(dac_bits=4, adc_bits=4, adc_range="max")
    weights, vector = random_matrix(6, 8), random_matrix(8, 1, seed=5)
    largest = np.abs(vector).max()
    shares = np.rint(vector / largest * 7) / 7
    step = (8 * np.abs(weights).max(axis=1, keepdims=True)) / 7
    expected = np.clip(np.rint(weights @ shares / step), -7, 7) * step * largest
    assert ReferenceCrossbar(weights, found).apply(vector) == pytest.approx(expected)


def test_finer_ranges_lose_less() -> None:
    weights, vectors = random_matrix(40, 64), random_matrix(64, 50, seed=6)

    def error(adc_range: Any, rows: slice) -> float:
        found = devices(adc_bits=6, adc_range=adc_range, rows=32, columns=40)
        wrong = ReferenceCrossbar(weights, found).apply(vectors) - weights @ vectors
        return float(np.linalg.norm(wrong[rows]) / np.linalg.norm((weights @ vectors)[rows]))

    alike = [error(adc_range, slice(None)) for adc_range in ("max", "calibrated", "column")]
    assert alike[0] > 3 * alike[1] > 3 * alike[2]
    weights[:20] *= 0.01  # one range for all is too wide for these
    assert error("calibrated", slice(20)) > 0.9
    assert error("column", slice(20)) < 0.1


def test_levels_round_weights() -> None:
    found = devices(levels=5)
    weights = np.array([[1.0, 0.6, -0.35, 0.1]])
    product = ReferenceCrossbar(weights, found).apply(np.eye(4))
    assert product == pytest.approx(np.array([[1.0, 0.5, -0.25, 0.0]]))


def test_stuck_devices_and_their_partners() -> None:
    weights, vectors = random_matrix(64, 64), random_matrix(64, 20, seed=7)
    broken = devices(stuck_on_rate=1.0)
    assert ReferenceCrossbar(weights, broken).apply(vectors) == pytest.approx(np.zeros((64, 20)), abs=1e-9)
    found = devices(stuck_on_rate=0.002, stuck_off_rate=0.02, rows=64, columns=64)

    def error(*, compensation: bool) -> float:
        crossbar = ReferenceCrossbar(
            weights, found, plan_for(found, partner_compensation=compensation), seed=3
        )
        return float(np.linalg.norm(crossbar.apply(vectors) - weights @ vectors))

    assert 0 < error(compensation=True) < error(compensation=False)


def test_verifying_leaves_no_device_outside_that_could_be_inside() -> None:
    found = devices(programming_noise=ConstantNoise(sd=3.0), conductance_min_siemens=20e-6)
    weights = random_matrix(64, 8)
    plan = plan_for(found, scale="matrix", write_verify_tolerance=0.01, write_verify_tries=100)
    wrong = ReferenceCrossbar(weights, found, plan).apply(np.eye(8)) - weights
    per_siemens = np.abs(weights).max() / 80e-6
    assert np.abs(wrong).max() <= 2 * 1e-6 * per_siemens * (1 + 1e-9)
    assert wrong.std() > 0.5e-6 * per_siemens


def test_currents_that_are_not_ohmic() -> None:
    found = dataclasses.replace(profile("milo2021"), programming_noise=None, dac_bits=None, adc_bits=None)
    plan = plan_for(found, fold_ir_drop=False)
    product = ReferenceCrossbar(np.array([[1.0]]), found, plan).apply(np.array([[-2.0]]))
    high, low = found.nonlinear_current(np.array([225e-6, 50e-6]), np.full(2, found.read_volts))
    assert product == pytest.approx(np.array([[-2.0 * (high - low) / (175e-6 * found.read_volts)]]))


def test_wires_lose_what_the_network_loses() -> None:
    found = devices(word_line_ohm=20.0, bit_line_ohm=30.0, conductance_min_siemens=1e-6)
    weights, vector = random_matrix(8, 8), random_matrix(8, 1, seed=8)
    product = ReferenceCrossbar(weights, found, plan_for(found, scale="matrix")).apply(vector)
    largest, span = np.abs(weights).max(), 99e-6
    positive, negative = (1e-6 + np.maximum(sign * weights.T, 0) / largest * span for sign in (1, -1))
    currents = [irdrop.solve(g, vector, 20.0, 30.0) for g in (positive, negative)]
    assert product == pytest.approx((currents[0] - currents[1]) * largest / span)
    perfect = ReferenceCrossbar(weights, found, plan_for(found, fold_ir_drop=False)).apply(vector)
    assert perfect == pytest.approx(weights @ vector)


def test_age_weakens_products_and_gains_restore_them() -> None:
    found = dataclasses.replace(profile("pcm_nandakumar2019"), word_line_ohm=0.0, bit_line_ohm=0.0)
    weights, vectors = random_matrix(32, 64), random_matrix(64, 10, seed=9)
    exact = weights @ vectors

    def strength(**changes: Any) -> float:
        crossbar = ReferenceCrossbar(weights, found, plan_for(found, **changes), seconds=30 * 86_400.0)
        return float(np.vdot(crossbar.apply(vectors), exact) / np.vdot(exact, exact))

    assert 0.4 < strength() < 0.65  # (1 + 30 days / 20 s)^-0.06 = 0.51
    assert strength(column_gain=True) == pytest.approx(1, abs=0.1)


def test_a_digital_block_is_exact() -> None:
    found = profile("milo2021")
    weights, vectors = random_matrix(9, 5), random_matrix(5, 2)
    product = ReferenceCrossbar(weights, found, plan_for(found, digital=True)).apply(vectors)
    assert product == pytest.approx(weights @ vectors, rel=1e-12)


def test_what_makes_no_sense_is_refused() -> None:
    for weights in (np.ones(3), np.ones((0, 3)), np.array([[np.nan]]), np.array([[np.inf]])):
        with pytest.raises(WeightsInvalid):
            ReferenceCrossbar(weights, IDEAL)
    crossbar = ReferenceCrossbar(np.ones((2, 3)), IDEAL)
    for vectors in (np.ones(3), np.ones((2, 1)), np.full((3, 1), np.nan)):
        with pytest.raises(WeightsInvalid):
            crossbar.apply(vectors)
    with pytest.raises(PlanInvalid, match="residual_share"):
        ReferenceCrossbar(np.ones((2, 3)), IDEAL, plan_for(IDEAL, residual_share=0.1))
    with pytest.raises(PlanInvalid, match="spare_columns and assignment"):
        ReferenceCrossbar(np.ones((2, 3)), IDEAL, plan_for(IDEAL, spare_columns=2, assignment="columns"))
