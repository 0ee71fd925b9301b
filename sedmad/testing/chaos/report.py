"""What a run has shown: for people as tables, for programs as JSON."""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sedmad.cli.table import Column, print_facts, print_table
from sedmad.cli.terminal import Terminal
from sedmad.sizes import format_bytes
from sedmad.testing.chaos.figures import Latency, columns, latency, routed_around_s, under_faults
from sedmad.testing.chaos.history import Failure, History
from sedmad.testing.chaos.repairs import Repairs

FAILURES_SHOWN = 20


def document(
    history: History,
    steady: Sequence[int],
    logged_errors: Mapping[str, Counter[str]],
    repairs: Repairs,
    **facts: object,
) -> dict[str, Any]:
    """Return the report as a document: seconds for times, counted from the start of the run.

    Args:
        history: of a run that is over.
        steady: the entries by whose products a fault counts as routed around.
        logged_errors: by node and event.
        repairs: watched until the end.
        facts: about the run, told first.
    """
    products = columns(history.products)
    took_s = products.ended_s - products.began_s
    touched, own = under_faults(products, history.injuries), products.own_node_hit
    return {
        **facts,
        "elapsed_s": history.elapsed_s(),
        "clean": history.is_clean,
        "products": {
            "total": history.product_count(),
            "wrong": history.counts["wrong"],
            "failed": history.counts["failed"],
            "name_absent": history.counts["absent"],
            "moved": dict(history.moves),
            "without_faults": dataclasses.asdict(latency(took_s[~touched & ~own])),
            "under_faults": dataclasses.asdict(latency(took_s[touched & ~own])),
            "own_node_hit": dataclasses.asdict(latency(took_s[own])),
        },
        "changes": {verb: history.counts[verb] for verb in ("put", "replace", "remove")},
        "refused": dict(history.refusals),
        "repaired_bytes": repairs.restored_bytes,
        "longest_repair_s": repairs.longest_s,
        "longest_repair_of": repairs.longest_of,
        "faults": [
            {
                "number": injury.fault.number,
                "kind": str(injury.fault.kind),
                "nodes": list(injury.fault.nodes),
                "began_s": injury.began_s - history.started_s,
                "duration_s": injury.fault.duration_s,
                "routed_around_s": routed_around_s(products, injury, steady),
                "back_s": _between(injury.undone_s, injury.ended_s),
            }
            for injury in history.injuries
        ],
        "skipped": history.skipped,
        "wrong": [dataclasses.asdict(failure) for failure in history.wrong],
        "failed": [dataclasses.asdict(failure) for failure in history.failed],
        "problems": [dataclasses.asdict(failure) for failure in history.problems],
        "logged_errors": {node: dict(events) for node, events in logged_errors.items() if events},
    }


def print_report(terminal: Terminal, report: dict[str, Any], history: History) -> None:
    """Print a document of `document`."""
    products = report["products"]
    moved = _counted(products["moved"])
    facts = [
        ("seed", f"{report['seed']}, {report['nodes']} nodes, survive {report['survive']}"),
        (
            "products",
            f"{products['total']:,} in {report['elapsed_s']:.0f} s: "
            f"{products['wrong']} wrong, {products['failed']} failed",
        ),
        (
            "own node hit",
            f"{products['own_node_hit']['count']} products" + (f"; moved: {moved}" if moved else ""),
        ),
        ("no such name", f"{products['name_absent']} times, while it was put or removed"),
        ("changes", _counted(report["changes"])),
        ("refused", _counted(report["refused"]) or "none"),
        ("repaired", _repaired(report)),
        *((f"no {kind}", reason) for kind, reason in report["skipped"].items()),
        *((f"log of {node}", _counted(events)) for node, events in report["logged_errors"].items()),
    ]
    print_facts(terminal, facts)
    terminal.print()
    _print_latencies(terminal, products)
    if report["faults"]:
        terminal.print()
        _print_faults(terminal, report["faults"])
    for kind, failures in (
        ("WRONG", history.wrong),
        ("FAILED", history.failed),
        ("PROBLEM", history.problems),
    ):
        _print_failures(terminal, kind, failures)


def _print_latencies(terminal: Terminal, products: dict[str, Any]) -> None:
    rows = []
    for key in ("without_faults", "under_faults", "own_node_hit"):
        figures = Latency(**products[key])
        if figures.count:
            times = (figures.p50_s, figures.p99_s, figures.slowest_s)
            rows.append([key.replace("_", " "), f"{figures.count:,}", *map(_duration, times)])
    headings = ("PRODUCTS", "COUNT", "P50", "P99", "SLOWEST")
    print_table(terminal, [Column(heading, right=heading != "PRODUCTS") for heading in headings], rows)


def _print_faults(terminal: Terminal, faults: list[dict[str, Any]]) -> None:
    rows = []
    for kind in sorted({fault["kind"] for fault in faults}):
        ours = [fault for fault in faults if fault["kind"] == kind]
        routed = [fault["routed_around_s"] for fault in ours if fault["routed_around_s"] is not None]
        back = [fault["back_s"] for fault in ours if fault["back_s"] is not None]
        rows.append(
            [
                kind,
                str(len(ours)),
                _duration(statistics.median(routed) if routed else None),
                _duration(max(routed, default=None)),
                str(len(ours) - len(routed)),
                _duration(max(back, default=None)),
            ]
        )
    headings = ("FAULT", "COUNT", "ROUTED AROUND", "LONGEST", "NEVER", "BACK, LONGEST")
    print_table(terminal, [Column(heading, right=heading != "FAULT") for heading in headings], rows)


def _print_failures(terminal: Terminal, kind: str, failures: list[Failure]) -> None:
    # One fault makes many alike: the first of each is told, with their number.
    alike: dict[tuple[str, str], list[Failure]] = {}
    for failure in failures:
        alike.setdefault((failure.message, failure.fault), []).append(failure)
    for (message, fault), group in list(alike.items())[:FAILURES_SHOWN]:
        times = f" ({len(group)} times)" if len(group) > 1 else ""
        during = f", during {fault}" if fault else ", no fault under way"
        terminal.print(terminal.paint(f"\n{kind}{times} {group[0].what}", "red"))
        terminal.print(f"  {group[0].at_s:.1f} s after the start{during}\n  {message}")


def _between(first_s: float | None, then_s: float | None) -> float | None:
    return None if first_s is None or then_s is None else then_s - first_s


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _repaired(report: Mapping[str, Any]) -> str:
    told: str = format_bytes(report["repaired_bytes"])
    if report["longest_repair_s"] is None:
        return told
    return (
        f"{told}; the longest took {_duration(report['longest_repair_s'])}, of {report['longest_repair_of']}"
    )


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
