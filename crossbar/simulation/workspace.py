"""Owns scratch memory that products use again and again: one workspace a thread, so that none waits for another."""

from __future__ import annotations

import threading
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt


class Workspace(threading.local):
    """Arrays that keep their memory between calls; each thread has its own."""

    def __init__(self) -> None:
        self._held: dict[str, npt.NDArray[Any]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
        """Return uninitialised memory, valid until this thread asks for `name` again.

        Args:
            name: what it is for; each name has one dtype. The memory is as large as the largest shape so far.
        """
        held = self._held.get(name)
        size = prod(shape)
        if held is None or held.size < size:
            held = self._held[name] = np.empty(size, dtype)
        return held[:size].reshape(shape)

    @property
    def nbytes(self) -> int:
        """Bytes held for the calling thread."""
        return sum(array.nbytes for array in self._held.values())
