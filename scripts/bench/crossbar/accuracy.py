#!/usr/bin/env python
"""What devices, and the levers against their errors, do to the accuracy of trained classifiers.

    scripts/bench/crossbar/accuracy.py [--quick] [--seeds N] [--sets digits fashion] [--write crossbar/README.md]

Each classifier is trained once in floating point and then put on arrays, both layers; biases and rectifiers are
digital. Levers are calibrated with training images, accuracy is that of the test images, mean over seeds of devices.
Every profile is measured with and without levers at 8, 6 and 4 bits, with each lever (Fashion-MNIST: at 8 bits), and,
if its devices change with time, fresh and old; with all levers and with none at every age. All of that are JSON lines
on stdout; tables of it go to the section `accuracy` of `--write`, or to stderr.

- static: static partitioning, `Plan.static`: fixed tiling, one scale a matrix, the profile's ADC range, no lever.
- equal cells: every lever that takes no further cell, so the same network on as many cells as static.

The presets have no stuck devices; `generic, 1 % stuck` (0.5 % on, 0.5 % off) shows the levers against them.
`--quick` takes a minute: digits only, one seed. Everything takes half an hour of one core.
"""

from __future__ import annotations

from crossbar.threads import single_threaded_blas

single_threaded_blas()  # before numpy: it must not start threads

import argparse  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
from collections.abc import Iterable, Mapping  # noqa: E402
from dataclasses import dataclass, replace  # noqa: E402
from pathlib import Path  # noqa: E402

import crossbar  # noqa: E402
from crossbar.devices import DeviceProfile  # noqa: E402
from crossbar.planning.plan import Plan  # noqa: E402
from crossbar.programmed import Crossbar  # noqa: E402

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from classifiers import Array, Classifier, DataMissing, DataSet, digits, fashion, train  # noqa: E402
from figures import report  # noqa: E402
from tables import folded, table, write_section  # noqa: E402

BITS = (8, 6, 4)
FRESH, OLD = "0 s", "1 year"
AGES = {FRESH: 0.0, "1 hour": 3600.0, "1 day": 86400.0, "30 days": 30 * 86400.0, OLD: 365 * 86400.0}
SEEDS = {"digits": 10, "fashion": 2}
LEVER_BITS = {"digits": (8, 6, 4), "fashion": (8,)}
CALIBRATION_IMAGES = 256
STUCK = "generic, 1 % stuck"
AGAINST_FAULTS = {"partner compensation", "assignment", "spare columns, 1 in 16"}

COMPENSATION = "drift compensation"
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
LEVERS = {**FREE_LEVERS, COMPENSATION: {}, **OTHER_LEVERS}


@dataclass(frozen=True, slots=True)
class Variant:
    """A plan, whether drift that all devices share is made up for by a digital factor, and when it is measured."""

    plan: Plan
    compensated: bool
    ages: tuple[str, ...] = (FRESH, OLD)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Accuracies of several seeds, and the cells allocated."""

    accuracies: tuple[float, ...]
    cells: int

    def __str__(self) -> str:
        return f"{100 * statistics.mean(self.accuracies):.1f}"

    @property
    def spread(self) -> float:
        """The standard deviation between seeds, in per cent."""
        return 100 * (statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0)


Outcomes = dict[tuple[str, int, str, str], Outcome]
"""By profile, bits, variant and age."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A trained classifier, what it is tried with, and what arrives at each layer during calibration.

    Levers are tried one at a time at `lever_bits`; at other bits there are only all of them, or none.
    """

    data: DataSet
    classifier: Classifier
    seeds: int
    lever_bits: tuple[int, ...]
    calibration: tuple[Array, ...]

    @classmethod
    def prepared(cls, name: str, seeds: int) -> Subject:
        """Load a data set and train its classifier."""
        if name == "digits":
            data, hidden, epochs = digits(), 64, 30
        else:
            data, hidden, epochs = fashion(), 128, 8
        classifier = train(data, hidden, epochs=epochs)
        calibration = classifier.inputs(data.train_images[:, :CALIBRATION_IMAGES])
        return cls(data, classifier, seeds, LEVER_BITS[name], tuple(calibration))

    def measured(self, profile: DeviceProfile, variant: Variant) -> dict[str, Outcome]:
        """Return an outcome for every age; the same devices grow old."""
        ages = variant.ages if profile.drift is not None else (FRESH,)
        accuracies: dict[str, list[float]] = {age: [] for age in ages}
        cells = 0
        for seed in range(self.seeds):
            layers = self._program(profile, variant.plan, seed)
            cells = sum(layer.report().cells_allocated for layer in layers)
            for age in ages:
                seconds = AGES[age]
                older = [
                    layer.aged(seconds, compensated=variant.compensated) if seconds else layer
                    for layer in layers
                ]
                now = tuple(layer.apply for layer in older)
                accuracies[age].append(self.classifier.accuracy(self.data, now))
        return {age: Outcome(tuple(samples), cells) for age, samples in accuracies.items()}

    def _program(self, profile: DeviceProfile, plan: Plan, seed: int) -> list[Crossbar]:
        """Put every layer on arrays of its own."""
        layers = zip(self.classifier.weights, self.calibration, strict=True)
        return [
            crossbar.program(weights, profile, seed=1000 * seed + index, plan=plan, calibration=signal)
            for index, (weights, signal) in enumerate(layers)
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="digits only, one seed: a minute")
    parser.add_argument("--seeds", type=int, default=0, help="devices that each figure is the mean of")
    parser.add_argument("--sets", nargs="+", choices=list(SEEDS), default=list(SEEDS))
    parser.add_argument("--write", type=Path, help="the document whose section 'accuracy' is replaced")
    arguments = parser.parse_args()
    texts = []
    for name in ["digits"] if arguments.quick else arguments.sets:
        seeds = arguments.seeds or (1 if arguments.quick else SEEDS[name])
        try:
            subject = Subject.prepared(name, seeds)
        except DataMissing as missing:
            print(f"skipped {name}: {missing}", file=sys.stderr)
            texts.append(f"*{name} was skipped: {missing}*")
            continue
        texts.append(tables_of(subject, outcomes_of(subject)))
    text = "\n\n".join(texts)
    if arguments.write is None:
        print(text, file=sys.stderr)
    else:
        write_section(arguments.write, "accuracy", text)


def tried_profiles() -> dict[str, DeviceProfile]:
    """Return all presets with devices, and one with stuck devices."""
    found = {name: crossbar.profile(name) for name in crossbar.profiles()}
    found = {name: profile for name, profile in found.items() if not profile.is_ideal}
    found[STUCK] = replace(found["generic"], name="generic-stuck", stuck_on_rate=0.005, stuck_off_rate=0.005)
    return found


def variants_of(name: str, profile: DeviceProfile, *, each_lever: bool) -> dict[str, Variant]:
    """Return static, equal cells, and every lever alone and among others; none that has nothing to act upon."""
    static = Plan.static(profile)
    found = {
        "static": Variant(static, compensated=False, ages=tuple(AGES)),
        "equal cells": Variant(_with(static, FREE_LEVERS.values()), compensated=True, ages=tuple(AGES)),
    }
    for lever, changes in LEVERS.items() if each_lever else ():
        if (lever in AGAINST_FAULTS and name != STUCK) or (lever == COMPENSATION and profile.drift is None):
            continue
        others = [other for key, other in FREE_LEVERS.items() if key != lever]
        if lever in OTHER_LEVERS:
            others.append(changes)
        found[f"{lever}, alone"] = (
            Variant(static, compensated=True, ages=tuple(AGES))
            if lever == COMPENSATION
            else Variant(_with(static, [changes]), compensated=False)
        )
        found[f"{lever}, among others"] = Variant(_with(static, others), compensated=lever != COMPENSATION)
    return found


def _with(plan: Plan, levers: Iterable[Mapping[str, object]]) -> Plan:
    for changes in levers:
        plan = replace(plan, **changes)
    return plan


def outcomes_of(subject: Subject) -> Outcomes:
    """Measure everything, and tell each figure."""
    outcomes: Outcomes = {}
    for name, profile in tried_profiles().items():
        for bits in BITS:
            converted = replace(profile, dac_bits=bits, adc_bits=bits)
            variants = variants_of(name, profile, each_lever=bits in subject.lever_bits)
            for label, variant in variants.items():
                for age, outcome in subject.measured(converted, variant).items():
                    outcomes[name, bits, label, age] = outcome
                    report("accuracy", "accuracy", data=subject.data.name, profile=name, bits=bits, plan=label,
                           age=age, cells=outcome.cells, accuracy=statistics.mean(outcome.accuracies),
                           sd=outcome.spread / 100)  # fmt: skip
    return outcomes


def tables_of(subject: Subject, outcomes: Outcomes) -> str:
    """Return the tables of one classifier as Markdown."""
    exact = subject.classifier.accuracy(subject.data)
    weights = subject.classifier.weights
    shape = "-".join(str(size) for size in (weights[0].shape[1], *map(len, weights)))
    parts = [
        f"### {subject.data.name}: {shape}, {100 * exact:.1f} % in floating point",
        "Test accuracy in per cent by bits of DAC and ADC, fresh devices.",
        _by_bits(outcomes),
        "By age, 8 bits. *static* has no drift compensation; *compensated* adds it, a digital factor; *equal cells* "
        "has it and every lever that takes no cells.",
        _by_age(outcomes),
        "By lever. The first figure is *static* with this lever alone; the second is *equal cells* without it, or for "
        "levers that take cells or digital weights, with it. Cells are relative to those of *static*.",
    ]
    for bits, age in ((8, FRESH), (4, FRESH), (8, OLD)):
        if bits in subject.lever_bits:
            parts.append(
                folded(f"{subject.data.name} by lever, {bits} bits, {age}", _by_lever(outcomes, bits, age))
            )
    spreads = [outcome.spread for outcome in outcomes.values()]
    parts.append(
        f"Means over {subject.seeds} seeds of devices, {len(subject.data.test_labels)} test images. Standard "
        f"deviation between seeds: {statistics.median(spreads):.1f} (median of all figures), "
        f"{max(spreads):.1f} (largest)."
    )
    return "\n\n".join(parts)


def _by_bits(outcomes: Outcomes) -> str:
    columns = [(plan, bits) for plan in ("static", "equal cells") for bits in BITS]
    rows = [
        [name, *(str(outcomes[name, bits, plan, FRESH]) for plan, bits in columns)]
        for name in tried_profiles()
    ]
    return table(["profile", *(f"{plan}, {bits} bit" for plan, bits in columns)], rows)


def _by_age(outcomes: Outcomes) -> str:
    labels = {"static": "static", "compensated": f"{COMPENSATION}, alone", "equal cells": "equal cells"}
    rows = [
        [f"{name}, {label}", *(str(outcomes[name, 8, plan, age]) for age in AGES)]
        for name, profile in tried_profiles().items()
        for label, plan in labels.items()
        if profile.drift is not None
    ]
    return table(["profile", *AGES], rows)


def _by_lever(outcomes: Outcomes, bits: int, age: str) -> str:
    """Return a table of levers by profiles, of which those that do not change have no age."""
    names = [name for name in tried_profiles() if (name, bits, "static", age) in outcomes]
    rows = [
        [
            "none / all",
            "1.00",
            *(_pair(outcomes, (name, bits, age), "static", "equal cells") for name in names),
        ]
    ]
    for lever in LEVERS:
        pairs = [
            _pair(outcomes, (name, bits, age), f"{lever}, alone", f"{lever}, among others") for name in names
        ]
        if any(pairs):
            rows.append([lever, _cells(outcomes, lever), *pairs])
    return table(["lever", "cells", *names], rows)


def _pair(outcomes: Outcomes, where: tuple[str, int, str], first: str, second: str) -> str:
    name, bits, age = where
    if (name, bits, first, age) not in outcomes:
        return ""
    return f"{outcomes[name, bits, first, age]} / {outcomes[name, bits, second, age]}"


def _cells(outcomes: Outcomes, lever: str) -> str:
    """Return what a lever alone takes of cells, relative to static; the same for all profiles."""
    return next(
        f"{outcome.cells / outcomes[name, bits, 'static', age].cells:.2f}"
        for (name, bits, label, age), outcome in outcomes.items()
        if label == f"{lever}, alone"
    )


if __name__ == "__main__":
    main()
