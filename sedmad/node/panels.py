"""Panels: columns of X or Y as they travel, one after the other, in memory that BLAS likes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from crossbar.exact.integer_products import fits, largest_magnitude
from sedmad.errors import ProtocolViolation, UsageError
from sedmad.wire import messages as wire

# Cache lines and the widest vector registers; NumPy promises 16 only, and a misaligned operand costs BLAS its kernels.
ALIGNMENT = 64
Panel = npt.NDArray[Any]
_DATA_TYPES = {
    "float32": wire.DATA_TYPE_FLOAT32,
    "float64": wire.DATA_TYPE_FLOAT64,
    "int32": wire.DATA_TYPE_INT32,
}


def empty_panel(columns: int, length: int, dtype: npt.DTypeLike) -> Panel:
    """Return an uninitialised array (columns, length), C order, aligned to 64 bytes."""
    size_bytes = columns * length * np.dtype(dtype).itemsize
    memory = np.empty(size_bytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size_bytes].view(dtype).reshape(columns, length)


def as_bytes(panel: Panel) -> memoryview:
    """Return the bytes of a C-ordered panel, uncopied."""
    return panel.data.cast("B")


def panel_dtype(matrix_dtype: str, *, integers: bool = False) -> np.dtype:
    """Return the little-endian dtype of panels of X and Y for a matrix.

    Args:
        integers: X holds integers, and so does Y.

    Raises:
        ProtocolViolation: the matrix does not hold integers.
    """
    if integers and matrix_dtype != "int8":
        raise ProtocolViolation(
            "a panel of integers is for matrices of int8", why=f"this one is {matrix_dtype}"
        )
    return np.dtype("<i4") if integers else np.dtype("<f8" if matrix_dtype == "float64" else "<f4")


def require_exact(panel: Panel, name: str) -> None:
    """Refuse integers whose products with int8 may not fit int32.

    Raises:
        UsageError: some are too large for as long a sum.
    """
    terms = panel.shape[1]
    if not fits(panel, terms):
        raise UsageError(
            f"the product with {name} may not fit int32",
            why=f"sums of {terms} products of int8 with integers of up to {largest_magnitude(panel)}",
            hint="Give X as float32: the product is rounded then.",
            matrix=name,
        )


def data_type_of(panel: Panel) -> wire.DataType.ValueType:
    """Return what the contract calls a panel's dtype."""
    return _DATA_TYPES[panel.dtype.name]
