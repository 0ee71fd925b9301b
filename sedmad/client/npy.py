"""`.npy` files, read as if a stranger had written them and written so that none is ever half there.

Nothing here trusts a header: kind, size and byte order are checked against the file before a value is touched, and
pickled objects are never loaded. Values stay on disk: `open_array` maps them.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import os
import secrets
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from sedmad.errors import DiskFull, MatrixFileInvalid, ShapeMismatch, UnsupportedDtype, UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MAGIC = b"\x93NUMPY"
# NumPy itself writes 128 bytes for any plain array and refuses to read more than 10,000.
HEADER_BYTES_MAX = 10_000
# Signed and unsigned integers, booleans and floats: what converts to a matrix's dtype without losing its meaning.
NUMERIC_KINDS = "biuf"
# More than any disk holds; NumPy refuses longer arrays even where they are empty.
LENGTH_MAX = 1 << 48


@dataclass(frozen=True, slots=True)
class Header:
    """What a `.npy` file says of itself: NumPy's type string, the order, the shape, and where the values begin."""

    descr: str
    fortran_order: bool
    shape: tuple[int, ...]
    data_offset: int


def open_array(path: str | os.PathLike[str], *, dimensions: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the array of a `.npy` file, memory-mapped and read-only, in the file's own dtype and order.

    Args:
        path: the file.
        dimensions: the numbers of dimensions that will do.

    Raises:
        MatrixFileInvalid: the file is missing, no `.npy`, pickled, truncated, or not what its header says.
        UnsupportedDtype: its values are not real numbers.
        ShapeMismatch: it has another number of dimensions.
    """
    path = Path(path)
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise MatrixFileInvalid(f"{path} is not a file that can be mapped", hint="")
            return _map(path, file, read_header(path, file), dimensions, status.st_size)
    except OSError as error:
        raise MatrixFileInvalid(
            f"{path} cannot be read", why=error.strerror or str(error), hint=""
        ) from error


def read_header(path: Path, file: BinaryIO) -> Header:
    """Read the header at the start of `file`.

    Raises:
        MatrixFileInvalid: there is none that NumPy would have written for a plain array.
    """
    start = file.read(HEADER_BYTES_MAX + 12)
    if not start.startswith(MAGIC):
        is_archive = start.startswith(b"PK")
        raise MatrixFileInvalid(
            f"{path} is not a .npy file",
            why="it is an archive of several (.npz)" if is_archive else "it does not begin like one",
            hint="Save one of its arrays with numpy.save(path, array)." if is_archive else None,
        )
    try:
        length_format = {1: "<H", 2: "<I"}[start[6]]
        (length,) = struct.unpack_from(length_format, start, 8)
        begin = 8 + struct.calcsize(length_format)
        text = start[begin : begin + length]
        if length > HEADER_BYTES_MAX or len(text) < length:
            raise ValueError("it ends early, or is longer than any that NumPy writes")
        fields = ast.literal_eval(text.decode("latin-1").strip())
        header = Header(fields["descr"], fields["fortran_order"], fields["shape"], begin + length)
        _check_types(header)
    except (
        ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, SyntaxError, TypeError,
        ValueError, struct.error,
    ) as error:  # fmt: skip
        raise MatrixFileInvalid(f"the header of {path} is malformed", why=str(error)[:200]) from error
    return header


def _check_types(header: Header) -> None:
    if not (isinstance(header.descr, str) and isinstance(header.fortran_order, bool)):
        raise TypeError("it tells no plain type and order")
    if not (isinstance(header.shape, tuple) and all(type(length) is int for length in header.shape)):
        raise TypeError("its shape is no tuple of integers")
    if not all(0 <= length <= LENGTH_MAX for length in header.shape):
        raise ValueError("a length is negative, or longer than any array")


def _map(
    path: Path, file: BinaryIO, header: Header, dimensions: tuple[int, ...], file_bytes: int
) -> npt.NDArray[Any]:
    import numpy as np

    try:
        dtype = np.dtype(header.descr)
    except (TypeError, ValueError, SyntaxError) as error:
        raise MatrixFileInvalid(f"the header of {path} is malformed", why=str(error)[:200]) from error
    if dtype.hasobject:
        raise MatrixFileInvalid(
            f"{path} holds pickled Python objects", why="they are never loaded: a pickle can run programs"
        )
    if dtype.kind not in NUMERIC_KINDS:
        raise UnsupportedDtype(f"{path} holds {dtype}, which are not real numbers")
    if len(header.shape) not in dimensions:
        wanted = " or ".join(str(number) for number in dimensions)
        raise ShapeMismatch(f"{path} has shape {header.shape}", why=f"{wanted} dimensions were expected")
    values = 1
    for length in header.shape:
        values *= length
    needed_bytes = header.data_offset + values * dtype.itemsize
    if needed_bytes > file_bytes:
        raise MatrixFileInvalid(
            f"{path} is truncated",
            why=f"its header says {shape_text(header.shape)} {dtype}, which takes {needed_bytes} bytes; "
            f"the file has {file_bytes}",
            hint="Copy it again, or save it again with numpy.save(path, array).",
        )
    order = "F" if header.fortran_order else "C"
    if not values:
        # Nothing can be mapped of no bytes.
        return np.empty(header.shape, dtype, order)  # type: ignore[call-overload, no-any-return]
    try:
        return np.memmap(file, dtype, "r", header.data_offset, header.shape, order)  # type: ignore[call-overload, no-any-return]
    except ValueError as error:
        raise MatrixFileInvalid(f"{path} cannot be mapped", why=str(error)) from error


def shape_text(shape: tuple[int, ...]) -> str:
    """Return a shape as people write it: '4096 x 384'."""
    return " x ".join(str(length) for length in shape)


def header_bytes(shape: tuple[int, int], dtype: np.dtype[Any], *, fortran_order: bool = False) -> bytes:
    """Return the bytes that numpy.save writes before the values of such an array."""
    import io

    from numpy.lib import format as npy_format

    file = io.BytesIO()
    npy_format.write_array_header_1_0(
        file,
        {
            "descr": npy_format.dtype_to_descr(dtype),
            "fortran_order": fortran_order,
            "shape": shape,
        },
    )
    return file.getvalue()


@contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file beside `path` for writing, and rename it to `path` when the block ends well. Links are followed.

    Raises:
        DiskFull: no space is left for it.
        UsageError: it cannot be written there, or what is there is no file.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        # A rename would put a file where a device was: /dev/null, for everybody.
        why = (
            "Is a directory" if path.is_dir() else "It is a device or a pipe, which cannot be written whole."
        )
        raise UsageError(f"{path} cannot be written", why=why, hint="Choose another path.")
    target = Path(os.path.realpath(path))
    # Names of 255 bytes are the longest there are; the whole of a long one would not fit again.
    partial = target.with_name(f".{target.name[:64]}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    except OSError as error:
        error_class = DiskFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else UsageError
        raise error_class(
            f"{path} cannot be written", why=error.strerror or str(error), hint="Choose another path."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def save_array(path: str | os.PathLike[str], array: npt.NDArray[Any]) -> None:
    """Write an array as a `.npy` file, whole or not at all.

    Raises:
        DiskFull, UsageError: it cannot be written there.
    """
    import numpy as np

    with new_file(path) as file:
        np.save(file, array, allow_pickle=False)


def _open_without_waiting(path: str, flags: int) -> int:
    # Opening a named pipe would wait for its writer.
    return os.open(path, flags | os.O_NONBLOCK)
