"""Panels: columns of X or Y as they travel, one after the other, in memory that BLAS likes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sedmad.errors import ProtocolViolation
from sedmad.node.records import DTYPES

# Cache lines and the widest vector registers; NumPy promises 16 only, and a misaligned operand costs BLAS its kernels.
ALIGNMENT = 64
Panel = npt.NDArray[np.floating[Any]]


def empty_panel(columns: int, length: int, dtype: npt.DTypeLike) -> Panel:
    """Return an uninitialised array (columns, length), C order, aligned to 64 bytes."""
    size_bytes = columns * length * np.dtype(dtype).itemsize
    memory = np.empty(size_bytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size_bytes].view(dtype).reshape(columns, length)


def as_bytes(panel: Panel) -> memoryview:
    """Return the bytes of a C-ordered panel, uncopied."""
    return panel.data.cast("B")


def dtype_of(data_type: int) -> np.dtype:
    """Return the little-endian dtype of a DataType of the contract.

    Raises:
        ProtocolViolation: there is none.
    """
    name = DTYPES.get(data_type)
    if name is None:
        raise ProtocolViolation(f"there is no data type {data_type}")
    return np.dtype(name).newbyteorder("<")
