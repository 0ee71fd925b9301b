"""Owns how many threads BLAS uses: one. Callers bring their own worker threads.

Two pools on the same cores wait for each other: slow-downs of 20-100 times were measured.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def single_threaded_blas() -> None:
    """Hold BLAS at one thread, in this process and in those it starts. Call it once, at start.

    Called before numpy is imported, it also keeps BLAS from starting threads and reserving their buffers.
    """
    for variable in _VARIABLES:
        os.environ[variable] = "1"
    import numpy  # noqa: F401 - threadpoolctl limits libraries that are loaded
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=1, user_api="blas")


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS at one thread for a while: for many small matrices, in a process that is not ours to set up.

    Threads may overlap: the first one in sets the limit, the last one out takes it back.
    """
    _HOLDING.enter()
    try:
        yield
    finally:
        _HOLDING.leave()


class _Holding:
    """How many threads hold BLAS at one, and the limits that were before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._limits: Any = None

    def enter(self) -> None:
        from threadpoolctl import threadpool_limits

        with self._lock:
            if not self._holders:
                self._limits = threadpool_limits(limits=1, user_api="blas")
            self._holders += 1

    def leave(self) -> None:
        with self._lock:
            self._holders -= 1
            if not self._holders:
                self._limits.restore_original_limits()


_HOLDING = _Holding()
