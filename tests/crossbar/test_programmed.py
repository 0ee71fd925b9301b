"""Crossbars against plain arithmetic, and a vector against the same vector in company."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import crossbar
from crossbar.devices import DeviceProfile
from crossbar.devices.laws import ConstantNoise, PolynomialNoise
from crossbar.errors import NetworkInvalid, PlanInvalid, WeightsInvalid
from crossbar.planning.plan import Plan
from crossbar.programmed import program

SILENT = DeviceProfile(
    name="silent", conductance_min_siemens=1e-6, conductance_max_siemens=1e-4,
    rows=32, columns=24, dac_bits=None, adc_bits=None,
)  # fmt: skip
NOISY = dataclasses.replace(
    SILENT,
    name="noisy",
    dac_bits=8,
    adc_bits=8,
    programming_noise=PolynomialNoise(coefficients=(0.5, 0.02)),
    read_noise=ConstantNoise(sd=1.0),
)


def normal(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def test_devices_without_faults_of_any_kind_multiply_exactly() -> None:
    weights, x = normal(50, 70), normal(70, 9, seed=1)
    for changes in ({}, {"encoding": "offset"}, {"slices": 3}, {"replicas": 2}, {"scale": "matrix"}):
        plan = dataclasses.replace(Plan.default(SILENT), **changes)
        programmed = program(weights, SILENT, seed=1, plan=plan)
        assert programmed.apply(x) == pytest.approx(weights @ x, abs=2e-4)
        assert programmed.held_weights() == pytest.approx(weights, abs=1e-5)
        z = normal(50, 9, seed=2)
        assert programmed.apply_transposed(z) == pytest.approx(weights.T @ z, abs=2e-4)


@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (200, 1), (3, 5), (24, 32), (25, 33), (48, 64)])
@pytest.mark.parametrize("vectors", [1, 3, 5, 70])
def test_any_shape_fits(shape: tuple[int, int], vectors: int) -> None:
    weights, x = normal(*shape), normal(shape[1], vectors, seed=1)
    programmed = program(weights, SILENT, seed=1)
    assert programmed.shape == shape
    assert programmed.apply(x) == pytest.approx(weights @ x, abs=1e-4)
    z = normal(shape[0], vectors, seed=2)
    transposed = programmed.apply_transposed(z)
    assert transposed.dtype == np.float64
    assert transposed == pytest.approx(weights.T @ z, abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 90),
    st.integers(2, 70),
    st.sampled_from(("differential", "offset")),
    st.integers(0, 1 << 64),
)
def test_a_vector_meets_the_same_noise_alone_and_in_company(
    outputs: int, inputs: int, vectors: int, encoding: str, request_number: int
) -> None:
    weights, panel = normal(outputs, inputs), normal(vectors, inputs, seed=1)
    keys = np.array([crossbar.randomness.key(request_number, j) for j in range(vectors)], np.uint64)
    plan = dataclasses.replace(Plan.default(NOISY), encoding=encoding)
    for profile in (dataclasses.replace(NOISY, adc_bits=None), NOISY):
        programmed = program(weights, profile, seed=3, plan=plan)
        z = normal(vectors, outputs, seed=2)
        for multiply, given_panel in (
            (programmed.multiply, panel),
            (programmed.multiply_transposed, z),
        ):
            joined = multiply(given_panel, keys)
            alone = np.concatenate(
                [multiply(given_panel[j : j + 1], keys[j : j + 1]) for j in range(vectors)]
            )
            magnitude = np.abs(given_panel).max() * np.sqrt(given_panel.shape[1]) * np.abs(weights).max()
            off = np.abs(joined - alone) > 1e-5 * magnitude
            # Rounding may lift a sum over the edge between two codes: rare, and a step of an ADC each.
            assert off.sum() <= (0 if profile.adc_bits is None else 1 + off.size // 200)
            assert np.abs(joined - alone).max() <= magnitude


def test_the_same_request_draws_the_same_noise_and_another_one_does_not() -> None:
    weights, x = normal(40, 60), normal(60, 5, seed=1)
    programmed, again = program(weights, NOISY, seed=1), program(weights, NOISY, seed=1)
    assert np.array_equal(programmed.apply(x, request=7), again.apply(x, request=7))
    assert not np.array_equal(programmed.apply(x, request=7), programmed.apply(x, request=8))
    assert not np.array_equal(programmed.apply(x), programmed.apply(x))
    assert not np.array_equal(program(weights, NOISY, seed=2).apply(x, request=7), again.apply(x, request=7))


def test_threads_do_not_disturb_each_other() -> None:
    weights, x = normal(100, 80), normal(80, 70, seed=1)
    programmed = program(weights, NOISY, seed=1)
    expected = [programmed.apply(x[:, : 10 + n], request=n) for n in range(20)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: programmed.apply(x[:, : 10 + n], request=n), range(20)))
    for one, other in zip(expected, found, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1e-35, 1e-8, 1.0, 1e30])
def test_products_have_the_dtype_of_the_weights_and_any_magnitude(dtype: Any, size: float) -> None:
    weights, x = (normal(30, 40) * size).astype(dtype), normal(40, 6, seed=1, dtype=dtype)
    programmed = program(weights, SILENT, seed=1)
    product = programmed.apply(x)
    assert product.dtype == dtype
    assert product / size == pytest.approx(weights @ x / size, abs=1e-4)


def test_zeros_stay_zeros() -> None:
    assert not program(np.zeros((40, 50), np.float32), NOISY, seed=1).apply(normal(50, 3)).any()
    weights = normal(40, 50)
    weights[7] = 0
    programmed = program(weights, NOISY, seed=1)
    assert not programmed.apply(normal(50, 3))[7].any()
    assert not programmed.apply(np.zeros((50, 3), np.float32)).any()
    assert np.isfinite(programmed.apply_transposed(normal(40, 3))).all()


def test_a_constant_matrix_is_programmed_like_any_other() -> None:
    programmed = program(np.full((40, 50), 3.5, np.float32), NOISY, seed=1)
    assert programmed.error(normal(50, 64)) < 0.2


def test_vectors_that_are_not_finite_spoil_themselves_alone() -> None:
    programmed = program(normal(40, 50), NOISY, seed=1)
    x = normal(50, 6, seed=1)
    whole = programmed.apply(x, request=1)
    x[3, 1], x[4, 2] = np.nan, np.inf
    found = programmed.apply(x, request=1)
    assert np.isnan(found[:, 1:3]).all()
    assert np.array_equal(np.delete(found, (1, 2), axis=1), np.delete(whole, (1, 2), axis=1))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    weights = normal(4, 5)
    weights[1, 2] = value
    with pytest.raises(WeightsInvalid, match="cannot be programmed"):
        program(weights, NOISY, seed=1)


def test_shapes_that_do_not_fit_are_refused() -> None:
    for shape in ((0, 5), (5, 0), (5,), (2, 3, 4)):
        with pytest.raises(WeightsInvalid):
            program(np.zeros(shape, np.float32), NOISY, seed=1)
    programmed = program(normal(4, 5), NOISY, seed=1)
    with pytest.raises(WeightsInvalid, match=r"\(5, vectors\)"):
        programmed.apply(normal(4, 5))
    with pytest.raises(WeightsInvalid, match=r"\(4, vectors\)"):
        programmed.apply_transposed(normal(5, 5))
    with pytest.raises(PlanInvalid, match="64 x 24"):
        program(normal(4, 5), NOISY, seed=1, plan=Plan(rows=64, columns=24))


def test_digital_plans_and_ideal_devices_are_exact() -> None:
    weights, x = normal(30, 40), normal(40, 5, seed=1)
    digital = dataclasses.replace(Plan.default(NOISY), digital=True)
    for programmed in (
        program(weights, NOISY, seed=1, plan=digital),
        program(weights, crossbar.profile("ideal"), seed=1),
    ):
        assert programmed.apply(x) == pytest.approx(weights @ x, abs=1e-5)
        assert programmed.memory_bytes == 0
        assert programmed.error(x) < 1e-6
        assert programmed.report().cells_allocated == 0


def test_levers_lower_the_error() -> None:
    weights, x = normal(120, 200), normal(200, 64, seed=5)
    faulty = dataclasses.replace(SILENT, stuck_on_rate=0.002, stuck_off_rate=0.008)
    plain = Plan.default(faulty)

    def error(**changes: Any) -> float:
        return program(weights, faulty, seed=4, plan=dataclasses.replace(plain, **changes)).error(x)

    naive = error()
    partner = error(partner_compensation=True)
    both = error(partner_compensation=True, assignment="columns")
    spares = error(partner_compensation=True, assignment="rows_and_columns", spare_columns=3)
    assert spares < both < partner / 2 < naive / 2
    assert error(residual_share=0.02) < naive / 20
    quiet = dataclasses.replace(NOISY, read_noise=None)
    base = Plan.default(quiet)
    once = program(weights, quiet, seed=4, plan=base)
    verified = program(
        weights, quiet, seed=4,
        plan=dataclasses.replace(base, write_verify_tolerance=0.005, write_verify_tries=20),
    )  # fmt: skip
    assert verified.error(x) < once.error(x) / 1.5
    assert verified.report().programming_pulses > once.report().programming_pulses


def test_a_residual_of_everything_mends_everything() -> None:
    weights = normal(30, 40)
    silent_reads = dataclasses.replace(NOISY, read_noise=None, dac_bits=None, adc_bits=None)
    plan = dataclasses.replace(Plan.default(silent_reads), residual_share=1.0)
    programmed = program(weights, silent_reads, seed=1, plan=plan)
    assert programmed.held_weights() == pytest.approx(weights, abs=1e-5)
    assert programmed.error(normal(40, 8)) < 1e-5
    z = normal(30, 8)
    assert programmed.apply_transposed(z) == pytest.approx(weights.T @ z, abs=1e-4)


def test_gains_are_not_turned_for_what_the_residual_corrects() -> None:
    weights, x = normal(48, 64), normal(64, 256, seed=5)
    faulty = dataclasses.replace(SILENT, stuck_on_rate=0.01, stuck_off_rate=0.01)
    plan = dataclasses.replace(Plan.default(faulty), residual_share=0.06)
    without = program(weights, faulty, seed=4, plan=plan).error(x)
    gained = program(weights, faulty, seed=4, plan=dataclasses.replace(plan, column_gain=True)).error(x)
    assert without < 1e-5  # the residual holds all that is stuck
    assert gained < 1e-5  # 0.07 if gains follow the stuck devices


def test_ageing_keeps_the_devices_and_compensation_helps() -> None:
    base = dataclasses.replace(
        crossbar.profile("pcm_nandakumar2019"), word_line_ohm=0.0, bit_line_ohm=0.0, rows=64, columns=64
    )
    weights, x = normal(64, 128), normal(128, 64, seed=2)
    fresh = program(weights, base, seed=1)
    assert np.array_equal(fresh.aged(0.0).apply(x, request=1), fresh.apply(x, request=1))
    year = 365 * 86400.0
    aged, bare = fresh.aged(year), fresh.aged(year, compensated=False)
    assert fresh.error(x) < aged.error(x) < bare.error(x) / 1.5
    assert aged.seconds == year
    assert np.array_equal(aged.apply(x, request=1), fresh.aged(year).apply(x, request=1))


def test_mapped_and_transposed_weights_are_taken_as_they_are() -> None:
    weights = normal(33, 65)
    x = normal(65, 4, seed=1)
    expected = program(weights, NOISY, seed=1).apply(x, request=1)
    frozen = weights.copy()
    frozen.flags.writeable = False
    for other in (frozen, np.asfortranarray(weights), weights.astype(np.float64)):
        assert program(other, NOISY, seed=1).apply(x.astype(other.dtype), request=1) == pytest.approx(
            expected, abs=1e-4 + 0.3 * (other.dtype == np.float64)
        )


@pytest.mark.parametrize("size", [1e-200, 1e-40, 1e200])
def test_weights_that_float32_does_not_hold_are_refused_on_arrays_alone(size: float) -> None:
    weights, x = normal(30, 40, dtype=np.float64) * size, normal(40, 6, seed=1, dtype=np.float64)
    with pytest.raises(WeightsInvalid, match="float32"):
        program(weights, NOISY, seed=1)
    with pytest.raises(WeightsInvalid, match="float32"):
        crossbar.partition(weights, NOISY, 0.1)
    assert np.array_equal(program(weights, "ideal", seed=1).apply(x), (x.T @ weights.T).T)


def test_what_is_no_real_number_is_refused() -> None:
    for wrong in (normal(4, 5) + 1j, np.array([["a", "b"]]), np.array([[None]])):
        with pytest.raises(WeightsInvalid, match="real numbers"):
            program(wrong, NOISY, seed=1)
        with pytest.raises(WeightsInvalid, match="real numbers"):
            crossbar.partition(wrong, NOISY, 0.1)
    with pytest.raises(WeightsInvalid, match="real numbers"):
        program(normal(4, 5), NOISY, seed=1).apply(normal(5, 3) + 1j)


def test_calibration_with_nothing_is_refused() -> None:
    with pytest.raises(WeightsInvalid, match="are 0"):
        program(normal(4, 5), NOISY, seed=1, calibration=np.zeros((5, 3), np.float32))
    with pytest.raises(WeightsInvalid, match="are 0"):
        crossbar.partition(normal(4, 5), NOISY, 0.1, inputs=np.zeros((5, 3), np.float32))


def test_whole_numbers_of_numpy_are_seeds_and_requests_too() -> None:
    weights, x = normal(30, 40), normal(40, 6, seed=1)
    expected = program(weights, NOISY, seed=4).apply(x, request=7)
    for whole in (np.int64, np.uint64, np.int8):
        assert np.array_equal(program(weights, NOISY, seed=whole(4)).apply(x, request=whole(7)), expected)
    with pytest.raises(TypeError):
        program(weights, NOISY, seed=1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_ages_that_cannot_be_are_refused(seconds: float) -> None:
    for name in ("ideal", "pcm_nandakumar2019", "generic"):
        with pytest.raises(NetworkInvalid, match="age"):
            program(normal(4, 5), name, seed=1).aged(seconds)
