"""Measures the IR-drop solvers on one array, beside badcrossbar where it is installed: one JSON line per figure.

    python scripts/bench/crossbar/irdrop.py [SIDE] [OHM]

One thread, one vector; medians of several runs, all figures of a run in turn so that the load of the machine weighs on
all alike. `error` is relative to the largest current of the exact solution. badcrossbar 1.1.0 solves the same network
exactly, by a sparse factorisation for every call: `times_badcrossbar` is its time divided by ours.
"""

from __future__ import annotations

from crossbar.threads import single_threaded_blas

single_threaded_blas()  # before numpy: it must not start threads

import logging  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
import warnings  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from time import perf_counter  # noqa: E402

import numpy as np  # noqa: E402

from crossbar.irdrop import fold, is_worth_folding, solve  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1]))
from figures import report  # noqa: E402

ROUNDS = 5
RELAXATIONS = 20  # in one round: they are short
TOLERANCES = (1e-3, 1e-6, 1e-9)

Solve = Callable[[], np.ndarray]


def badcrossbar_solver(conductance: np.ndarray, voltages: np.ndarray, ohm: float) -> Solve | None:
    """Return badcrossbar's solution as a function, or None where it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that it cannot draw
        try:
            import badcrossbar
        except ImportError:
            return None
    logging.disable(logging.INFO)

    def solution() -> np.ndarray:
        solved = badcrossbar.compute(
            voltages, 1 / conductance, r_i=ohm, node_voltages=False, all_currents=False
        )
        return np.asarray(solved.currents.output).T

    return solution


def timed(action: Callable[[], object], repeats: int) -> list[float]:
    """Return how many seconds each repeat took."""
    found = []
    for _ in range(repeats):
        began = perf_counter()
        action()
        found.append(perf_counter() - began)
    return found


def main() -> None:
    side = int(sys.argv[1]) if len(sys.argv) > 1 else 128
    ohm = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    rng = np.random.default_rng(0)
    conductance = rng.uniform(1e-6, 1e-4, (side, side))
    voltages = rng.uniform(0.0, 0.3, (side, 1))
    many = rng.uniform(0.0, 0.3, (side, 64))
    effective = fold(conductance, ohm, ohm)
    solvers: dict[str, tuple[Solve, int]] = {
        f"relaxation {tolerance:g}": (
            lambda tolerance=tolerance: solve(
                conductance, voltages, ohm, ohm, method="relaxation", tolerance=tolerance
            ),
            RELAXATIONS,
        )
        for tolerance in TOLERANCES
    }
    solvers["folded"] = (lambda: solve(conductance, voltages, ohm, ohm, method="folded"), 1)
    solvers["exact"] = (lambda: solve(conductance, voltages, ohm, ohm, method="exact"), 1)
    peer = badcrossbar_solver(conductance, voltages, ohm)
    if peer is not None:
        solvers["badcrossbar"] = (peer, 1)

    reference = effective.T @ voltages
    errors = {
        name: float(np.abs(solver() - reference).max() / reference.max())
        for name, (solver, _) in solvers.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in solvers}
    for _ in range(ROUNDS):
        for name, (solver, repeats) in solvers.items():
            seconds[name] += timed(solver, repeats)
    medians = {name: statistics.median(samples) for name, samples in seconds.items()}
    for name, median in medians.items():
        values: dict[str, object] = {"ms": median * 1e3, "error": errors[name]}
        if peer is not None and name != "badcrossbar":
            values["times_badcrossbar"] = medians["badcrossbar"] / median
        report("irdrop", name, side=side, ohm=ohm, **values)

    multiply_s = statistics.median(timed(lambda: effective.T @ many, RELAXATIONS)) / many.shape[1]
    saved_s = medians["relaxation 1e-06"] - multiply_s
    report("irdrop", "folding pays", side=side, ohm=ohm, vectors=medians["folded"] / saved_s,
           rule=next(n for n in range(1, 1 << 20) if is_worth_folding(n, side, side)),
           lost_share=float(1 - reference.sum() / (conductance.T @ voltages).sum()))  # fmt: skip


if __name__ == "__main__":
    main()
