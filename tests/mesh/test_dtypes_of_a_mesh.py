"""Matrices of every dtype: stored, read, multiplied with both ways, and repaired."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from daemons import Daemon, wait_until
from meshes import MeshOfDaemons
from products import Array, is_right, normal

import sedmad
from sedmad.errors import NonFiniteValues, ShapeMismatch, UsageError
from sedmad.wire.messages import PeerState

ROWS, COLUMNS = 9000, 1000
REPAIRED_S = 60.0


@pytest.fixture(scope="module")
def mesh(make_mesh: Callable[..., MeshOfDaemons]) -> MeshOfDaemons:
    return make_mesh("ann", "ben", "cyd", "dan").start()


@pytest.fixture
def client(mesh: MeshOfDaemons) -> Iterator[sedmad.Mesh]:
    """A client of a daemon that owns nothing."""
    with mesh["ben"].connect() as connected:
        yield connected
        for matrix in connected.matrices():
            connected.remove(matrix.name)


def drawn(dtype: str) -> Array:
    """Return a matrix of several partitions."""
    values = 40 * normal(ROWS, COLUMNS)
    return values.clip(-128, 127).astype(dtype)


def stored(w: Array, mesh: MeshOfDaemons, client: sedmad.Mesh, scale: Array | None = None) -> sedmad.Matrix:
    """Store a matrix at its owner, and return it as another node's client has it."""
    with mesh["ann"].connect() as owner:
        owner.put("w", w, scale=scale)
    wait_until(lambda: "w" in client, "the name to arrive")
    return client["w"]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8"])
def test_a_matrix_of_every_dtype_is_multiplied_with(
    dtype: str, mesh: MeshOfDaemons, client: sedmad.Mesh
) -> None:
    w = drawn(dtype)
    matrix = stored(w, mesh, client)
    assert (matrix.dtype, matrix.shape, matrix.nbytes) == (w.dtype, w.shape, w.nbytes)
    fetched = np.asarray(matrix)
    assert fetched.dtype == w.dtype
    np.testing.assert_array_equal(fetched, w)
    for columns in ((), (3,), (70,)):
        x, z = normal(COLUMNS, *columns, seed=1), normal(ROWS, *columns, seed=2)
        assert is_right(matrix @ x, w, x)
        assert is_right(matrix.T @ z, w, z, transposed=True)
        assert is_right((z.T @ matrix).T, w, z, transposed=True)


def test_int8_times_integers_is_exact(mesh: MeshOfDaemons, client: sedmad.Mesh) -> None:
    w = drawn("int8")
    matrix = stored(w, mesh, client)
    rng = np.random.default_rng(1)
    for dtype in (np.int8, np.uint8, np.int16, np.int64):
        x = rng.integers(0, 120, (COLUMNS, 5)).astype(dtype)
        z = rng.integers(0, 120, ROWS).astype(dtype)
        for got, exact in ((matrix @ x, w.astype(np.int64) @ x), (matrix.T @ z, w.T.astype(np.int64) @ z)):
            assert got.dtype == np.int32
            np.testing.assert_array_equal(got, exact)
    with pytest.raises(UsageError, match="int32"):
        matrix @ np.full(COLUMNS, 2**20)
    with pytest.raises(UsageError, match="int32"):
        matrix @ np.full(COLUMNS, 2**40)


def test_a_scale_multiplies_rows_and_nothing_else(mesh: MeshOfDaemons, client: sedmad.Mesh) -> None:
    w = drawn("int8")
    scale = np.random.default_rng(2).uniform(1e-3, 1e-1, ROWS)
    matrix = stored(w, mesh, client, scale)
    factors = scale.astype(np.float32)
    np.testing.assert_array_equal(matrix.get(), w)
    assert client.inspect("w").scaled
    integers = np.random.default_rng(3).integers(-100, 100, (COLUMNS, 2))
    exact = factors[:, None].astype(np.float64) * (w.astype(np.int64) @ integers)
    got = matrix @ integers
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, exact.astype(np.float32))
    for columns in ((), (20,)):
        x, z = normal(COLUMNS, *columns, seed=4), normal(ROWS, *columns, seed=5)
        assert is_right(matrix @ x, w, x, scale=factors)
        assert is_right(matrix.T @ z, w, z, transposed=True, scale=factors)
    whole = np.random.default_rng(6).integers(-100, 100, ROWS)
    assert is_right(matrix.T @ whole, w, whole, transposed=True, scale=factors)

    # The same values without a scale, or with another, are another matrix.
    with mesh["ann"].connect() as owner:
        for other in (None, 2 * scale):
            with pytest.raises(sedmad.errors.NameTaken):
                owner.put("w", w, scale=other)
        assert owner.upload("w", w, scale=scale).already_stored
        with pytest.raises(ShapeMismatch):
            owner.put("v", w, scale=scale[1:])
        with pytest.raises(ShapeMismatch):
            owner.put("v", w.astype(np.float32), scale=scale)


def test_verbs_take_every_dtype(mesh: MeshOfDaemons, client: sedmad.Mesh, tmp_path: Path) -> None:
    w, ben = drawn("int8")[:100], mesh["ben"]
    np.save(tmp_path / "w.npy", w)
    np.save(tmp_path / "s.npy", np.full(100, 0.5))
    np.save(tmp_path / "x.npy", np.arange(COLUMNS, dtype=np.int16) % 50)
    y = tmp_path / "y.npy"
    ben.run("put", str(tmp_path / "w.npy"), "--name", "w")
    ben.run("apply", "w", str(tmp_path / "x.npy"), "-o", str(y))
    np.testing.assert_array_equal(np.load(y), w.astype(np.int32) @ np.load(tmp_path / "x.npy"))
    ben.run("put", str(tmp_path / "w.npy"), "--name", "w", "--replace", "--scale", str(tmp_path / "s.npy"))
    assert "a factor for each row" in ben.run("inspect", "w")
    assert ben.json("inspect", "w")["scaled"]


def test_float16_that_is_not_finite_is_refused(mesh: MeshOfDaemons, client: sedmad.Mesh) -> None:
    w = np.ones((200, 30), np.float16)
    w[100, 7] = np.inf
    with pytest.raises(NonFiniteValues, match="row 100, column 7"):
        client.put("w", w)
    client.put("w", w, allow_nonfinite=True)
    assert np.isinf((client["w"] @ np.ones(30))[100])


def test_a_float16_matrix_is_repaired_after_a_kill(mesh: MeshOfDaemons, client: sedmad.Mesh) -> None:
    """Last: it costs a daemon."""
    w = drawn("float16")
    matrix = stored(w, mesh, client)
    holders = {copy.name for partition in client.inspect("w").partitions for copy in partition.copies}
    victim: Daemon = mesh[next(name for name in ("cyd", "dan") if name in holders)]
    victim.kill()
    mesh.wait_state(victim, PeerState.PEER_STATE_DEAD)

    def repaired() -> bool:
        copies = [partition.copies for partition in client.inspect("w").partitions]
        return all(len(each) == 2 and victim.name not in {copy.name for copy in each} for each in copies)

    wait_until(repaired, "the copies to be made again", REPAIRED_S)
    x, z = normal(COLUMNS, 4, seed=1), normal(ROWS, 4, seed=2)
    assert is_right(matrix @ x, w, x)
    assert is_right(matrix.T @ z, w, z, transposed=True)
    np.testing.assert_array_equal(matrix.get(), w)
