"""How the benchmarks tell figures: one JSON line each, with the load average of the machine beside it."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Sequence
from time import perf_counter


def report(benchmark: str, figure: str, **values: object) -> None:
    """Print one figure. Numbers keep four significant digits: more would pretend."""
    told = {name: _rounded(value) for name, value in values.items()}
    document = {
        "benchmark": benchmark,
        "figure": figure,
        **told,
        "load_average": round(os.getloadavg()[0], 2),
    }
    print(json.dumps(document), flush=True)


def percentile(samples: Sequence[float], share: float) -> float:
    """Return the smallest sample that at least `share` of all do not exceed."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def median_s(action: Callable[[], object], runs: int) -> float:
    """Return the median of how long an action takes, after one run that does not count."""
    action()
    samples = []
    for _ in range(runs):
        began = perf_counter()
        action()
        samples.append(perf_counter() - began)
    return statistics.median(samples)


def _rounded(value: object) -> object:
    return float(f"{value:.4g}") if isinstance(value, float) else value
