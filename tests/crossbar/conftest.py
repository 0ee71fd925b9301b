"""BLAS at one thread, as in a daemon: several pools of threads on the same cores wait for each other."""

from __future__ import annotations

from crossbar.threads import single_threaded_blas

single_threaded_blas()
