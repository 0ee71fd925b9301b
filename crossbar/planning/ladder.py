"""Owns the partitioner: given a target error it climbs the ladder of levers, cheapest memory first, until the
predicted error meets it, and verifies on calibration vectors after programming.

A rung is taken if it attacks a term that matters and buys a fair share of the error. When the target is met, levers
that cost cells and turn out not to be needed are taken back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, overload

from crossbar.errors import PlanInvalid, TargetUnreachable
from crossbar.planning.budget import ErrorBudget, expected_pulses, predict
from crossbar.planning.calibration import MeasuredError, calibration_vectors, measured_error
from crossbar.planning.plan import Plan
from crossbar.planning.planned import Planned, RungTaken, cells_of
from crossbar.planning.rungs import Rung, ladder
from crossbar.planning.statistics import BlockStatistics

if TYPE_CHECKING:
    from crossbar.devices.profile import DeviceProfile
    from crossbar.engine import FloatArray

GAIN_MIN = 0.02
"""A rung that takes less than this share off the error is skipped: the prediction is no better than that."""

CELLS_GAIN_MIN = 0.1
"""The same for rungs that cost cells: replicas, the worst buy, take 0.3 off what they attack for twice the cells."""

TERM_MIN = 0.05
"""Terms below this share of the total do not matter: without one of them the total would fall by 0.1 %."""

CONFIDENCE = 2.0
"""Standard errors that a measurement must stay below the target by."""

_VERIFY_SEED = 0x766572696679  # "verify": vectors apart from those that set converter ranges and gains


@overload
def partition(
    weights: FloatArray,
    profile: DeviceProfile,
    target_error: float,
    *,
    seconds: float = 0.0,
    inputs: FloatArray | None = None,
    seed: int = 0,
    cells_max: int | None = None,
    allow_digital: bool = True,
    verify: bool = True,
) -> Planned: ...
@overload
def partition(
    weights: FloatArray,
    profile: Mapping[str, DeviceProfile],
    target_error: float,
    *,
    seconds: float = 0.0,
    inputs: FloatArray | None = None,
    seed: int = 0,
    cells_max: int | None = None,
    allow_digital: bool = True,
    verify: bool = True,
) -> dict[str, Planned]: ...
def partition(
    weights: FloatArray,
    profile: DeviceProfile | Mapping[str, DeviceProfile],
    target_error: float,
    *,
    seconds: float = 0.0,
    inputs: FloatArray | None = None,
    seed: int = 0,
    cells_max: int | None = None,
    allow_digital: bool = True,
    verify: bool = True,
) -> Planned | dict[str, Planned]:
    """Return the plan that meets a target with the least memory that was found.

    Args:
        weights: (outputs, inputs), float32 or float64, finite.
        profile: of the devices; or node name -> profile, and a plan for every node that can meet the target is
            returned, cheapest first: exact arithmetic, then by cells, and blocks that are digital on devices last.
        target_error: relative L2 error of products, between 0 and 1.
        seconds: after programming, when the target must still hold.
        inputs: (inputs, vectors), samples of what will be multiplied with; white by default.
        seed: what devices are programmed with when verifying, and calibration vectors are drawn with.
        cells_max: cells that may be allocated.
        allow_digital: whether some or all of the product may be computed digitally.
        verify: program, and measure with calibration vectors, before saying that a target is met.

    Raises:
        PlanInvalid: the target, the age or `cells_max` is out of range.
        TargetUnreachable: no plan meets the target.
        WeightsInvalid: weights or inputs that cannot be planned for.
    """
    _check(target_error, seconds, cells_max)
    statistics = BlockStatistics(weights, inputs)
    request = _Request(statistics, target_error, seconds, inputs, seed, cells_max, allow_digital, verify)
    if isinstance(profile, Mapping):
        return _by_node(request, profile)
    return _climb(request, profile)


@dataclass(frozen=True, slots=True)
class _Request:
    statistics: BlockStatistics
    target_error: float
    seconds: float
    inputs: FloatArray | None
    seed: int
    cells_max: int | None
    allow_digital: bool
    verify: bool

    def affords(self, plan: Plan) -> bool:
        return self.cells_max is None or cells_of(self.statistics.shape, plan).allocated <= self.cells_max


@dataclass(slots=True)
class _Climber:
    """Where on the ladder one block is on one profile."""

    request: _Request
    profile: DeviceProfile
    plan: Plan
    budget: ErrorBudget
    taken: list[Rung] = field(default_factory=list)
    log: list[RungTaken] = field(default_factory=list)
    measured: MeasuredError | None = None
    caution: float = 1.0  # how much larger than predicted errors were measured to be, never below 1
    best_error: float = math.inf
    stopped_by: str = ""

    def predicted(self, plan: Plan) -> ErrorBudget:
        return predict(self.request.statistics, self.profile, plan, seconds=self.request.seconds)

    def accept(self, rung: Rung, plan: Plan, budget: ErrorBudget) -> None:
        self.plan, self.budget, self.measured = plan, budget, None
        self.taken.append(rung)
        cells = cells_of(self.request.statistics.shape, plan)
        self.log.append(RungTaken(rung.name, budget.total, cells.allocated))

    def meets(self) -> bool:
        """Return whether the target is met; verifies if it seems so."""
        if not self.request.affords(self.plan):
            return False
        if self.budget.total * self.caution > self.request.target_error:
            self.best_error = min(self.best_error, self.budget.total * self.caution)
            return False
        if not self.request.verify or self.budget.total == 0:
            return True
        self.measured = _measure(self.request, self.profile, self.plan)
        surely = self.measured.value + CONFIDENCE * self.measured.standard_error
        if surely <= self.request.target_error:
            return True
        self.best_error = min(self.best_error, surely)
        self.caution = max(self.caution, surely / self.budget.total)
        return False


def _climb(request: _Request, profile: DeviceProfile) -> Planned:
    plan = Plan.default(profile) if profile.is_ideal else Plan.static(profile)
    climber = _Climber(
        request, profile, plan, predict(request.statistics, profile, plan, seconds=request.seconds)
    )
    if climber.meets():
        return _planned(climber)
    for rung in ladder(profile):
        if rung.is_digital and not request.allow_digital:
            climber.stopped_by = climber.stopped_by or "digital"
            continue
        if not _try(climber, rung):
            continue
        if climber.meets():
            _take_back(climber)
            return _planned(climber)
    raise _unreachable(climber)


def _try(climber: _Climber, rung: Rung) -> bool:
    """Take a rung if it is worth it; return whether it was taken."""
    if not any(climber.budget.terms[term] > TERM_MIN * climber.budget.total for term in rung.terms):
        return False
    plan = rung.changed(climber.plan)
    if plan is None:
        return False
    if rung.costs_cells and not climber.request.affords(plan):
        climber.stopped_by = climber.stopped_by or rung.name
        return False
    budget = climber.predicted(plan)
    gain_min = CELLS_GAIN_MIN if rung.costs_cells else GAIN_MIN
    if budget.total > (1 - gain_min) * climber.budget.total:
        return False
    climber.accept(rung, plan, budget)
    return True


def _take_back(climber: _Climber) -> None:
    """Drop rungs that cost cells and are not needed for the target any more, the dearest first."""
    if climber.plan.digital:
        return
    for rung in [rung for rung in climber.taken if rung.costs_cells][::-1]:
        others = [other for other in climber.taken if other is not rung]
        plan = Plan.static(climber.profile)
        log: list[RungTaken] = []
        for other in others:
            plan = other.changed(plan) or plan
            cells = cells_of(climber.request.statistics.shape, plan)
            log.append(RungTaken(other.name, climber.predicted(plan).total, cells.allocated))
        if (
            cells_of(climber.request.statistics.shape, plan).allocated
            >= cells_of(climber.request.statistics.shape, climber.plan).allocated
        ):
            continue
        trial = _Climber(
            climber.request, climber.profile, plan, climber.predicted(plan), caution=climber.caution
        )
        if trial.meets():
            climber.plan, climber.budget, climber.measured = plan, trial.budget, trial.measured
            climber.taken, climber.log = others, log


def _measure(request: _Request, profile: DeviceProfile, plan: Plan) -> MeasuredError:
    """Program, age, and compare products of calibration vectors with exact ones."""
    from crossbar.programmed import program  # carries plans out, and so imports this room

    weights = request.statistics.weights
    crossbar = program(weights, profile, seed=request.seed, plan=plan, calibration=request.inputs)
    if request.seconds > 0:
        crossbar = crossbar.aged(request.seconds)
    vectors = calibration_vectors(weights.shape[1], seed=request.seed ^ _VERIFY_SEED, samples=request.inputs)
    return measured_error(crossbar.apply, weights, vectors)


def _planned(climber: _Climber) -> Planned:
    request, profile = climber.request, climber.profile
    exact = profile.is_ideal
    return Planned(
        plan=climber.plan,
        profile_name=profile.name,
        target_error=request.target_error,
        predicted=climber.budget,
        measured=climber.measured,
        cells=cells_of(
            request.statistics.shape, Plan(rows=1, columns=1, digital=True) if exact else climber.plan
        ),
        rungs=tuple(climber.log),
        pulses_per_cell=expected_pulses(request.statistics, profile, climber.plan),
        seconds=request.seconds,
        drifts=profile.drift is not None and not climber.plan.digital,
    )


def _by_node(request: _Request, profiles: Mapping[str, DeviceProfile]) -> dict[str, Planned]:
    """Plan once for every different profile; nodes that cannot meet the target are left out, unless none can."""
    outcomes: dict[DeviceProfile, Planned | TargetUnreachable] = {}
    for profile in profiles.values():
        if profile not in outcomes:
            try:
                outcomes[profile] = _climb(request, profile)
            except TargetUnreachable as refused:
                outcomes[profile] = refused
    plans = [
        (name, planned)
        for name, profile in profiles.items()
        if isinstance(planned := outcomes[profile], Planned)
    ]
    if not plans and outcomes:
        refusals = [outcome for outcome in outcomes.values() if isinstance(outcome, TargetUnreachable)]
        raise min(refusals, key=lambda refused: refused.best_error)
    plans.sort(key=lambda entry: (entry[1].plan.digital, entry[1].cells.allocated, entry[1].error, entry[0]))
    return dict(plans)


def _unreachable(climber: _Climber) -> TargetUnreachable:
    largest = max(climber.budget.terms, key=lambda term: climber.budget.terms[term])
    best = climber.best_error
    lever = "cells" if math.isinf(best) else climber.stopped_by or largest
    reached = "no plan fits the cells" if math.isinf(best) else f"the best plan reaches {best:.2g}"
    return TargetUnreachable(
        f"no plan on {climber.profile.name} meets a relative error of {climber.request.target_error:g}",
        why=f"{reached}; most of it is {largest.replace('_', ' ')}; stopped at the lever: {lever}",
        hint="Raise the target, allow more cells or digital arithmetic, or use another device profile.",
        lever=lever,
        best_error=best,
    )


def _check(target_error: float, seconds: float, cells_max: int | None) -> None:
    for name, value, allowed, valid in (
        ("target_error", target_error, "a number above 0 and below 1", 0 < target_error < 1),
        ("seconds", seconds, "a finite number from 0 on", 0 <= seconds < math.inf),
        ("cells_max", cells_max, "a whole number from 0 on, or None", cells_max is None or cells_max >= 0),
    ):
        if not valid:
            raise PlanInvalid(
                f"nothing can be planned for {name} = {value!r}",
                why=f"{name} must be {allowed}",
                hint="An error of 0 is met by the ideal profile alone." if name == "target_error" else "",
            )
