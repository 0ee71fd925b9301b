"""Matrices on their way in and out: whole, in order, under credit, and refused before a byte moves."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from fake_daemon import FakeDaemon, Gone, ServedCall
from hypothesis import given, settings
from hypothesis import strategies as st

from sedmad.client import Mesh
from sedmad.client import source as source_module
from sedmad.client.source import MatrixSource
from sedmad.client.upload import PutProgress
from sedmad.errors import (
    BytesCorrupt,
    InsufficientCapacity,
    MatrixFileInvalid,
    MatrixNotFound,
    MatrixTooLarge,
    NameTaken,
    NonFiniteValues,
    ProtocolViolation,
    SessionLost,
    ShapeMismatch,
    StaleManifest,
    UnsupportedDtype,
    UsageError,
)
from sedmad.wire import messages as wire
from sedmad.wire.calls import CREDIT_BYTES
from sedmad.wire.frame import PAYLOAD_BYTES_MAX, Frame

MATRICES = {
    "one row": np.arange(7, dtype=np.float32).reshape(1, 7),
    "one column": np.arange(7, dtype=np.float64).reshape(7, 1),
    "more than the credit": np.arange(3_000_000, dtype=np.float32).reshape(3000, 1000),
    "Fortran order": np.asfortranarray(np.arange(3_000_000, dtype=np.float32).reshape(3000, 1000)),
    "big-endian": np.arange(12, dtype=">f8").reshape(3, 4),
    "every other column": np.arange(24, dtype=np.float32).reshape(3, 8)[:, ::2],
    "backwards": np.arange(12, dtype=np.float32).reshape(3, 4)[::-1],
    "negative zeros and tiny values": np.array([[-0.0, 5e-324], [np.finfo(float).max, 1.0]]),
}


@pytest.mark.parametrize("what", MATRICES)
@pytest.mark.parametrize("as_file", [False, True])
def test_values_come_back_bit_for_bit(mesh: Mesh, tmp_path: Path, what: str, as_file: bool) -> None:
    values = MATRICES[what]
    little_endian = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    if as_file:
        np.save(tmp_path / "in.npy", values)
    w = mesh.put("w", tmp_path / "in.npy" if as_file else values)
    assert (w.shape, w.dtype, w.nbytes, w.version) == (values.shape, little_endian.dtype, values.nbytes, 1)
    assert w.get().tobytes() == little_endian.tobytes()
    w.save(tmp_path / "out.npy")
    np.save(tmp_path / "expected.npy", little_endian)
    assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "expected.npy").read_bytes()
    w.T.save(tmp_path / "turned.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "turned.npy"), values.T)
    np.testing.assert_array_equal(w.T.get(), values.T)
    assert {path.name for path in tmp_path.iterdir()} >= {"out.npy", "turned.npy"}
    assert not list(tmp_path.glob("*.partial"))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    order=st.sampled_from("CF"),
    dtype=st.sampled_from(["<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "i1"]),
    panel_bytes=st.integers(1, 500),
    chunk_bytes=st.integers(1, 300),
)
def test_chunks_are_the_values_in_c_order(
    rows: int, columns: int, order: str, dtype: str, panel_bytes: int, chunk_bytes: int
) -> None:
    values = np.arange(rows * columns, dtype=dtype).reshape(rows, columns).copy(order)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_module, "PANEL_BYTES", panel_bytes)
        patch.setattr(source_module, "PAYLOAD_BYTES_MAX", chunk_bytes)
        chunks = list(MatrixSource(values).chunks())
    assert all(0 < len(chunk) <= chunk_bytes for chunk in chunks)
    assert b"".join(chunks) == values.astype(np.dtype(dtype).newbyteorder("<"), order="C").tobytes()


def test_no_more_is_sent_than_there_is_credit(daemon: FakeDaemon, mesh: Mesh) -> None:
    full, drained = threading.Event(), threading.Event()

    def take_slowly(call: ServedCall) -> None:
        call.send(wire.PutMatrixResponse())
        with call.changed:
            assert call.changed.wait_for(lambda: call.waiting_bytes == CREDIT_BYTES, 20)
        full.set()
        assert drained.wait(10)
        # The rest of `PutMatrix` would say that it has room once more.
        call.send = lambda message: None
        daemon.PutMatrix(call)

    daemon.faults["PutMatrix"] = take_slowly
    values = np.ones((6, 1 << 20), np.float32)
    storing = threading.Thread(target=mesh.put, args=("w", values))
    storing.start()
    assert full.wait(20)
    assert mesh.status().name == "alpha"
    drained.set()
    storing.join(20)
    assert daemon.last("PutMatrix").waiting_bytes_peak == CREDIT_BYTES
    np.testing.assert_array_equal(daemon.stored["w"].values, values)


def test_a_put_that_has_no_room_moves_no_byte(daemon: FakeDaemon, mesh: Mesh) -> None:
    def refuse(call: ServedCall) -> None:
        raise InsufficientCapacity("no room for w", why="needs 4 GiB, alpha offers 1 GiB", matrix="w")

    daemon.faults["PutMatrix"] = refuse
    with pytest.raises(InsufficientCapacity, match="alpha offers 1 GiB"):
        mesh.put("w", np.ones((1000, 1000)))
    call = daemon.last("PutMatrix")
    assert not len(call.request.payload)
    assert not call.request.end
    assert call.waiting_bytes_peak == 0


def test_a_refusal_on_the_way_ends_the_sending(daemon: FakeDaemon, mesh: Mesh) -> None:
    def refuse_later(call: ServedCall) -> None:
        call.send(wire.PutMatrixResponse())
        call.next_data()
        raise NonFiniteValues("w holds NaN", matrix="w")

    daemon.faults["PutMatrix"] = refuse_later
    with pytest.raises(NonFiniteValues):
        mesh.put("w", np.full((8, 1 << 20), np.nan, np.float32))


def test_nothing_is_kept_of_a_put_whose_file_shrinks_before_it_is_opened(mesh: Mesh, tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.ones((100, 100)))
    (tmp_path / "w.npy").write_bytes((tmp_path / "w.npy").read_bytes()[:-1])
    with pytest.raises(MatrixFileInvalid, match="truncated"):
        mesh.put("w", tmp_path / "w.npy")
    assert "w" not in mesh


def test_progress_is_told_and_ends_with_everything_safe(mesh: Mesh) -> None:
    told: list[PutProgress] = []
    mesh.put("w", np.ones((100, 100)), survive=2, progress=told.append)
    assert told[0] == PutProgress(size_bytes=80_000, received_bytes=0, total_copy_bytes=240_000, safe_bytes=0)
    assert told[-1] == PutProgress(80_000, 80_000, 240_000, 240_000)
    assert [step.received_bytes for step in told] == sorted(step.received_bytes for step in told)


def test_an_error_in_the_progress_callback_cancels_the_put(daemon: FakeDaemon, mesh: Mesh) -> None:
    def stop(progress: PutProgress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mesh.put("w", np.ones((100, 100)), progress=stop)
    call = daemon.last("PutMatrix")
    with call.changed:
        assert call.changed.wait_for(lambda: call.cancelled, 10)
    assert "w" not in mesh


def test_names_are_taken_once(mesh: Mesh) -> None:
    first = mesh.put("w", np.ones((4, 4)))
    assert mesh.put("w", np.ones((4, 4))).version == first.version
    assert mesh.upload("w", np.ones((4, 4))).already_stored
    with pytest.raises(NameTaken):
        mesh.put("w", np.zeros((4, 4)))
    assert mesh.put("w", np.zeros((4, 4)), replace=True).version == 2


def test_values_that_are_not_finite_are_taken_when_allowed(mesh: Mesh) -> None:
    values = np.array([[np.nan, np.inf], [-np.inf, 1.0]])
    with pytest.raises(NonFiniteValues):
        mesh.put("w", values)
    np.testing.assert_array_equal(mesh.put("w", values, allow_nonfinite=True).get(), values)


def test_a_scale_travels_as_float32(daemon: FakeDaemon, mesh: Mesh, tmp_path: Path) -> None:
    sent: list[wire.PutMatrixRequest] = []
    store = daemon.PutMatrix

    def spy(call: ServedCall) -> None:
        sent.append(wire.PutMatrixRequest.FromString(call.request.message))
        store(call)

    daemon.faults["PutMatrix"] = spy
    values, scale = np.ones((3, 4), np.int8), np.array([1, 2.5, 4])
    np.save(tmp_path / "s.npy", scale)
    for given_scale in (scale, list(scale), scale.astype(">f4"), tmp_path / "s.npy"):
        mesh.put("w", values, scale=given_scale, replace=True)
        assert sent.pop().scale == scale.astype("<f4").tobytes()
    for wrong, error in ((scale[:2], ShapeMismatch), (2.0, ShapeMismatch), (["a"] * 3, UnsupportedDtype)):
        with pytest.raises(error):
            mesh.put("w", values, scale=wrong)
    with pytest.raises(MatrixTooLarge):
        mesh.put("w", np.ones((200_000, 1), np.int8), scale=np.ones(200_000))
    assert not sent


@pytest.mark.parametrize(
    ("values", "error_class"),
    [
        (np.ones((0, 4)), ShapeMismatch),
        (np.ones((4, 0)), ShapeMismatch),
        (np.ones(4), ShapeMismatch),
        (np.ones((2, 2, 2)), ShapeMismatch),
        (np.float64(1), ShapeMismatch),
        (np.ones((2, 2), np.uint8), UnsupportedDtype),
        (np.ones((2, 2), np.longdouble), UnsupportedDtype),
        (np.ones((2, 2), np.int64), UnsupportedDtype),
        (np.ones((2, 2), np.complex64), UnsupportedDtype),
        (np.full((2, 2), None), UnsupportedDtype),
    ],
)
def test_what_is_no_matrix_is_refused_before_anything_is_sent(
    daemon: FakeDaemon, mesh: Mesh, values: np.ndarray, error_class: type[Exception]
) -> None:
    with pytest.raises(error_class):
        mesh.put("w", values)
    assert not daemon.calls


def test_a_survival_that_is_no_number_of_nodes_is_refused(mesh: Mesh) -> None:
    with pytest.raises(UsageError):
        mesh.put("w", np.ones((2, 2)), survive=-1)


def test_large_matrices_are_fetched_only_when_insisted(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.ones((64, 64))
    w = mesh.put("w", values)
    monkeypatch.setattr("sedmad.client.matrix.ARRAY_BYTES_MAX", 1000)
    for fetch in (lambda: np.asarray(w), w.get, lambda: w.get(max_bytes=values.nbytes - 1)):
        with pytest.raises(MatrixTooLarge, match="max_bytes=None"):
            fetch()
    np.testing.assert_array_equal(w.get(max_bytes=None), values)
    np.testing.assert_array_equal(w.get(max_bytes=values.nbytes), values)


def test_a_matrix_becomes_an_array(mesh: Mesh) -> None:
    values = np.arange(6.0).reshape(2, 3)
    w = mesh.put("w", values)
    np.testing.assert_array_equal(np.asarray(w), values)
    assert np.asarray(w, dtype=np.float32).dtype == np.float32
    with pytest.raises(ValueError, match="copy"):
        np.asarray(w, copy=False)


def test_files_are_written_whole_or_not_at_all(daemon: FakeDaemon, mesh: Mesh, tmp_path: Path) -> None:
    w = mesh.put("w", np.ones((1000, 1000)))
    target = tmp_path / "out.npy"
    target.write_bytes(b"what was there before")

    def die_on_the_way(call: ServedCall) -> None:
        call.send(wire.GetMatrixResponse(matrix=daemon.stored["w"].summary))
        call.send(payload=bytes(PAYLOAD_BYTES_MAX))
        daemon.kill()
        raise Gone

    daemon.faults["GetMatrix"] = die_on_the_way
    with pytest.raises(SessionLost):
        w.save(target)
    assert target.read_bytes() == b"what was there before"
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(UsageError, match="cannot be written"):
        w.save(tmp_path / "absent" / "out.npy")


@pytest.mark.parametrize(
    ("pieces", "error_class"),
    [
        ([(0, b"x" * 100)], ProtocolViolation),
        ([(8, b"x" * 128)], ProtocolViolation),
        ([(0, b"x" * 64), (0, b"x" * 64)], ProtocolViolation),
        ([(0, b"x" * 64), (128, b"x" * 64)], ProtocolViolation),
        ([(0, b"x" * 129)], ProtocolViolation),
        ([(0, b"x" * 128), (128, b"x")], ProtocolViolation),
        ([], ProtocolViolation),
    ],
)
def test_a_stream_that_is_not_the_matrix_is_a_typed_error(
    daemon: FakeDaemon, mesh: Mesh, pieces: list[tuple[int, bytes]], error_class: type[Exception]
) -> None:
    w = mesh.put("w", np.ones((4, 4)))

    def send_pieces(call: ServedCall) -> None:
        for offset, piece in pieces:
            call.send(payload=piece, offset=offset)
        call.respond()

    daemon.faults["GetMatrix"] = send_pieces
    with pytest.raises(error_class):
        w.get()


def test_a_chunk_that_does_not_fit_its_digest_is_refused(daemon: FakeDaemon, mesh: Mesh) -> None:
    w = mesh.put("w", np.ones((4, 4)))

    def damage(call: ServedCall) -> None:
        header = wire.FrameHeader(
            kind=wire.FRAME_KIND_RESPONSE_DATA, call_id=call.request.call_id, payload_digest=bytes(32)
        )
        call.client.calls._frames.append(Frame(header, b"x" * 128))
        call.respond()

    daemon.faults["GetMatrix"] = damage
    with pytest.raises(BytesCorrupt):
        w.get()


def test_a_handle_follows_versions_of_the_same_form(mesh: Mesh) -> None:
    w = mesh.put("w", np.ones((4, 4)))
    mesh.put("w", np.full((4, 4), 2.0), replace=True)
    np.testing.assert_array_equal(w @ np.ones(4), np.full(4, 8.0))
    assert w.version == 2
    mesh.put("w", np.full((4, 4), 3.0), replace=True)
    np.testing.assert_array_equal(w.get(), np.full((4, 4), 3.0))
    mesh.put("w", np.ones((4, 5)), replace=True)
    with pytest.raises(StaleManifest, match="4 x 5"):
        w @ np.ones(4)
    mesh.remove("w")
    with pytest.raises(MatrixNotFound):
        w.get()


def test_the_mesh_lists_what_it_holds(mesh: Mesh) -> None:
    mesh.put("b", np.ones((4, 4)))
    mesh.put("a", np.ones((2, 3), np.float32))
    assert [(w.name, w.shape, w.dtype.name) for w in mesh.matrices()] == [
        ("a", (2, 3), "float32"),
        ("b", (4, 4), "float64"),
    ]
    assert "a" in mesh
    assert mesh.remove("a").freed_bytes == 24
    assert "a" not in mesh
    assert repr(mesh["b"]) == "<Matrix b (4 x 4 float64), version 1>"
    assert [len(partition.copies) for partition in mesh.inspect("b").partitions] == [2]
