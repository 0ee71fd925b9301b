"""Owns the study behind a report: plans a matrix, programs it, and measures what each choice is worth.

The whole matrix is programmed as planned and without levers. Sweeps, which program many times, take its first outputs
and inputs only (`SAMPLE`). All errors are relative L2 errors of products with calibration vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from crossbar.devices.profile import DeviceProfile
from crossbar.engine import FloatArray
from crossbar.errors import TargetUnreachable, WeightsInvalid
from crossbar.mapping.encoding import Encoder, Window, column_scales
from crossbar.partitioner import partition
from crossbar.planning.budget import ErrorBudget, predict
from crossbar.planning.calibration import MeasuredError, calibration_vectors, measured_error
from crossbar.planning.plan import Plan
from crossbar.planning.planned import cells_of
from crossbar.planning.rungs import ladder
from crossbar.programmed import Crossbar, program
from crossbar.reporting.tile_map import TileMap
from crossbar.simulation.counting import Report

SAMPLE = (128, 256)
"""Outputs and inputs that sweeps program: enough for arrays of any size tried, few enough for a minute in all."""

VERIFIED_WEIGHTS_MAX = 1 << 20
"""Plans of larger matrices are not verified while planning: it programs them once for every try."""

AGES = {"0 s": 0.0, "1 min": 60.0, "1 h": 3600.0, "1 d": 86400.0, "30 d": 30 * 86400.0, "1 y": 365 * 86400.0}
ADC_BITS = (3, 4, 5, 6, 7, 8, 10, 12)
TILE_SIZES = (16, 32, 64, 128, 256)
_MEASURING_SEED = 0x7265706F7274  # vectors apart from those that ranges and gains are calibrated with
_HISTOGRAM_BINS = 60

Progress = Callable[[str], None]
Sweep = dict[str, tuple[float, ...]]
"""Errors of each line of a chart, one for every place on its axis."""


@dataclass(frozen=True, slots=True)
class Step:
    """The plan after one lever: predicted and measured error of the sample, cells relative to no lever at all."""

    name: str
    predicted: float
    measured: float
    cells: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """Shares of cells, target and programmed, in bins of conductance between `edges_siemens`."""

    edges_siemens: npt.NDArray[np.float64]
    target: npt.NDArray[np.float64]
    programmed: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What a report shows.

    Attributes:
        plan, static: with the levers that the target asked for, and without any.
            If arrays cannot meet it, `plan` is the last one before digital arithmetic.
        budget, static_budget: predicted errors of the whole matrix.
        measured, static_measured: on the whole matrix.
        counts, static_counts: of the whole matrix.
        steps: from no lever to `plan`.
        by_tile_size, by_adc_bits, by_age: errors for `tile_sizes`, ADC_BITS, AGES; no ages without a drift law.
    """

    shape: tuple[int, int]
    profile: DeviceProfile
    target_error: float
    seed: int
    plan: Plan
    static: Plan
    budget: ErrorBudget
    static_budget: ErrorBudget
    measured: MeasuredError
    static_measured: MeasuredError
    counts: Report
    static_counts: Report
    steps: tuple[Step, ...]
    tile_sizes: tuple[int, ...]
    by_tile_size: Sweep
    by_adc_bits: Sweep
    by_age: Sweep
    histogram: Histogram
    tile_map: TileMap

    @property
    def is_met(self) -> bool:
        """Whether the whole matrix is as exact as was asked for."""
        return self.measured.value <= self.target_error


def study(
    weights: FloatArray,
    profile: DeviceProfile,
    target_error: float,
    *,
    seed: int = 0,
    progress: Progress = lambda _: None,
) -> Study:
    """Return everything that a report shows of `weights` (outputs, inputs), float32 or float64, on a profile.

    Raises:
        WeightsInvalid: not finite, empty, or without any product to compare with; or the profile has no devices.
        PlanInvalid: the target is not between 0 and 1.
    """
    if profile.is_ideal:
        raise WeightsInvalid(
            f"the profile {profile.name!r} has no devices",
            why="there is nothing to draw",
            hint="Choose another.",
        )
    progress("planning")
    plans = _plans(weights, profile, target_error, seed)
    static, plan = plans[0][1], plans[-1][1]
    bench = _Bench(np.ascontiguousarray(weights[: SAMPLE[0], : SAMPLE[1]]), seed)
    progress(f"programming {weights.shape[0]} x {weights.shape[1]} weights")
    bare, best = (program(weights, profile, seed=seed, plan=one) for one in (static, plan))
    vectors = calibration_vectors(weights.shape[1], seed=seed ^ _MEASURING_SEED)
    measured = [measured_error(one.apply, weights, vectors) for one in (bare, best)]
    sizes = tuple(size for size in TILE_SIZES if size <= 2 * max(profile.rows, profile.columns))
    return Study(
        shape=best.shape,
        profile=profile,
        target_error=target_error,
        seed=seed,
        plan=plan,
        static=static,
        budget=predict(weights, profile, plan),
        static_budget=predict(weights, profile, static),
        static_measured=measured[0],
        measured=measured[1],
        static_counts=bare.report(),
        counts=best.report(),
        steps=_steps(bench, profile, plans, progress),
        tile_sizes=sizes,
        by_tile_size=_by_tile_size(bench, profile, static, plan, sizes, progress),
        by_adc_bits=_by_adc_bits(bench, profile, static, plan, progress),
        by_age=_by_age(bench, profile, static, plan, progress),
        histogram=_histogram(bench.weights, profile, plan, seed),
        tile_map=TileMap.of(best, weights),
    )


@dataclass(frozen=True, slots=True)
class _Bench:
    """A sample of the weights, which is programmed again and again."""

    weights: FloatArray
    seed: int

    def program(self, profile: DeviceProfile, plan: Plan) -> Crossbar:
        return program(self.weights, profile, seed=self.seed, plan=plan)

    def error(self, crossbar: Crossbar) -> float:
        vectors = calibration_vectors(self.weights.shape[1], seed=self.seed ^ _MEASURING_SEED)
        return measured_error(crossbar.apply, self.weights, vectors).value

    def sweep(self, lines: Mapping[str, Sequence[tuple[DeviceProfile, Plan]]]) -> Sweep:
        """Return measured and predicted errors of each line of (profile, plan)."""
        found: Sweep = {}
        for name, cases in lines.items():
            found[name] = tuple(self.error(self.program(*case)) for case in cases)
            found[f"{name}, predicted"] = tuple(predict(self.weights, *case).total for case in cases)
        return found


def _plans(
    weights: FloatArray, profile: DeviceProfile, target_error: float, seed: int
) -> list[tuple[str, Plan]]:
    """Return the plan after each lever by name, up to those that meet the target or to the last of arrays."""
    verify = weights.size <= VERIFIED_WEIGHTS_MAX
    try:
        planned = partition(weights, profile, target_error, seed=seed, verify=verify, allow_digital=False)
    except TargetUnreachable:
        planned = partition(weights, profile, target_error, seed=seed, verify=verify)
    taken = [rung.name for rung in planned.rungs]
    plan = Plan.static(profile)
    plans = [("static partitioning", plan)]
    for rung in ladder(profile):
        if rung.name in taken and not rung.is_digital and (changed := rung.changed(plan)) is not None:
            plan = changed
            plans.append((rung.name, plan))
    return plans


def _steps(
    bench: _Bench, profile: DeviceProfile, plans: Sequence[tuple[str, Plan]], progress: Progress
) -> tuple[Step, ...]:
    shape = (bench.weights.shape[0], bench.weights.shape[1])
    alone = cells_of(shape, plans[0][1]).allocated
    found = []
    for name, plan in plans:
        progress(f"measuring the lever: {name}")
        measured = bench.error(bench.program(profile, plan))
        predicted = predict(bench.weights, profile, plan).total
        found.append(Step(name, predicted, measured, cells_of(shape, plan).allocated / alone))
    return tuple(found)


def _by_tile_size(
    bench: _Bench,
    profile: DeviceProfile,
    static: Plan,
    plan: Plan,
    sizes: Sequence[int],
    progress: Progress,
) -> Sweep:
    progress("measuring array sizes")

    def resized(one: Plan, size: int) -> tuple[DeviceProfile, Plan]:
        spares = one.spare_columns * size // one.columns
        return replace(profile, rows=size, columns=size), replace(
            one, rows=size, columns=size, spare_columns=spares
        )

    return bench.sweep(
        {name: [resized(one, size) for size in sizes] for name, one in _named(static, plan).items()}
    )


def _by_adc_bits(
    bench: _Bench, profile: DeviceProfile, static: Plan, plan: Plan, progress: Progress
) -> Sweep:
    progress("measuring ADC bits")
    profiles = [replace(profile, adc_bits=bits) for bits in ADC_BITS]
    return bench.sweep(
        {name: [(one, each) for one in profiles] for name, each in _named(static, plan).items()}
    )


def _by_age(bench: _Bench, profile: DeviceProfile, static: Plan, plan: Plan, progress: Progress) -> Sweep:
    if profile.drift is None:
        return {}
    progress("letting devices age")
    found: Sweep = {}
    for name, one in _named(static, plan).items():
        fresh = bench.program(profile, one)
        for label, compensated in ((name, True), (f"{name}, uncompensated", False)):
            found[label] = tuple(
                bench.error(fresh.aged(seconds, compensated=compensated) if seconds else fresh)
                for seconds in AGES.values()
            )
    return found


def _named(static: Plan, plan: Plan) -> dict[str, Plan]:
    return {"static": static, "with levers": plan}


def _histogram(weights: FloatArray, profile: DeviceProfile, plan: Plan, seed: int) -> Histogram:
    """Return what cells are meant to conduct and what they do after programming, in one slice of the sample."""
    encoder = Encoder(Window.of(profile), plan.encoding, plan.slices)
    block = np.ascontiguousarray(weights.T[: plan.rows, : plan.data_columns], np.float64)
    largest = float(np.abs(weights).max()) if plan.scale == "matrix" else None
    targets = encoder.encode(block, column_scales(block, matrix_scale=largest))
    programmed = _written(targets, profile, plan, np.random.default_rng(seed))
    most = max(float(programmed.max()), profile.conductance_max_siemens)
    edges = np.linspace(0.0, most * 1.0001, _HISTOGRAM_BINS + 1)
    counts = [np.histogram(cells, edges)[0] / cells.size for cells in (targets, programmed)]
    return Histogram(edges, counts[0], counts[1])


def _written(targets: FloatArray, profile: DeviceProfile, plan: Plan, rng: np.random.Generator) -> FloatArray:
    """Return conductances after write-verify, as `crossbar.program` does it."""
    best = profile.programmed(targets, rng)
    allowed = plan.write_verify_tolerance * profile.conductance_max_siemens
    for _ in range(plan.write_verify_tries - 1 if allowed else 0):
        outside = np.abs(best - targets) > allowed
        again = profile.programmed(targets, rng)
        best = np.where(outside & (np.abs(again - targets) < np.abs(best - targets)), again, best)
    return best
