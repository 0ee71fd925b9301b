#!/usr/bin/env python
"""What devices, and the levers against their errors, do to the accuracy of trained classifiers.

    scripts/bench/crossbar/accuracy.py [--quick] [--seeds N] [--sets digits fashion] [--write crossbar/README.md]

Each classifier is trained once in floating point and then put on arrays, both layers; biases and rectifiers are
digital. Levers are calibrated with training images, accuracy is that of the test images, mean over seeds of devices.
JSON lines on stdout, Markdown to the section `accuracy` of `--write`, or to stderr.

- static: static partitioning, `Plan.static`: fixed tiling, one scale a matrix, the profile's ADC range, no lever.
- equal cells: every lever that takes no further cell, so the same network on as many cells as static.

The presets have no stuck devices; `generic, 1 % stuck` (0.5 % on, 0.5 % off) shows the levers against them.
`--quick` takes about a minute: digits only, two seeds. Everything takes an hour of one core.
"""

from __future__ import annotations

from crossbar.threads import single_threaded_blas

single_threaded_blas()  # before numpy: it must not start threads

import argparse  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
from collections.abc import Iterable  # noqa: E402
from dataclasses import dataclass, replace  # noqa: E402
from functools import cached_property  # noqa: E402
from pathlib import Path  # noqa: E402

import crossbar  # noqa: E402
from crossbar.devices import DeviceProfile  # noqa: E402
from crossbar.planning.plan import Plan  # noqa: E402
from crossbar.programmed import Crossbar  # noqa: E402

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from classifiers import Classifier, DataMissing, DataSet, digits, fashion, train  # noqa: E402
from figures import report  # noqa: E402
from tables import table, write_section  # noqa: E402

BITS = (8, 6, 4)
AGES = {"0 s": 0.0, "1 hour": 3600.0, "1 day": 86400.0, "30 days": 30 * 86400.0, "1 year": 365 * 86400.0}
CALIBRATION_IMAGES = 256
STUCK = "generic, 1 % stuck"
AGAINST_FAULTS = {"partner compensation", "assignment", "spare columns, 1 in 16"}

FREE_LEVERS: dict[str, dict[str, object]] = {
    "column scale": {"scale": "column"},
    "ADC range per column": {"adc_range": "column"},
    "column gain": {"column_gain": True},
    "write-verify to 1 %": {"write_verify_tolerance": 0.01, "write_verify_tries": 40},
    "partner compensation": {"partner_compensation": True},
    "assignment": {"assignment": "rows_and_columns"},
}
OTHER_LEVERS: dict[str, dict[str, object]] = {
    "arrays of 64 x 64": {"rows": 64, "columns": 64},
    "spare columns, 1 in 16": {"assignment": "rows_and_columns", "spare_columns": 8},
    "2 replicas": {"replicas": 2},
    "digital residual of 2 %": {"residual_share": 0.02},
}
LEVERS = {**FREE_LEVERS, **OTHER_LEVERS}


@dataclass(frozen=True)
class Subject:
    """A trained classifier and what it is tried with."""

    data: DataSet
    classifier: Classifier
    seeds: int

    @cached_property
    def _calibration(self) -> list:
        images = self.data.train_images[:, :CALIBRATION_IMAGES]
        return self.classifier.inputs(images)

    def program(self, profile: DeviceProfile, plan: Plan, seed: int) -> list[Crossbar]:
        """Put every layer on arrays of its own."""
        return [
            crossbar.program(weights, profile, seed=1000 * seed + layer, plan=plan, calibration=signal)
            for layer, (weights, signal) in enumerate(
                zip(self.classifier.weights, self._calibration, strict=True)
            )
        ]

    def accuracy(self, layers: list[Crossbar]) -> float:
        return self.classifier.accuracy(self.data, tuple(layer.apply for layer in layers))


@dataclass(frozen=True, slots=True)
class Outcome:
    """Accuracies of several seeds, and the cells allocated."""

    accuracies: tuple[float, ...]
    cells: int

    def __str__(self) -> str:
        return f"{100 * statistics.mean(self.accuracies):.1f}"

    @property
    def spread(self) -> float:
        return 100 * (statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="digits only, two seeds: about a minute")
    parser.add_argument("--seeds", type=int, default=0, help="devices that each figure is the mean of")
    parser.add_argument("--sets", nargs="+", choices=["digits", "fashion"], default=["digits", "fashion"])
    parser.add_argument("--write", type=Path, help="the document whose section 'accuracy' is replaced")
    arguments = parser.parse_args()
    texts = []
    for name in ["digits"] if arguments.quick else arguments.sets:
        try:
            subject = prepared(name, arguments.seeds or (2 if arguments.quick else 3))
        except DataMissing as missing:
            print(f"skipped {name}: {missing}", file=sys.stderr)
            texts.append(f"*{name} was skipped: {missing}*")
            continue
        texts.append(tables_of(subject, lever_bits=(8,) if name == "fashion" else (8, 4)))
    text = "\n\n".join(texts)
    if arguments.write is None:
        print(text, file=sys.stderr)
    else:
        write_section(arguments.write, "accuracy", text)


def prepared(name: str, seeds: int) -> Subject:
    """Load a data set and train its classifier."""
    if name == "digits":
        data, hidden, epochs = digits(), 64, 30
    else:
        data, hidden, epochs = fashion(), 128, 8
    return Subject(data, train(data, hidden, epochs=epochs), seeds)


def tables_of(subject: Subject, lever_bits: Iterable[int]) -> str:
    """Measure everything and return it as Markdown."""
    exact = subject.classifier.accuracy(subject.data)
    shape = "-".join(
        str(size) for size in (subject.classifier.weights[0].shape[1], *map(len, subject.classifier.weights))
    )
    report("accuracy", "exact", data=subject.data.name, accuracy=exact)
    outcomes: list[Outcome] = []
    parts = [
        f"### {subject.data.name}: {shape}, {100 * exact:.1f} % in floating point",
        "Test accuracy in per cent by bits of DAC and ADC.",
        by_bits(subject, outcomes),
        "By age, 8 bits. *static* has no drift compensation; *compensated* adds it, a digital factor; *equal cells* "
        "has it and every lever that takes no cells.",
        by_age(subject, outcomes),
    ]
    for bits in lever_bits:
        parts += [
            f"By lever, {bits} bits: static with this lever alone / with all levers of *equal cells* but this one "
            "(for levers that take cells or digital weights: and this one). Cells are relative to static's.",
            by_lever(subject, bits, outcomes),
        ]
    spread = max(outcome.spread for outcome in outcomes)
    median = statistics.median(outcome.spread for outcome in outcomes)
    parts.append(
        f"Means over {subject.seeds} seeds of devices, {len(subject.data.test_labels)} test images. Standard "
        f"deviation between seeds: {median:.1f} (median of all figures), {spread:.1f} (largest)."
    )
    return "\n\n".join(parts)


def tried_profiles() -> dict[str, DeviceProfile]:
    """Return all presets with devices, and one with stuck devices."""
    found = {name: crossbar.profile(name) for name in crossbar.profiles()}
    found = {name: profile for name, profile in found.items() if not profile.is_ideal}
    found[STUCK] = replace(found["generic"], name="generic-stuck", stuck_on_rate=0.005, stuck_off_rate=0.005)
    return found


def equal_cells(profile: DeviceProfile) -> Plan:
    """Return the plan with every lever that takes no cells."""
    return with_levers(Plan.static(profile), FREE_LEVERS.values())


def with_levers(plan: Plan, levers: Iterable[dict[str, object]]) -> Plan:
    for changes in levers:
        plan = replace(plan, **changes)
    return plan


def measured(subject: Subject, devices: DeviceProfile, layout: Plan, **labels: object) -> Outcome:
    """Return the accuracy of several seeds, and tell it."""
    accuracies, cells = [], 0
    for seed in range(subject.seeds):
        layers = subject.program(devices, layout, seed)
        accuracies.append(subject.accuracy(layers))
        cells = sum(layer.report().cells_allocated for layer in layers)
    return told(subject, Outcome(tuple(accuracies), cells), **labels)


def told(subject: Subject, outcome: Outcome, **labels: object) -> Outcome:
    report("accuracy", "accuracy", data=subject.data.name, **labels, cells=outcome.cells,
           accuracy=statistics.mean(outcome.accuracies), sd=outcome.spread / 100)  # fmt: skip
    return outcome


def by_bits(subject: Subject, outcomes: list[Outcome]) -> str:
    rows = []
    for name, profile in tried_profiles().items():
        found = []
        for plan_name, plan in (("static", Plan.static(profile)), ("equal cells", equal_cells(profile))):
            for bits in BITS:
                converted = replace(profile, dac_bits=bits, adc_bits=bits)
                labels = {"profile": name, "plan": plan_name, "bits": bits}
                found.append(measured(subject, converted, plan, **labels))
        outcomes += found
        rows.append([name, *map(str, found)])
    heads = [f"{plan}, {bits} bit" for plan in ("static", "equal cells") for bits in BITS]
    return table(["profile", *heads], rows)


def by_age(subject: Subject, outcomes: list[Outcome]) -> str:
    rows = []
    for name, profile in tried_profiles().items():
        if profile.drift is None:
            continue
        for plan_name, plan, compensated in (
            ("static", Plan.static(profile), False),
            ("compensated", Plan.static(profile), True),
            ("equal cells", equal_cells(profile), True),
        ):
            found = aged(subject, profile, plan, compensated, {"profile": name, "plan": plan_name})
            outcomes += found
            rows.append([f"{name}, {plan_name}", *map(str, found)])
    return table(["profile", *AGES], rows)


def aged(
    subject: Subject, profile: DeviceProfile, plan: Plan, compensated: bool, labels: dict[str, object]
) -> list[Outcome]:
    """Return an outcome for every age; the same devices grow old."""
    accuracies: dict[str, list[float]] = {age: [] for age in AGES}
    cells = 0
    for seed in range(subject.seeds):
        layers = subject.program(profile, plan, seed)
        cells = sum(layer.report().cells_allocated for layer in layers)
        for age, seconds in AGES.items():
            older = [layer.aged(seconds, compensated=compensated) for layer in layers] if seconds else layers
            accuracies[age].append(subject.accuracy(older))
    return [
        told(subject, Outcome(tuple(samples), cells), age=age, **labels)
        for age, samples in accuracies.items()
    ]


def by_lever(subject: Subject, bits: int, outcomes: list[Outcome]) -> str:
    """Return a table of levers by profiles. Levers against faults are tried where there are any."""
    columns: dict[str, dict[str, str]] = {}
    cells: dict[str, str] = {}
    for name, preset in tried_profiles().items():
        profile = replace(preset, dac_bits=bits, adc_bits=bits)
        static, everything = Plan.static(profile), equal_cells(profile)
        base = measured(subject, profile, static, profile=name, bits=bits, plan="static")
        best = measured(subject, profile, everything, profile=name, bits=bits, plan="equal cells")
        columns[name] = {"none / all": f"{base} / {best}"}
        outcomes += [base, best]
        for lever, changes in LEVERS.items():
            if lever in AGAINST_FAULTS and name != STUCK:
                continue
            alone = replace(static, **changes)
            kept = [other for key, other in FREE_LEVERS.items() if key != lever]
            others = with_levers(static, kept if lever in FREE_LEVERS else [*kept, changes])
            pair = [
                measured(subject, profile, plan, profile=name, bits=bits, lever=lever, plan=label)
                for label, plan in (("alone", alone), ("among others", others))
            ]
            outcomes += pair
            columns[name][lever] = f"{pair[0]} / {pair[1]}"
            cells[lever] = f"{pair[0].cells / base.cells:.2f}"
    rows = [
        [lever, cells.get(lever, "1.00"), *(column.get(lever, "") for column in columns.values())]
        for lever in ("none / all", *LEVERS)
    ]
    return table(["lever", "cells", *columns], rows)


if __name__ == "__main__":
    main()
