from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossbar.error_bound import arithmetic_dtype, product_error_bound
from crossbar.exact.narrow import COLUMNS_MAX, NarrowKernels
from crossbar.ideal import DTYPES, IdealEngine
from crossbar.kernels.compiling import cache_folder, is_whole

# Four compilations on a machine that does other things too.
READY_S = 120.0


@pytest.fixture(scope="module")
def caches(request: pytest.FixtureRequest) -> Path:
    cache = request.config.cache
    assert cache is not None
    return Path(cache.mkdir("kernels"))


@pytest.fixture(scope="module")
def kernels(caches: Path) -> NarrowKernels:
    """Kernels for all dtypes, compiled once for all test runs with the same sources."""
    failures: list[str] = []
    made = NarrowKernels(caches, failures.append, worth_bytes=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crossbar.exact.narrow._NICE", 0)
        for name in DTYPES:
            made.get(np.dtype(name), 0)
        assert made.wait(READY_S), failures
    return made


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 600),
    columns=st.one_of(st.integers(1, 300), st.integers(4000, 4300)),
    panel_columns=st.integers(1, COLUMNS_MAX),
    dtype=st.sampled_from(DTYPES),
    transposed=st.booleans(),
)
def test_compiled_products_keep_the_stated_bound_and_ignore_their_company(
    kernels: NarrowKernels,
    seed: int,
    rows: int,
    columns: int,
    panel_columns: int,
    dtype: str,
    transposed: bool,
) -> None:
    rng = np.random.default_rng(seed)
    weights = (rng.standard_normal((rows, columns)) * 40).astype(dtype)
    panel = rng.standard_normal((panel_columns, rows if transposed else columns))
    panel = panel.astype(arithmetic_dtype(dtype))
    partition = IdealEngine(kernels).program(weights)
    multiply = partition.multiply_transposed if transposed else partition.multiply
    got = multiply(panel)

    wide = np.longdouble if panel_columns * rows * columns < 1e5 else np.float64
    exact = panel.astype(wide) @ (weights if transposed else weights.T).astype(wide)
    # Where float64 is the reference it may be as far off as the product itself.
    allowed = product_error_bound(weights, panel, transposed=transposed)
    assert (np.abs(got - exact) <= allowed).all()
    assert got.dtype == (np.float64 if transposed else panel.dtype)

    # Two columns: one alone goes by BLAS where weights need no widening.
    first = np.ascontiguousarray(panel[[0, -1]])
    if panel_columns > 1:
        np.testing.assert_array_equal(multiply(first), got[[0, -1]])


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_no_number_goes_through_and_harms_no_other_row(kernels: NarrowKernels, dtype: str) -> None:
    panel = np.ones((2, 70), arithmetic_dtype(dtype))
    panel[0, 3], panel[1, 5] = np.nan, np.inf
    weights = np.ones((5, 70), dtype)
    if dtype != "int8":
        weights[4, 69] = -np.inf
    with np.errstate(invalid="ignore"):
        expected = panel @ weights.T.astype(panel.dtype)
    np.testing.assert_array_equal(IdealEngine(kernels).program(weights).multiply(panel), expected)


def test_no_product_waits_for_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()
    monkeypatch.setattr("crossbar.exact.narrow._made", lambda directory, dtype: never.wait())
    partition = IdealEngine(NarrowKernels(tmp_path, worth_bytes=0)).program(np.eye(9, dtype=np.float32))
    panel = np.arange(18, dtype=np.float32).reshape(2, 9)
    np.testing.assert_array_equal(partition.multiply(panel), panel)
    never.set()


def test_kernels_are_made_when_there_was_enough_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    monkeypatch.setattr(NarrowKernels, "_make", lambda self, dtype: made.append(dtype.name))
    kernels = NarrowKernels(tmp_path, worth_bytes=3 * 9 * 9 * 4)
    partition = IdealEngine(kernels).program(np.eye(9, dtype=np.float32))
    for _ in range(2):
        partition.multiply(np.ones((2, 9)))
        partition.multiply(np.ones((1, 9)))
        partition.multiply(np.ones((COLUMNS_MAX + 1, 9)))
    kernels.wait(READY_S)
    assert made == []
    for _ in range(2):
        partition.multiply_transposed(np.ones((COLUMNS_MAX, 9)))
    kernels.wait(READY_S)
    assert made == ["float32"]


def test_where_kernels_cannot_be_made_products_go_on_and_somebody_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no directory")
    told: list[str] = []
    kernels = NarrowKernels(tmp_path / "cache", told.append, worth_bytes=0)
    partition = IdealEngine(kernels).program(np.eye(9, dtype=np.float32))
    panel = np.arange(18, dtype=np.float32).reshape(2, 9)
    for _ in range(3):
        np.testing.assert_array_equal(partition.multiply(panel), panel)
        assert not kernels.wait(READY_S)
    assert len(told) == 1
    assert "cache" in told[0]


def test_kernels_that_compute_wrong_numbers_are_not_used(
    kernels: NarrowKernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crossbar.kernels import compiling, narrow

    def wrong(weights: np.ndarray, panel: np.ndarray, product: np.ndarray) -> None:
        product[...] = panel @ weights.T
        product[0, -1] += 1e6

    monkeypatch.setattr(compiling, "compile_in_child", lambda *_, **__: None)
    monkeypatch.setattr(compiling, "load", lambda *_: None)
    monkeypatch.setattr(narrow, "multiply", wrong)
    told: list[str] = []
    suspicious = NarrowKernels(tmp_path, told.append, worth_bytes=0)
    assert suspicious.get(np.dtype(np.float32), 0) is None
    assert not suspicious.wait(READY_S)
    assert "wrong numbers" in told[0]


def test_each_dtype_is_loaded_from_its_own_cache_and_nothing_else_is(
    kernels: NarrowKernels, caches: Path
) -> None:
    script = (
        "import pathlib, sys\n"
        "import crossbar.kernels.narrow as narrow\n"  # looks for compiled code elsewhere, until it is told
        "from crossbar.kernels import compiling\n"
        "for dtype in ('int8', 'float32'):\n"
        "    compiling.load(pathlib.Path(sys.argv[1]), 'narrow-' + dtype)\n"
        "for kernel in (narrow.multiply, narrow.multiply_transposed):\n"
        "    print(sum(kernel.stats.cache_misses.values()), len(kernel.signatures))\n"
        "print('crossbar.kernels.reading' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", script, str(caches)], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["0", "2", "0", "2", "False"]
    assert is_whole(cache_folder(caches, "narrow-int8"))


def test_numba_is_not_imported_before_it_is_wanted() -> None:
    script = (
        "import sys, numpy, pathlib\n"
        "from crossbar.ideal import IdealEngine\n"
        "from crossbar.exact.narrow import NarrowKernels\n"
        "kernels = NarrowKernels(pathlib.Path('/nonexistent'), worth_bytes=0)\n"
        "partition = IdealEngine(kernels).program(numpy.eye(3, dtype='f4'))\n"
        "partition.multiply(numpy.ones((1, 3))); partition.multiply(numpy.ones((17, 3)))\n"
        "print('numba' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
