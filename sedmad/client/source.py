"""What a put sends: an array's values as little-endian bytes in C order, chunk by chunk, never whole in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sedmad.client.npy import open_array
from sedmad.errors import ShapeMismatch, UnsupportedDtype
from sedmad.wire.frame import PAYLOAD_BYTES_MAX
from sedmad.wire.messages import DataType

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

DTYPE_NAMES: dict[DataType.ValueType, str] = {
    DataType.DATA_TYPE_FLOAT16: "float16",
    DataType.DATA_TYPE_FLOAT32: "float32",
    DataType.DATA_TYPE_FLOAT64: "float64",
    DataType.DATA_TYPE_INT8: "int8",
}
_DATA_TYPES = {name: number for number, name in DTYPE_NAMES.items()}
# Rows that are converted at once where the values do not lie in C order. In a Fortran-ordered file of 4096 columns
# each column gives 2 KiB of such a panel, so a page is read from the cache twice at most.
PANEL_BYTES = 8 << 20


class MatrixSource:
    """A matrix to be stored.

    Big-endian values and any order are taken, and converted while they are streamed.

    Args:
        array_or_path: a two-dimensional array of float16, float32, float64 or int8, or the path of a `.npy` file
            with one.

    Raises:
        ShapeMismatch: it has no rows, no columns, or another number of dimensions than two.
        UnsupportedDtype: its values are of another dtype.
        MatrixFileInvalid: the file is no sound `.npy` file.
    """

    def __init__(self, array_or_path: npt.ArrayLike | str | os.PathLike[str]) -> None:
        import numpy as np

        if isinstance(array_or_path, str | os.PathLike):
            what = f"{os.fspath(array_or_path)}"
            array: npt.NDArray[Any] = open_array(array_or_path, dimensions=(0, 1, 2, 3, 4))
        else:
            what = "the array"
            array = np.asarray(array_or_path)
        if array.ndim != 2 or 0 in array.shape:
            raise ShapeMismatch(
                f"{what} has shape {array.shape}",
                why="a matrix has two dimensions, at least one row and one column",
            )
        data_type = _DATA_TYPES.get(array.dtype.name)
        if data_type is None:
            raise UnsupportedDtype(
                f"{what} holds {array.dtype}", why=f"a matrix has values of {', '.join(_DATA_TYPES)}"
            )
        self.dtype: np.dtype[Any] = array.dtype.newbyteorder("<")
        self.data_type: DataType.ValueType = data_type
        self.shape: tuple[int, int] = array.shape
        self.nbytes: int = array.nbytes
        self._array = array

    def chunks(self) -> Iterator[memoryview]:
        """Yield all bytes in order, at most 1 MiB each; those of arrays that lie right are not copied."""
        for panel in self._panels():
            whole = panel.reshape(-1).view("u1").data
            for start in range(0, len(whole), PAYLOAD_BYTES_MAX):
                yield whole[start : start + PAYLOAD_BYTES_MAX]

    def _panels(self) -> Iterator[npt.NDArray[Any]]:
        import numpy as np

        array = self._array
        if array.flags.c_contiguous and array.dtype == self.dtype:
            yield np.asarray(array)
            return
        height = max(1, PANEL_BYTES // (array.shape[1] * array.itemsize))
        for start in range(0, array.shape[0], height):
            yield np.ascontiguousarray(array[start : start + height], self.dtype)


def scale_bytes(scale: npt.ArrayLike | str | os.PathLike[str], rows: int) -> bytes:
    """Return the factors of the rows of a matrix of int8, as they travel.

    Args:
        scale: (rows,), real numbers, or the path of a `.npy` file with them.

    Raises:
        ShapeMismatch: there is not one for each row.
        UnsupportedDtype: they are no real numbers.
        MatrixFileInvalid: the file is no sound `.npy` file.
    """
    import numpy as np

    is_path = isinstance(scale, str | os.PathLike)
    array = open_array(scale, dimensions=(0, 1, 2)) if is_path else np.asarray(scale)  # type: ignore[arg-type]
    if array.dtype.kind not in "iuf":
        raise UnsupportedDtype(f"the scale holds {array.dtype}", why="its factors are real numbers", hint="")
    if array.shape != (rows,):
        raise ShapeMismatch(
            f"the scale has shape {array.shape}", why=f"the matrix has {rows} rows, and each has a factor"
        )
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, "<f4").tobytes()
