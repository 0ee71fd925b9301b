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

DTYPE_NAMES: dict[int, str] = {DataType.DATA_TYPE_FLOAT32: "float32", DataType.DATA_TYPE_FLOAT64: "float64"}
# Rows that are converted at once where the values do not lie in C order. In a Fortran-ordered file of 4096 columns
# each column gives 2 KiB of such a panel, so a page is read from the cache twice at most.
PANEL_BYTES = 8 << 20


class MatrixSource:
    """A matrix to be stored.

    Big-endian values and any order are taken, and converted while they are streamed.

    Args:
        array_or_path: a two-dimensional float32 or float64 array, or the path of a `.npy` file with one.

    Raises:
        ShapeMismatch: it has no rows, no columns, or another number of dimensions than two.
        UnsupportedDtype: its values are neither float32 nor float64.
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
        if array.dtype.kind != "f" or array.dtype.itemsize not in (4, 8):
            raise UnsupportedDtype(
                f"{what} holds {array.dtype}", why="a matrix has float32 or float64 values"
            )
        self.dtype: np.dtype[Any] = array.dtype.newbyteorder("<")
        self.data_type = (
            DataType.DATA_TYPE_FLOAT32 if self.dtype.itemsize == 4 else DataType.DATA_TYPE_FLOAT64
        )
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
