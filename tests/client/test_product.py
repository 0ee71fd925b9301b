"""Products: every form of X, panels, what is refused here, and how they came about."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fake_daemon import FakeDaemon, ServedCall
from hypothesis import given, settings
from hypothesis import strategies as st

from sedmad.client import Mesh
from sedmad.client.product import PANEL_BYTES_MAX, PANELS_IN_FLIGHT, panel_columns
from sedmad.core.partitioning import Partitioning
from sedmad.errors import ProtocolViolation, ShapeMismatch, UnsupportedDtype, UsageError
from sedmad.wire import messages as wire


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("columns", [None, 0, 1, 64, 65, 300])
def test_products_are_those_of_numpy(
    mesh: Mesh, rng: np.random.Generator, dtype: type, columns: int | None
) -> None:
    weights = rng.standard_normal((70, 50)).astype(dtype)
    w = mesh.put("w", weights)
    shape = (50,) if columns is None else (50, columns)
    x = rng.standard_normal(shape).astype(dtype)
    turned = rng.standard_normal((70, *shape[1:])).astype(dtype)
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype is np.float32 else {"rtol": 1e-11, "atol": 1e-11}
    for got, expected in (
        (w @ x, weights @ x),
        (w.apply(x), weights @ x),
        (w.T @ turned, weights.T @ turned),
        (w.apply(turned, transpose=True), weights.T @ turned),
        (w.T.apply(x, transpose=True), weights @ x),
        (w.T.T @ x, weights @ x),
        (turned.T @ w, turned.T @ weights),
        (x.T @ w.T, x.T @ weights.T),
    ):
        assert got.dtype == dtype
        np.testing.assert_allclose(got, expected, **tolerance)


@pytest.mark.parametrize("dtype", [np.float16, np.int8])
def test_narrow_dtypes_give_float32(mesh: Mesh, rng: np.random.Generator, dtype: type) -> None:
    weights = (20 * rng.standard_normal((70, 50))).astype(dtype)
    w = mesh.put("w", weights)
    x = rng.standard_normal((50, 3))
    for got, expected in ((w @ x, weights @ x), (x.T @ w.T, x.T @ weights.T)):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", [bool, np.int8, np.uint8, np.int32, np.int64, np.uint64])
def test_integers_stay_integers_for_int8(mesh: Mesh, rng: np.random.Generator, kind: type) -> None:
    weights = rng.integers(-128, 128, (70, 50)).astype(np.int8)
    w = mesh.put("w", weights)
    x = rng.integers(0, 2, (50, 3)).astype(kind)
    got = w @ x
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, weights.astype(np.int64) @ x.astype(np.int64))
    with pytest.raises(UsageError, match="int32"):
        w @ np.full(50, 2**31)
    assert (w @ np.full(50, 2.0**31)).dtype == np.float32


@pytest.mark.parametrize(
    "x",
    [
        np.arange(12, dtype=np.int64).reshape(4, 3),
        np.arange(12, dtype=">f4").reshape(4, 3),
        np.asfortranarray(np.arange(12.0).reshape(4, 3)),
        np.arange(24.0).reshape(4, 6)[:, ::-2],
        np.arange(24.0).reshape(8, 3)[::2],
        np.array([[True, False, True]] * 4),
        [[1, 2, 3]] * 4,
    ],
)
def test_every_form_of_real_numbers_is_converted(mesh: Mesh, x: np.ndarray) -> None:
    w = mesh.put("w", np.eye(4))
    result = w @ x
    assert result.dtype == np.float64
    np.testing.assert_array_equal(result, np.asarray(x, np.float64))


def test_what_is_not_finite_goes_through(mesh: Mesh) -> None:
    w = mesh.put("w", np.eye(3))
    result = w @ np.array([np.nan, 1.0, 2.0])
    assert np.isnan(result).all()
    result = w @ np.array([[np.inf, 1.0], [1.0, 1.0], [1.0, 1.0]])
    assert result[0, 0] == np.inf
    assert (result[:, 1] == 1.0).all()


@pytest.mark.parametrize("shape", [(5,), (5, 4), (3, 4), (), (4, 2, 2), (1, 4)])
def test_shapes_that_do_not_fit_are_refused_here(
    daemon: FakeDaemon, mesh: Mesh, shape: tuple[int, ...]
) -> None:
    w = mesh.put("w", np.ones((3, 4)))
    with pytest.raises(ShapeMismatch, match=r"3 x 4") as caught:
        w.apply(np.ones(shape))
    assert str(shape) in str(caught.value)
    assert not any(call.request.method.endswith("ApplyMatrix") for call in daemon.calls)


def test_x_for_the_transposed_matrix_is_recognised(mesh: Mesh) -> None:
    w = mesh.put("w", np.ones((3, 4)))
    with pytest.raises(ShapeMismatch, match="--transpose"):
        w @ np.ones(3)


@pytest.mark.parametrize("x", [np.ones(4, complex), np.array(["a"] * 4), np.array([None] * 4)])
def test_what_is_no_real_number_is_refused(mesh: Mesh, x: np.ndarray) -> None:
    w = mesh.put("w", np.ones((3, 4)))
    with pytest.raises(UnsupportedDtype):
        w @ x


def test_several_panels_are_under_way_at_once_but_not_all(daemon: FakeDaemon, mesh: Mesh) -> None:
    w = mesh.put("w", np.eye(8))
    running, peak = [0], [0]

    def count(call: ServedCall) -> None:
        with call.changed:
            running[0] += 1
            peak[0] = max(peak[0], running[0])
            if peak[0] < PANELS_IN_FLIGHT:
                call.changed.wait_for(lambda: peak[0] == PANELS_IN_FLIGHT, 10)
            call.changed.notify_all()
            running[0] -= 1
        daemon.ApplyMatrix(call)

    daemon.faults["ApplyMatrix"] = count
    x = np.arange(8 * 64 * 10, dtype=float).reshape(8, 640)
    np.testing.assert_array_equal(w @ x, x)
    assert peak[0] == PANELS_IN_FLIGHT


def test_a_column_of_many_frames_fits(mesh: Mesh) -> None:
    """Both X and Y of one column are longer than the credit of a call."""
    values = np.ones((1_200_000, 1))
    w = mesh.put("w", values)
    np.testing.assert_array_equal(w @ np.array([3.0]), np.full(1_200_000, 3.0))
    np.testing.assert_array_equal(w.T @ np.ones(1_200_000), [1_200_000.0])


@settings(deadline=None)
@given(
    rows=st.integers(1, 3_000_000),
    columns=st.integers(1, 1 << 19),
    itemsize=st.sampled_from([1, 2, 4, 8]),
    transposed=st.booleans(),
)
def test_panels_are_never_wider_than_daemons_allow(
    rows: int, columns: int, itemsize: int, transposed: bool
) -> None:
    partitioning = Partitioning(rows, columns, itemsize)
    x_length, y_length = (rows, columns) if transposed else (columns, rows)
    width = panel_columns(x_length, y_length, max(4, itemsize), transposed=transposed)
    allowed = partitioning.transposed_panel_columns if transposed else partitioning.panel_columns
    assert 1 <= width <= allowed
    assert width == 1 or width * max(x_length, y_length) * max(4, itemsize) <= PANEL_BYTES_MAX


BAD_ANSWERS = {
    "too short": (wire.ApplyMatrixResponse(data_type=wire.DATA_TYPE_FLOAT64, length=3), bytes(16)),
    "too long": (wire.ApplyMatrixResponse(data_type=wire.DATA_TYPE_FLOAT64, length=3), bytes(32)),
    "another dtype": (wire.ApplyMatrixResponse(data_type=wire.DATA_TYPE_FLOAT32, length=3), bytes(24)),
    "another length": (wire.ApplyMatrixResponse(data_type=wire.DATA_TYPE_FLOAT64, length=4), bytes(24)),
    "nothing": (wire.ApplyMatrixResponse(), b""),
}


@pytest.mark.parametrize("what", BAD_ANSWERS)
def test_an_answer_of_another_form_is_never_taken(daemon: FakeDaemon, mesh: Mesh, what: str) -> None:
    w = mesh.put("w", np.ones((3, 4)))
    response, payload = BAD_ANSWERS[what]
    daemon.faults["ApplyMatrix"] = lambda call: call.respond(response, payload)
    with pytest.raises(ProtocolViolation):
        w @ np.ones(4)


def test_an_explanation_tells_of_every_panel(mesh: Mesh) -> None:
    w = mesh.put("w", np.eye(4))
    result, explanation = w.apply(np.ones((4, 70)), explain=True)
    assert result.shape == (4, 70)
    assert [panel.columns for panel in explanation.panels] == [64, 6]
    assert [panel.joined_columns for panel in explanation.panels] == [69, 11]
    assert (explanation.version, explanation.verified) == (1, False)
    answer = explanation.panels[0].answers[0]
    assert (answer.name, answer.partitions, answer.kind) == ("alpha", (0, 1, 2, 5), "resident")
    assert explanation.elapsed_ms > 0


def test_a_product_is_of_one_version_whatever_happens_meanwhile(daemon: FakeDaemon, mesh: Mesh) -> None:
    """The matrix is replaced between two panels: all columns are of the new version."""
    w = mesh.put("w", np.eye(4))

    def replace_on_the_way(call: ServedCall) -> None:
        if len([c for c in daemon.calls if c.request.method.endswith("ApplyMatrix")]) == 2:
            daemon.store("w", np.eye(4) * 2)
        daemon.ApplyMatrix(call)

    daemon.faults["ApplyMatrix"] = replace_on_the_way
    np.testing.assert_array_equal(w @ np.ones((4, 200)), np.full((4, 200), 2.0))


def test_products_of_several_threads_with_one_matrix(mesh: Mesh, rng: np.random.Generator) -> None:
    weights = rng.standard_normal((60, 40))
    w = mesh.put("w", weights)
    panels = [rng.standard_normal((40, width)) for width in (1, 70, 130, 5)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(w.apply, panels))
    for result, panel in zip(results, panels, strict=True):
        np.testing.assert_allclose(result, weights @ panel, rtol=1e-11, atol=1e-11)
