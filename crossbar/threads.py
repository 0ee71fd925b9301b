"""Owns how many threads BLAS uses: one. Callers bring their own worker threads.

Two pools on the same cores wait for each other: slow-downs of 20-100 times were measured.
"""

from __future__ import annotations

import os

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
