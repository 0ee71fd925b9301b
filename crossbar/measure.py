"""Owns the short measurement by which a node learns what it can offer: one thread of BLAS.

Both figures are the best of several runs: other work on the machine only ever makes a run slower. The weights
fit the last cache of large machines, as a resident partition does there; a node that holds more will learn
its real speed from the service times of products.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from crossbar.devices import IDEAL
from crossbar.ideal import IdealEngine

_ROWS, _COLUMNS = 3072, 1024  # float32: 12 MiB, with panel and result within 16 MiB
_PANEL_COLUMNS = 64  # the widest panel that is ever multiplied
_RUNS_MAX = 1000  # ends the loop even if the clock stands still


@dataclass(frozen=True, slots=True)
class ComputeMeasurement:
    """What one thread computes. `profile` names the device profile it was measured for."""

    gflops: float
    memory_bandwidth_bytes_per_s: float
    profile: str = IDEAL.name


def measure_compute(budget_s: float, clock: Callable[[], float]) -> ComputeMeasurement:
    """Measure products of a wide panel (arithmetic) and of one column (memory) for about `budget_s`.

    Takes 16 MiB while it runs. Run it in a worker thread, after `crossbar.threads.single_threaded_blas`.

    Args:
        budget_s: about how long to measure; each product is computed at least twice.
        clock: seconds, monotonic, for example `time.perf_counter`.
    """
    weights = np.full((_ROWS, _COLUMNS), 0.5, np.float32)
    partition = IdealEngine().program(weights)
    wide = np.full((_PANEL_COLUMNS, _COLUMNS), 0.5, np.float32)
    wide_s = _best(lambda: partition.multiply(wide), budget_s / 2, clock)
    narrow_s = _best(lambda: partition.multiply(wide[:1]), budget_s / 2, clock)
    return ComputeMeasurement(
        gflops=2 * weights.size * _PANEL_COLUMNS / wide_s / 1e9,
        memory_bandwidth_bytes_per_s=weights.nbytes / narrow_s,
    )


def _best(compute: Callable[[], object], budget_s: float, clock: Callable[[], float]) -> float:
    """Return the shortest run in seconds; the first one, which warms caches, does not count."""
    compute()
    best = math.inf
    ends = clock() + budget_s
    for _ in range(_RUNS_MAX):
        started = clock()
        compute()
        ended = clock()
        if ended > started:  # a coarse clock may not have moved
            best = min(best, ended - started)
        if ended >= ends and best < math.inf:
            return best
    if best == math.inf:
        raise RuntimeError("the clock does not advance: nothing can be measured with it")
    return best
