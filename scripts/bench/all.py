#!/usr/bin/env python
"""Every benchmark, one after the other: figures as JSON lines on stdout, and a table of the chief ones at the end.

    scripts/bench/all.py [--quick] [--ray-python PYTHON] > figures.jsonl

The table goes to stderr, as progress does. Takes about fifteen minutes on two cores, a fifth of that with --quick.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
# What is asked of each benchmark when there is little time.
QUICK = {
    "products": ["--seconds", "1", "--rounds", "1"],
    "put": ["--mebibytes", "64", "--rounds", "1"],
    "idle": ["--settle", "5", "--seconds", "5"],
    "client": ["--runs", "3"],
    "loss": ["--losses", "2"],
    "repair": ["--mebibytes", "64", "--rounds", "1"],
    "restart": ["--mebibytes", "64", "--rounds", "1"],
    "transport": ["--seconds", "0.5"],
    "engine": [],
}
# Lines of the table: where a figure is, what tells it apart, and which of its values are shown.
TABLE = (
    ("products", "numpy", (), ("ms",)),
    ("products", "ray", ("in_flight",), ("per_s",)),
    (
        "products",
        "sedmad",
        ("survive", "in_flight"),
        ("per_s", "p50_ms", "p99_ms", "communication_share", "ratio_to_numpy", "ratio_to_ray"),
    ),
    ("put", "disk", (), ("MB_per_s",)),
    ("put", "host", (), ("MB_per_s",)),
    ("put", "tls", (), ("MB_per_s",)),
    (
        "put",
        "sedmad",
        ("survive",),
        (
            "MB_per_s",
            "of_noise_yamux_over_copies",
            "owner_anonymous_growth_MiB",
            "pss_growth_over_user",
        ),
    ),
    ("idle", "median", ("nodes",), ("pss_MiB", "pss_largest_MiB", "core_percent")),
    ("client", "status", (), ("s",)),
    ("client", "apply", (), ("rss_MiB", "pss_MiB", "s")),
    ("loss", "SIGKILL of all", ("losses",), ("rerouted_ms_p99", "longest_ms_p99")),
    ("loss", "SIGSTOP of all", ("losses",), ("rerouted_ms_p99", "longest_ms_p99")),
    (
        "repair",
        "median",
        ("mebibytes",),
        ("rerouted_s", "whole_s", "restored_MiB", "MB_per_s", "before_p99_ms", "during_p99_ms"),
    ),
    ("restart", "median", ("mebibytes",), ("ready_s", "serving_s", "resident_s")),
    ("restart", "owner", (), ("dead_s", "owned_s", "whole_s")),
)


def run(benchmark: str, arguments: list[str]) -> list[dict[str, Any]]:
    """Run one benchmark, pass its lines on as they come, and return its figures."""
    print(f"{benchmark} ...", file=sys.stderr)
    figures = []
    command = [sys.executable, str(HERE / f"{benchmark}.py"), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                print(line, end="", flush=True)
                figures.append({"benchmark": benchmark, **json.loads(line)})
    if process.returncode:
        print(f"{benchmark} failed with exit code {process.returncode}", file=sys.stderr)
    return figures


def table_lines(figures: list[dict[str, Any]]) -> list[str]:
    """Return the lines of the table, without figures that were not measured."""
    lines = []
    for benchmark, name, keys, values in TABLE:
        for figure in figures:
            if (figure["benchmark"], figure["figure"]) != (benchmark, name):
                continue
            what = " ".join([benchmark, name, *(f"{key}={figure[key]}" for key in keys)])
            shown = "  ".join(f"{value}={figure[value]:g}" for value in values if value in figure)
            lines.append(f"{what:<44} {shown}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="smaller and fewer measurements")
    parser.add_argument("--ray-python", metavar="PYTHON", help="interpreter that has Ray, for comparison")
    arguments = parser.parse_args()
    figures, failed = [], []
    for benchmark, quick in QUICK.items():
        options = list(quick) if arguments.quick else []
        if benchmark == "products" and arguments.ray_python:
            options += ["--ray-python", arguments.ray_python]
        found = run(benchmark, options)
        figures += found
        if not found:
            failed.append(benchmark)
    print("", *table_lines(figures), sep="\n", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
