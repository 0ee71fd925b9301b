"""Owns the climb: from a plan without levers up the ladder, cheapest memory first, until the predicted error meets the
target, and measurements, where there are any, agree.

A rung is taken if it attacks a term that matters and buys a fair share of the error. When the target is met, levers
that cost cells and turn out not to be needed are taken back. Programs nothing itself: it is told how to measure a plan.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from crossbar.errors import TargetUnreachable
from crossbar.planning.budget import ErrorBudget, expected_pulses, predict
from crossbar.planning.calibration import MeasuredError
from crossbar.planning.plan import Plan
from crossbar.planning.planned import Planned, RungTaken, cells_of
from crossbar.planning.rungs import Rung, ladder
from crossbar.planning.statistics import BlockStatistics

if TYPE_CHECKING:
    from crossbar.devices.profile import DeviceProfile

GAIN_MIN = 0.02
"""A rung that takes less than this share off the error is skipped: the prediction is no better than that."""

CELLS_GAIN_MIN = 0.1
"""The same for rungs that cost cells: replicas, the worst buy, take 0.3 off what they attack for twice the cells."""

TERM_MIN = 0.05
"""Terms below this share of the total do not matter: without one of them the total would fall by 0.1 %."""

CONFIDENCE = 2.0
"""Standard errors that a measurement must stay below the target by."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a plan is wanted for.

    Attributes:
        statistics: of the weights, and of what they will be multiplied with.
        target_error: relative L2 error of products.
        seconds: after programming, when the target must still hold.
        cells_max: cells that may be allocated; None is any number.
        allow_digital: whether some or all of the product may be computed digitally.
        measure: programs a plan on a profile and measures its error; None trusts predictions.
    """

    statistics: BlockStatistics
    target_error: float
    seconds: float
    cells_max: int | None
    allow_digital: bool
    measure: Callable[[DeviceProfile, Plan], MeasuredError] | None

    def affords(self, plan: Plan) -> bool:
        """Return whether there are enough cells for a plan."""
        return self.cells_max is None or cells_of(self.statistics.shape, plan).allocated <= self.cells_max


@dataclass(slots=True)
class _Climber:
    """Where on the ladder one block is on one profile."""

    request: Request
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
        if self.request.measure is None or self.budget.total == 0:
            return True
        self.measured = self.request.measure(self.profile, self.plan)
        surely = self.measured.value + CONFIDENCE * self.measured.standard_error
        if surely <= self.request.target_error:
            return True
        self.best_error = min(self.best_error, surely)
        self.caution = max(self.caution, surely / self.budget.total)
        return False


def climb(request: Request, profile: DeviceProfile) -> Planned:
    """Return the plan that meets the request with the least memory that was found.

    Raises:
        TargetUnreachable: no plan does.
    """
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
