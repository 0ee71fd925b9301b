from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossbar.engine import ProgrammedPartition, SelfTest
from crossbar.error_bound import arithmetic_dtype, product_error_bound
from crossbar.ideal import IdealEngine

DTYPES = (np.float32, np.float64)
NARROW_DTYPES = (np.float16, np.int8)  # weights only


def program(weights: np.ndarray[Any, Any]) -> ProgrammedPartition:
    return IdealEngine().program(weights)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 600),
    columns=st.integers(1, 300),
    panel_columns=st.integers(1, 21),
    dtype=st.sampled_from(DTYPES + NARROW_DTYPES),
    panel_dtype=st.sampled_from(DTYPES),
    spread=st.sampled_from((0, 3, 20)),
    transposed=st.booleans(),
)
def test_every_product_keeps_the_stated_bound(
    seed: int,
    rows: int,
    columns: int,
    panel_columns: int,
    dtype: type,
    panel_dtype: type,
    spread: int,
    transposed: bool,
) -> None:
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.uniform(-spread, spread, (rows, 1)) if dtype in DTYPES else 20
    weights = (rng.standard_normal((rows, columns)) * scale).astype(dtype)
    panel = rng.standard_normal((panel_columns, rows if transposed else columns)).astype(panel_dtype)
    partition = program(weights)

    # np.longdouble: the reference must not itself use up the bound of float64 products.
    exact = panel.astype(np.longdouble) @ (weights if transposed else weights.T).astype(np.longdouble)
    got = partition.multiply_transposed(panel) if transposed else partition.multiply(panel)

    assert got.shape == (panel_columns, columns if transposed else rows)
    assert got.dtype == (np.float64 if transposed else arithmetic_dtype(dtype))
    bound = product_error_bound(weights, panel, transposed=transposed)
    assert (np.abs(got - exact) <= bound).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bound_covers_underflow(dtype: type) -> None:
    tiny = float(np.finfo(dtype).tiny)
    weights = np.full((3, 5), tiny, dtype)
    panel = np.full((2, 5), tiny * 1e-3)
    exact = panel.astype(np.longdouble) @ weights.T.astype(np.longdouble)
    assert (np.abs(program(weights).multiply(panel) - exact) <= product_error_bound(weights, panel)).all()


def test_a_column_does_not_depend_on_its_company_beyond_the_bound() -> None:
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((200, 130), dtype=np.float32)
    panel = rng.standard_normal((24, 130), dtype=np.float32)
    partition = program(weights)
    together, bound = partition.multiply(panel), product_error_bound(weights, panel)
    for index in range(24):
        alone = partition.multiply(panel[index : index + 1])
        assert (np.abs(alone - together[index]) <= 2 * bound[index]).all()


@pytest.mark.parametrize("panel_columns", [1, 3, 4, 5, 8])
def test_nan_and_infinity_pass_through_silently_and_stay_in_their_column(panel_columns: int) -> None:
    rng = np.random.default_rng(2)
    weights = rng.standard_normal((70, 40), dtype=np.float32)
    weights[3, 3] = np.inf
    panel = rng.standard_normal((panel_columns, 40))
    clean = program(weights).multiply(panel)
    panel[0, 0], panel[0, 1] = np.nan, 1e300  # the second is infinite in float32
    got = program(weights).multiply(panel)
    assert np.isnan(got[0]).all()
    np.testing.assert_array_equal(got[1:], clean[1:])
    slices = rng.standard_normal((panel_columns, 70))
    slices[0, 0] = np.inf
    shares = program(weights).multiply_transposed(slices)
    assert not np.isfinite(shares[0]).any()
    assert np.isfinite(np.delete(shares[1:], 3, axis=1)).all()


def test_mapped_read_only_weights_are_used_where_they_lie(tmp_path: Path) -> None:
    path = tmp_path / "weights.npy"
    weights = np.random.default_rng(3).standard_normal((128, 64), dtype=np.float32)
    np.save(path, weights)
    mapped = np.load(path, mmap_mode="r")
    partition = program(mapped)
    panel = np.ones((2, 64), np.float32)
    product = partition.multiply(panel)
    assert type(product) is np.ndarray
    np.testing.assert_array_equal(product, program(weights).multiply(panel))
    assert partition.memory_bytes == 0
    assert partition.shape == (128, 64)
    assert path.read_bytes()[-weights.nbytes :] == weights.tobytes()


def test_transposed_shares_add_up_to_the_product() -> None:
    rng = np.random.default_rng(4)
    weights = rng.standard_normal((320, 50), dtype=np.float32)
    panel = rng.standard_normal((6, 320))
    total = np.zeros((6, 50))
    for start in range(0, 320, 128):
        part = slice(start, start + 128)
        total += program(weights[part]).multiply_transposed(panel[:, part])
    exact = panel @ weights.astype(np.float64)
    assert (np.abs(total - exact) <= product_error_bound(weights, panel, transposed=True)).all()


@pytest.mark.parametrize(
    "weights",
    [
        np.zeros((0, 3), np.float32),
        np.zeros((3, 0), np.float32),
        np.zeros(3, np.float32),
        np.zeros((3, 4), np.float32).T,
        np.zeros((3, 4), ">f4"),
        np.frombuffer(bytes(49), np.uint8)[1:].view(np.float32).reshape(3, 4),
    ],
    ids=["no rows", "no columns", "one dimension", "fortran", "big endian", "unaligned"],
)
def test_weights_that_would_be_copied_or_are_empty_are_refused(weights: np.ndarray[Any, Any]) -> None:
    with pytest.raises(ValueError, match="weights must"):
        program(weights)


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(TypeError, match="int64"):
        program(np.zeros((2, 2), np.int64))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="float16"):
        program(np.zeros((2, 2), np.float32)).multiply(np.zeros((1, 2), np.float16))


@pytest.mark.parametrize("panel", [np.zeros((2, 3)), np.zeros(4), np.zeros((1, 4, 1))])
def test_a_panel_that_does_not_fit_is_refused(panel: np.ndarray[Any, Any]) -> None:
    partition = program(np.zeros((5, 4), np.float32))
    with pytest.raises(ValueError, match=r"\(k, 4\)"):
        partition.multiply(panel)
    with pytest.raises(ValueError, match=r"\(k, 5\)"):
        partition.multiply_transposed(panel)


@pytest.mark.parametrize("dtype", DTYPES + NARROW_DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (513, 300)])
def test_the_self_test_passes(dtype: type, shape: tuple[int, int]) -> None:
    weights = (20 * np.random.default_rng(5).standard_normal(shape)).astype(dtype)
    assert program(weights).self_test(np.random.default_rng(6)).passed


def test_the_self_test_leaves_out_what_has_no_bound() -> None:
    weights = np.full((8, 8), 3e38, np.float32)
    weights[0, 0] = np.nan
    assert program(weights).self_test(np.random.default_rng(7)) == SelfTest(measured=0.0, allowed=0.0)


@pytest.mark.parametrize("wrong", [1e-3, np.nan])
def test_the_self_test_notices_a_wrong_product(wrong: float, monkeypatch: pytest.MonkeyPatch) -> None:
    partition = program(np.random.default_rng(8).standard_normal((64, 64), dtype=np.float32))
    right = type(partition).multiply

    def multiply(self: ProgrammedPartition, panel: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        product = right(self, panel)
        product[0, 7] += wrong
        return product

    monkeypatch.setattr(type(partition), "multiply", multiply)
    assert not partition.self_test(np.random.default_rng(9)).passed


def test_the_ideal_engine_computes_on_one_thread_after_start() -> None:
    script = (
        "from crossbar.threads import single_threaded_blas; single_threaded_blas()\n"
        "from threadpoolctl import threadpool_info\n"
        "print({pool['num_threads'] for pool in threadpool_info()})"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "{1}"
