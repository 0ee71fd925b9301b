"""`.npy` files as a stranger might write them: NumPy's own are read, others are refused with a typed error."""

from __future__ import annotations

import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sedmad.client.npy import HEADER_BYTES_MAX, open_array, save_array
from sedmad.errors import MatrixFileInvalid, SedmadError, ShapeMismatch, UnsupportedDtype, UsageError

# Each example writes the one file anew, and a busy machine may take its time over it.
UNTIMED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def npy(array: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return file.getvalue()


def with_header(header: str, data: bytes = b"", version: int = 1) -> bytes:
    text = header.encode("latin-1")
    return (
        b"\x93NUMPY"
        + bytes([version, 0])
        + struct.pack("<H" if version == 1 else "<I", len(text))
        + text
        + data
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "array.npy"


@settings(max_examples=60, suppress_health_check=UNTIMED, deadline=None)
@given(
    array=hnp.arrays(
        st.sampled_from(["<f4", ">f4", "<f8", ">f8", "<i8", "|u1", "|b1"]),
        hnp.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=6),
        fill=st.nothing(),
    ),
    order=st.sampled_from("CF"),
    version=st.sampled_from([(1, 0), (2, 0)]),
)
def test_what_numpy_writes_is_read(
    path: Path, array: np.ndarray, order: str, version: tuple[int, int]
) -> None:
    path.write_bytes(npy(array.copy(order), version=version))
    opened = open_array(path, dimensions=(1, 2))
    assert opened.dtype == array.dtype
    np.testing.assert_array_equal(opened, array)
    assert not opened.size or not opened.flags.writeable


@settings(max_examples=200, suppress_health_check=UNTIMED, deadline=None)
@given(data=st.data())
def test_mutated_files_raise_typed_errors_only(path: Path, data: st.DataObject) -> None:
    whole = bytearray(npy(np.arange(12.0).reshape(3, 4)))
    for _ in range(data.draw(st.integers(0, 6))):
        position = data.draw(st.integers(0, len(whole) - 1) | st.integers(0, min(128, len(whole) - 1)))
        match data.draw(st.sampled_from(["set", "insert", "delete"])):
            case "set":
                whole[position] = data.draw(st.integers(0, 255))
            case "insert":
                whole[position:position] = data.draw(st.binary(max_size=8))
            case "delete":
                del whole[position : position + data.draw(st.integers(1, 8))]
        if not whole:
            break
    path.write_bytes(
        bytes(whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)
    )
    try:
        opened = open_array(path, dimensions=(1, 2))
    except SedmadError:
        return
    assert opened.nbytes <= path.stat().st_size
    opened.sum()


@settings(max_examples=200, suppress_health_check=UNTIMED, deadline=None)
@given(
    descr=st.sampled_from(
        ["'<f4'", "'f'", "'O'", "'|V8'", "'<U4'", "''", "'M8[s]'", "[('a', '<f4')]", "1", "'<f4,<f8'"]
    )
    | st.text(max_size=20).map(repr),
    order=st.sampled_from(["True", "False", "1", "None"]),
    shape=st.sampled_from(
        ["(1099511627776, 4)", "(-1, 4)", "(2, 2)", "(True, 2)", "2", "(2.0, 2)", "()", "(2,)", "(0, 0)"]
    )
    | st.lists(st.integers(-(2**70), 2**70), max_size=4).map(lambda lengths: repr(tuple(lengths))),
    version=st.integers(0, 255),
)
def test_made_up_headers_raise_typed_errors_only(
    path: Path, descr: str, order: str, shape: str, version: int
) -> None:
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"
    path.write_bytes(with_header(header.encode("latin-1", "replace").decode("latin-1"), bytes(64), version))
    try:
        opened = open_array(path, dimensions=(0, 1, 2, 3, 4))
    except SedmadError:
        return
    assert opened.nbytes <= 64


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "does not begin like one"),
        (b"\x93NUMPY", "malformed"),
        (b"\x93NUMPY\x01\x00\xff\xff", "malformed"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}", "malformed"),
        (pickle.dumps(np.ones((2, 2))), "does not begin like one"),
        (npy(np.array([[None, {}]], dtype=object)), "pickled"),
        (with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 4)}\n"), "truncated"),
        (with_header("{'descr': '<f4', 'fortran_order': False}\n"), "malformed"),
        (with_header("[]\n"), "malformed"),
        (with_header("__import__('os').system('true')\n"), "malformed"),
        (with_header("(" * 5000 + ")" * 5000), "malformed"),
        (with_header("-" * 9000 + "1"), "malformed"),
        (with_header("{'descr': '<f4'}" + " " * HEADER_BYTES_MAX, bytes(4)), "malformed"),
        (npy(np.ones((2, 2)))[:-1], "truncated"),
        (npy(np.zeros(3, [("a", "<f4")])), "malformed"),
    ],
)  # fmt: skip
def test_files_that_are_refused(path: Path, content: bytes, why: str) -> None:
    path.write_bytes(content)
    with pytest.raises(MatrixFileInvalid) as caught:
        open_array(path, dimensions=(1, 2))
    assert why in str(caught.value)
    assert str(path) in caught.value.what


def test_an_archive_is_recognised(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.ones(3))
    with pytest.raises(MatrixFileInvalid, match=r"\.npz"):
        open_array(path, dimensions=(2,))


def test_other_kinds_and_dimensions_are_told_apart(path: Path) -> None:
    path.write_bytes(npy(np.ones(3, complex)))
    with pytest.raises(UnsupportedDtype, match="complex128"):
        open_array(path, dimensions=(1,))
    path.write_bytes(npy(np.ones((3, 3, 3))))
    with pytest.raises(ShapeMismatch, match=r"\(3, 3, 3\)"):
        open_array(path, dimensions=(1, 2))


def test_what_is_no_file_is_refused_at_once(path: Path, tmp_path: Path) -> None:
    with pytest.raises(MatrixFileInvalid, match="No such file"):
        open_array(path, dimensions=(2,))
    with pytest.raises(MatrixFileInvalid):
        open_array(tmp_path, dimensions=(2,))
    os.mkfifo(path)
    with pytest.raises(MatrixFileInvalid):
        open_array(path, dimensions=(2,))
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(MatrixFileInvalid):
        open_array(path, dimensions=(2,))


def test_saving_replaces_whole_files_and_keeps_the_usual_mode(path: Path) -> None:
    save_array(path, np.ones((2, 2)))
    save_array(path, np.zeros(3))
    np.testing.assert_array_equal(np.load(path), np.zeros(3))
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    with pytest.raises(UsageError, match="cannot be written"):
        save_array(path.parent, np.zeros(3))
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("name", [".", "..", "", "/"])
def test_a_folder_is_not_replaced(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        save_array(name, np.zeros(3))


def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    # A device, /dev/null say, is the same to the code; but here a failure harms nobody.
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match="a pipe"):
        save_array(pipe, np.zeros(3))
    assert pipe.is_fifo()


def test_a_link_stays_and_leads_to_the_new_file(tmp_path: Path) -> None:
    link, target = tmp_path / "link.npy", tmp_path / "disk" / "y.npy"
    target.parent.mkdir()
    link.symlink_to(target)
    for values in (np.zeros(3), np.ones(3)):
        save_array(link, values)
        assert link.is_symlink()
        assert np.array_equal(np.load(target), values)
