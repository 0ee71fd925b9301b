"""Owns the partitioner: plans for blocks of weights that meet a target error, verified by programming them.

Which levers a plan pulls is decided in `crossbar.planning`; here plans are tried on simulated devices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, overload

import numpy as np

from crossbar.errors import PlanInvalid, TargetUnreachable, WeightsInvalid
from crossbar.planning.calibration import MeasuredError, calibration_vectors, measured_error
from crossbar.planning.ladder import Request, climb
from crossbar.planning.plan import Plan
from crossbar.planning.planned import Planned
from crossbar.planning.statistics import BlockStatistics
from crossbar.weights import real_numbers, require_magnitude

if TYPE_CHECKING:
    from crossbar.devices.profile import DeviceProfile
    from crossbar.engine import FloatArray

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
    require_magnitude(real_numbers(weights, "weights"))
    statistics = BlockStatistics(weights, inputs)
    if inputs is not None and not np.any(inputs):
        raise WeightsInvalid("all sample inputs are 0", why="errors are relative to what these inputs give")

    def measure(described: DeviceProfile, plan: Plan) -> MeasuredError:
        return _measured(statistics.weights, described, plan, seconds, inputs, seed)

    request = Request(
        statistics,
        target_error,
        seconds,
        cells_max,
        allow_digital,
        measure if verify else None,
    )
    if isinstance(profile, Mapping):
        return _by_node(request, profile)
    return climb(request, profile)


def _by_node(request: Request, profiles: Mapping[str, DeviceProfile]) -> dict[str, Planned]:
    """Plan once for every different profile; nodes that cannot meet the target are left out, unless none can."""
    outcomes: dict[DeviceProfile, Planned | TargetUnreachable] = {}
    for profile in profiles.values():
        if profile not in outcomes:
            try:
                outcomes[profile] = climb(request, profile)
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


def _measured(
    weights: FloatArray,
    profile: DeviceProfile,
    plan: Plan,
    seconds: float,
    inputs: FloatArray | None,
    seed: int,
) -> MeasuredError:
    """Program, age, and compare products of calibration vectors with exact ones."""
    from crossbar.programmed import program  # and the kernels, which nobody needs who only predicts

    crossbar = program(weights, profile, seed=seed, plan=plan, calibration=inputs)
    if seconds > 0:
        crossbar = crossbar.aged(seconds)
    vectors = calibration_vectors(weights.shape[1], seed=seed ^ _VERIFY_SEED, samples=inputs)
    return measured_error(crossbar.apply, weights, vectors)


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
