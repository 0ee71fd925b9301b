"""Measures simulated crossbars against plain BLAS on the same weights: one JSON line per figure.

    python scripts/bench/crossbar/engine.py

One thread. 128 x 128 arrays, 8-bit DAC and ADC, programming and read noise on, wires without resistance (folding them
is measured by irdrop.py). Products are `Crossbar.apply` as users call it. `ratio` is the median of one divided by the
median of the other, measured in turn so that both meet the same machine; `best_ratio` that of the shortest runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # scripts/

from crossbar.threads import single_threaded_blas

single_threaded_blas()  # before numpy: it must not start threads

import dataclasses  # noqa: E402
import resource  # noqa: E402
import statistics  # noqa: E402
import tracemalloc  # noqa: E402

import numpy as np  # noqa: E402
from bench.figures import report  # noqa: E402

import crossbar  # noqa: E402

VECTORS = (1, 2, 4, 8, 16, 64, 256)
RUNS = 40


def in_turn(
    first: Callable[[], object], second: Callable[[], object], runs: int
) -> tuple[list[float], list[float]]:
    """Return how long both took, in seconds, run after run in turn; a first run of each does not count."""
    taken: tuple[list[float], list[float]] = ([], [])
    for run in range(runs + 1):
        for action, seconds in zip((first, second), taken, strict=True):
            began = perf_counter()
            action()
            if run:
                seconds.append(perf_counter() - began)
    return taken


def compare(figure: str, ours: Callable[[], object], blas: Callable[[], object], **values: object) -> None:
    mine, theirs = in_turn(ours, blas, RUNS)
    report(
        "crossbar.engine", figure, **values,
        ms=statistics.median(mine) * 1e3, blas_ms=statistics.median(theirs) * 1e3,
        ratio=statistics.median(mine) / statistics.median(theirs), best_ratio=min(mine) / min(theirs),
    )  # fmt: skip


def products(profile: crossbar.DeviceProfile) -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((1024, 1024), dtype=np.float32)
    programmed = crossbar.program(weights, profile, seed=1)
    test = rng.standard_normal((1024, 64), dtype=np.float32)
    report("crossbar.engine", "error", profile=profile.name, error=programmed.error(test))
    for vectors in VECTORS:
        x = rng.standard_normal((1024, vectors), dtype=np.float32)
        blas = (lambda x=x: weights @ x[:, 0]) if vectors == 1 else (lambda x=x: weights @ x)
        compare("apply", lambda x=x: programmed.apply(x), blas, vectors=vectors, profile=profile.name)


def programming(profile: crossbar.DeviceProfile) -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((4096, 4096), dtype=np.float32)
    plan = crossbar.Plan.default(profile)
    verified = dataclasses.replace(plan, write_verify_tolerance=0.01, write_verify_tries=10)
    for figure, each in (("program", plan), ("program_verified", verified)):
        mine, copies = in_turn(
            lambda each=each: crossbar.program(weights, profile, seed=1, plan=each), weights.copy, 5
        )
        report(
            "crossbar.engine", figure, rows=4096, columns=4096, s=statistics.median(mine), best_s=min(mine),
            copies=statistics.median(mine) / statistics.median(copies),
        )  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    held = crossbar.program(weights, profile, seed=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    report(
        "crossbar.engine", "program_memory", peak_over_partition=peak / weights.nbytes,
        held_over_partition=held.memory_bytes / weights.nbytes,
        rss_grew_over_partition=(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        * 1024 / weights.nbytes,
    )  # fmt: skip


def main() -> None:
    wired = crossbar.profile("generic")
    profile = dataclasses.replace(wired, word_line_ohm=0.0, bit_line_ohm=0.0)
    products(profile)
    programming(profile)


if __name__ == "__main__":
    main()
