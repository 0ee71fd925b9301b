"""Measures the ideal engine on one partition against plain numpy: one JSON line per figure.

    python scripts/bench/engine.py

One thread of BLAS. A figure is the best of several runs; `ratio` is the engine's time divided by numpy's.
"""

from __future__ import annotations

from crossbar.threads import single_threaded_blas

single_threaded_blas()  # before numpy: it must not start threads

import json  # noqa: E402
import math  # noqa: E402
from collections.abc import Callable  # noqa: E402
from time import perf_counter  # noqa: E402

import numpy as np  # noqa: E402

from crossbar.engine import engine_for  # noqa: E402
from crossbar.measure import measure_compute  # noqa: E402
from crossbar.profile import IDEAL  # noqa: E402

ROWS, COLUMNS = 4096, 1365
PANEL_COLUMNS = (1, 2, 3, 4, 7, 8, 15, 16, 24, 64)
RUNS = 15


def best_ms(compute: Callable[[], object]) -> float:
    """Return the shortest of `RUNS` runs in milliseconds."""
    best = math.inf
    for _ in range(RUNS + 1):
        started = perf_counter()
        compute()
        best = min(best, perf_counter() - started)
    return best * 1e3


def report(figure: str, **values: float) -> None:
    print(json.dumps({"figure": figure, **{name: round(value, 3) for name, value in values.items()}}))


def main() -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((ROWS, COLUMNS), dtype=np.float32)
    partition = engine_for(IDEAL).program(weights)
    for k in PANEL_COLUMNS:
        x = rng.standard_normal((k, COLUMNS), dtype=np.float32)
        z = rng.standard_normal((k, ROWS), dtype=np.float32)
        engine_ms = best_ms(lambda x=x: partition.multiply(x))
        numpy_ms = best_ms(lambda x=x: x @ weights.T)
        gemv_ms = best_ms(lambda x=x: [weights @ column for column in x])
        report("engine.multiply", columns=k, ms=engine_ms, numpy_ms=numpy_ms, gemv_ms=gemv_ms,
               ratio=engine_ms / numpy_ms)  # fmt: skip
        engine_ms = best_ms(lambda z=z: partition.multiply_transposed(z))
        numpy_ms = best_ms(lambda z=z: z @ weights)
        report("engine.multiply_transposed", columns=k, ms=engine_ms, numpy_ms=numpy_ms,
               ratio=engine_ms / numpy_ms)  # fmt: skip
    measured = measure_compute(0.2, perf_counter)
    report("engine.measure_compute", gflops=measured.gflops,
           memory_bandwidth_bytes_per_s=measured.memory_bandwidth_bytes_per_s)  # fmt: skip


if __name__ == "__main__":
    main()
