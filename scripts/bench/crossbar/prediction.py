#!/usr/bin/env python
"""Predicted errors beside measured ones, for every profile and several plans: JSON lines, and a table on stderr.

    scripts/bench/crossbar/prediction.py [--size 512] [--chips 3] [--profiles NAME ...] [--day]

Each plan is programmed on several chips and multiplied with normal vectors that no calibration has seen. `ratio` is
measured / predicted; `term` the largest term of the prediction, and its share of the squared error.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from crossbar.threads import single_threaded_blas

single_threaded_blas()

import numpy as np  # noqa: E402 - after BLAS was told to use one thread

sys.path.append(str(Path(__file__).parents[1]))

from figures import report  # noqa: E402

from crossbar.devices import DeviceProfile, profile, profiles  # noqa: E402
from crossbar.planning.budget import predict  # noqa: E402
from crossbar.planning.plan import Plan  # noqa: E402
from crossbar.planning.statistics import BlockStatistics  # noqa: E402
from crossbar.programmed import program  # noqa: E402

DAY_S = 86400.0
VECTORS = 64
BAND = (0.7, 1.4)
"""Where measured / predicted should lie."""

FAULTS = {"stuck_on_rate": 0.002, "stuck_off_rate": 0.008}
VERIFIED = {"write_verify_tolerance": 0.01, "write_verify_tries": 20}

PLANS: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "default": ({}, {}),
    "column range and gain": ({"adc_range": "column", "column_gain": True}, {}),
    "verified": ({"adc_range": "column", "column_gain": True, **VERIFIED}, {}),
    "offset": ({"encoding": "offset", "column_gain": True}, {}),
    "half arrays": ({"rows": 64, "columns": 64, "column_gain": True}, {}),
    "4 replicas": ({"replicas": 4, "column_gain": True}, {}),
    "2 slices of 8 levels": ({"slices": 2, "column_gain": True}, {"levels": 8}),
    "faults": ({}, FAULTS),
    "faults, partners": ({"partner_compensation": True}, FAULTS),
    "faults, assigned": ({"partner_compensation": True, "assignment": "columns"}, FAULTS),
    "faults, spares": (
        {"partner_compensation": True, "assignment": "columns", "spare_columns": 8},
        FAULTS,
    ),
    "faults, residual": ({"column_gain": True, "residual_share": 0.02, **VERIFIED}, FAULTS),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512, help="outputs and inputs of the weights")
    parser.add_argument("--chips", type=int, default=3)
    parser.add_argument("--profiles", nargs="+", default=sorted(set(profiles()) - {"ideal"}))
    parser.add_argument("--day", action="store_true", help="a day after programming")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((arguments.size, arguments.size), np.float32)
    vectors = rng.standard_normal((arguments.size, VECTORS), np.float32)
    statistics = BlockStatistics(weights)
    seconds = DAY_S if arguments.day else 0.0
    ratios = []
    for name in arguments.profiles:
        for label, (levers, devices) in PLANS.items():
            described = replace(profile(name), **devices)
            plan = replace(Plan.default(described), **levers)
            ratios.append(compare(statistics, vectors, described, label, plan, seconds, arguments.chips))
    inside = sum(BAND[0] <= ratio <= BAND[1] for ratio in ratios) / len(ratios)
    report(
        "prediction", "summary", plans=len(ratios), inside_band=inside, least=min(ratios), most=max(ratios)
    )


def compare(
    statistics: BlockStatistics,
    vectors: np.ndarray,
    described: DeviceProfile,
    label: str,
    plan: Plan,
    seconds: float,
    chips: int,
) -> float:
    """Report one plan on one profile; return measured / predicted."""
    budget = predict(statistics, described, plan, seconds=seconds)
    measured = []
    for chip in range(chips):
        crossbar = program(statistics.weights, described, seed=chip, plan=plan)
        measured.append((crossbar.aged(seconds) if seconds else crossbar).error(vectors))
    found = float(np.sqrt(np.mean(np.square(measured))))
    term = max(budget.terms, key=lambda key: budget.terms[key])
    ratio = found / budget.total
    report(
        "prediction", "plan", profile=described.name, plan=label, seconds=seconds, predicted=budget.total,
        measured=found, ratio=ratio, term=term, term_share=(budget.terms[term] / budget.total) ** 2,
        terms={key: float(f"{value:.3g}") for key, value in budget.terms.items() if value},
    )  # fmt: skip
    print(
        f"{described.name:<20} {label:<22} predicted {budget.total:.4f}  measured {found:.4f}  ratio {ratio:.2f}"
        + ("" if BAND[0] <= ratio <= BAND[1] else "  <-- outside"),
        file=sys.stderr,
    )
    return ratio


if __name__ == "__main__":
    main()
