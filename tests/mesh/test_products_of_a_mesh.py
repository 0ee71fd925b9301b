"""Products where the partitions lie, against NumPy in float64 within the stated bound."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from daemons import run_verb, short_directory, wait_until
from meshes import MeshOfDaemons
from products import Array, is_right, normal

import sedmad
from sedmad.errors import DeadlineExceeded, MatrixNotFound, ShapeMismatch, UnsupportedDtype

ROWS, COLUMNS = 5000, 1024


@pytest.fixture(scope="module", params=[np.float32, np.float64], ids=["float32", "float64"])
def w(request: pytest.FixtureRequest, four: MeshOfDaemons) -> Iterator[Array]:
    """What is stored as `w`, in several partitions on several nodes."""
    array = normal(ROWS, COLUMNS, dtype=request.param)
    with four["ann"].connect() as client:
        client.put("w", array)
        for daemon in four:
            with daemon.connect() as other:
                wait_until(lambda other=other: "w" in other, f"{daemon.name} to hear of it")
        yield array
    four.empty()


@pytest.fixture(params=["ann", "dan"])
def client(request: pytest.FixtureRequest, four: MeshOfDaemons) -> Iterator[sedmad.Mesh]:
    """A client of the owner's daemon, and one of another's."""
    with four[request.param].connect() as mesh:
        yield mesh


@pytest.mark.parametrize("columns", [None, 1, 150])
def test_products_are_right(columns: int | None, w: Array, client: sedmad.Mesh) -> None:
    width = () if columns is None else (columns,)
    x, z = normal(COLUMNS, *width, seed=1, dtype=w.dtype), normal(ROWS, *width, seed=2, dtype=w.dtype)
    matrix = client["w"]
    assert is_right(matrix @ x, w, x)
    assert is_right(matrix.T @ z, w, z, transposed=True)
    assert is_right((z.T @ matrix).T, w, z, transposed=True)


def test_a_product_of_nothing_has_its_shape(w: Array, client: sedmad.Mesh) -> None:
    assert (client["w"] @ np.zeros((COLUMNS, 0), w.dtype)).shape == (ROWS, 0)


def test_numbers_that_are_none_stay_in_their_column(w: Array, client: sedmad.Mesh) -> None:
    x = normal(COLUMNS, 5, seed=1, dtype=w.dtype)
    x[17, 2], x[99, 4] = np.nan, np.inf
    y = client["w"] @ x
    assert np.isnan(y[:, 2]).all()
    assert not np.isfinite(y[:, 4]).any()
    assert is_right(y[:, [0, 1, 3]], w, x[:, [0, 1, 3]])
    z = normal(ROWS, 3, seed=1, dtype=w.dtype)
    z[-1, 0] = np.nan
    y = client["w"].T @ z
    assert np.isnan(y[:, 0]).all()
    assert is_right(y[:, 1:], w, z[:, 1:], transposed=True)


def test_whole_arrays_come_back_as_numpy_asks(w: Array, client: sedmad.Mesh) -> None:
    matrix = client["w"]
    assert (matrix.shape, matrix.T.shape, matrix.dtype) == (w.shape, w.T.shape, w.dtype)
    assert np.array_equal(np.asarray(matrix), w)


def test_threads_share_a_connection(w: Array, client: sedmad.Mesh) -> None:
    matrix = client["w"]
    failures: list[object] = []

    def multiply(seed: int) -> None:
        try:
            for step in range(3):
                transposed = (seed + step) % 3 == 0
                x = normal(ROWS if transposed else COLUMNS, seed=100 * seed + step, dtype=w.dtype)
                y = matrix.apply(x, transpose=transposed)
                if not is_right(y, w, x, transposed=transposed):
                    failures.append((seed, step))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=multiply, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_an_explanation_tells_who_computed_what(w: Array, client: sedmad.Mesh, four: MeshOfDaemons) -> None:
    x = normal(COLUMNS, 100, seed=1, dtype=w.dtype)
    y, explanation = client["w"].apply(x, explain=True)
    assert is_right(y, w, x)
    # No sketch was drawn, so nobody can have checked the result.
    assert explanation.verified is False
    assert sum(panel.columns for panel in explanation.panels) == 100
    partitions = len(client.inspect("w").partitions)
    for panel in explanation.panels:
        assert panel.joined_columns >= panel.columns
        answered = {index for answer in panel.answers for index in answer.partitions}
        assert answered == set(range(partitions))
        for answer in panel.answers:
            assert four.called(answer.peer_id).name == answer.name
            assert answer.kind in ("resident", "standby")
            assert answer.reason


@pytest.mark.parametrize(
    ("shape", "dtype", "error"),
    [
        ((COLUMNS + 1,), np.float32, ShapeMismatch),
        ((COLUMNS, 2, 2), np.float32, ShapeMismatch),
        ((COLUMNS,), np.complex128, UnsupportedDtype),
    ],
)
def test_what_cannot_be_multiplied_is_refused(
    shape: tuple[int, ...], dtype: npt.DTypeLike, error: type[Exception], w: Array, client: sedmad.Mesh
) -> None:
    with pytest.raises(error) as caught:
        client["w"] @ np.ones(shape, dtype)
    assert caught.value.matrix == "w"


def test_other_real_numbers_are_converted(w: Array, client: sedmad.Mesh) -> None:
    x = np.arange(COLUMNS) % 7
    assert is_right(client["w"] @ x, w, x.astype(w.dtype))
    assert is_right(client["w"] @ list(x), w, x.astype(w.dtype))


@pytest.mark.parametrize("deadline_s", [0.0, 1e-6])
def test_a_deadline_that_has_passed_is_an_error(deadline_s: float, w: Array, client: sedmad.Mesh) -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        client["w"].apply(normal(COLUMNS, dtype=w.dtype), deadline_s=deadline_s)
    assert caught.value.matrix == "w"
    x = normal(COLUMNS, dtype=w.dtype)
    assert is_right(client["w"] @ x, w, x)


def test_the_verb_tells_errors_by_its_exit_code(w: Array, four: MeshOfDaemons) -> None:
    with short_directory() as folder:
        np.save(folder / "x.npy", normal(COLUMNS))
        np.save(folder / "wrong.npy", normal(COLUMNS + 1))

        def apply(name: str, x: str, *options: str) -> int:
            output = ("-o", str(folder / "y.npy"))
            return run_verb(four["ben"].home, "apply", name, str(folder / x), *output, *options).returncode

        assert apply("w", "x.npy", "--deadline", "0s") == DeadlineExceeded.exit_code
        assert apply("w", "wrong.npy") == ShapeMismatch.exit_code
        assert apply("nowhere", "x.npy") == MatrixNotFound.exit_code
        assert not Path(folder / "y.npy").exists()
