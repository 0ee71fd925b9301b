"""Measures the ideal engine on one matrix against plain numpy: one JSON line per figure.

    python scripts/bench/engine.py [float16|float32|float64|int8]

One thread of BLAS. Times are CPU time, the best of several runs that take turns, so that a busy machine disturbs
little. `numpy_ms` is the better of X W^T and W X in float32 (float64 for float64), `blas_ms` the engine without
kernels, and `passes` the engine's time divided by that of one product with one column, which is one pass over memory.
"""

from __future__ import annotations

from crossbar.threads import single_threaded_blas

single_threaded_blas()  # before numpy: it must not start threads

import json  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from time import perf_counter, thread_time  # noqa: E402

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402

from crossbar.error_bound import arithmetic_dtype  # noqa: E402
from crossbar.exact.narrow import COMPILE_TIMEOUT_S, NarrowKernels  # noqa: E402
from crossbar.ideal import IdealEngine  # noqa: E402
from crossbar.measure import measure_compute  # noqa: E402

ROWS, COLUMNS = 4096, 4096
PANEL_COLUMNS = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 64)
RUNS = 15
ALIGNMENT = 64


def best_ms(computations: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the shortest CPU time of each in milliseconds; they take turns."""
    best = dict.fromkeys(computations, float("inf"))
    for _ in range(RUNS + 1):
        for name, compute in computations.items():
            started = thread_time()
            compute()
            best[name] = min(best[name], (thread_time() - started) * 1e3)
    return best


def report(figure: str, **values: object) -> None:
    rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in values.items()}
    print(json.dumps({"figure": figure, **rounded}), flush=True)


def aligned(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Return a copy that begins on a cache line, as mapped partitions and panels do."""
    memory = np.empty(array.nbytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def main() -> None:
    dtype = np.dtype(sys.argv[1] if len(sys.argv) > 1 else "float32")
    rng = np.random.default_rng(0)
    drawn = rng.standard_normal((ROWS, COLUMNS)) * (40 if dtype == np.int8 else 1)
    weights = aligned(drawn.clip(-127, 127).astype(dtype))
    floats = aligned(weights.astype(arithmetic_dtype(dtype)))
    with tempfile.TemporaryDirectory() as directory:
        kernels = NarrowKernels(Path(directory), print, worth_bytes=0)
        began = perf_counter()
        kernels.get(dtype, 0)
        ready = kernels.wait(COMPILE_TIMEOUT_S)
        report("engine.compile", dtype=dtype.name, ready=ready, seconds=perf_counter() - began)
        partition, plain = IdealEngine(kernels).program(weights), IdealEngine().program(weights)
        for k in PANEL_COLUMNS:
            x = aligned(rng.standard_normal((k, COLUMNS)).astype(floats.dtype))
            turned = np.ascontiguousarray(x.T)
            found = best_ms(
                {
                    "pass": lambda x=x: floats @ x[0],
                    "engine": lambda x=x: partition.multiply(x),
                    "blas": lambda x=x: plain.multiply(x),
                    "x_w": lambda x=x: x @ floats.T,
                    "w_x": lambda turned=turned: floats @ turned,
                    "transposed": lambda x=x: partition.multiply_transposed(x),
                    "blas_transposed": lambda x=x: plain.multiply_transposed(x),
                    "numpy_transposed": lambda x=x: x @ floats,
                }
            )
            report("engine.multiply", dtype=dtype.name, columns=k, ms=found["engine"], blas_ms=found["blas"],
                   numpy_ms=min(found["x_w"], found["w_x"]), passes=found["engine"] / found["pass"])  # fmt: skip
            report("engine.multiply_transposed", dtype=dtype.name, columns=k, ms=found["transposed"],
                   blas_ms=found["blas_transposed"], numpy_ms=found["numpy_transposed"],
                   passes=found["transposed"] / found["pass"])  # fmt: skip
            if dtype == np.int8:
                whole = rng.integers(-127, 128, (k, COLUMNS), np.int8)
                figures = best_ms({"engine": lambda whole=whole: partition.multiply(whole)})
                report("engine.multiply_integers", columns=k, ms=figures["engine"])
    measured = measure_compute(0.2, perf_counter)
    report("engine.measure_compute", gflops=measured.gflops,
           memory_bandwidth_bytes_per_s=measured.memory_bandwidth_bytes_per_s)  # fmt: skip


if __name__ == "__main__":
    main()
