"""Owns the error budget: how wrong a block of weights will be on a device profile, term by term, before it is
programmed.

Every term is a relative L2 error of the output, sqrt(E||dY||^2 / E||Y||^2), for white inputs or for inputs of given
second moments. Errors of weights count independently, m S^2 f(w / S) each (`statistics.WeightSample`): exact for
inputs of mean 0, an estimate where all inputs share a mean, which then adds errors that this leaves out. Terms are
independent of each other to first order, so the total is the root of the sum of their squares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from crossbar.planning import cells as devices
from crossbar.planning.cells import Cells, Moments, WeightError
from crossbar.planning.converters import adc_error, dac_error, predicted_ranges
from crossbar.planning.plan import Plan
from crossbar.planning.residual import residual_shares_left
from crossbar.planning.statistics import BlockStatistics, WeightSample
from crossbar.planning.stuck import assignment_share, stuck_errors
from crossbar.planning.wires import wire_error

if TYPE_CHECKING:
    from crossbar.devices.profile import DeviceProfile
    from crossbar.engine import FloatArray

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBudget:
    """Relative L2 errors of a block's output by cause.

    Attributes:
        quantization: weights are rounded to levels.
        programming: devices scatter around their targets, after write-verify.
        read: every read is noisy.
        dac, adc: conversions round, and the ADC clips.
        ir_drop: wires have resistance.
        faults: devices are stuck.
        drift: conductances change with time; by how much the error of programming grows.
        nonlinearity: current does not follow Ohm's law.
    """

    quantization: float = 0.0
    programming: float = 0.0
    read: float = 0.0
    dac: float = 0.0
    adc: float = 0.0
    ir_drop: float = 0.0
    faults: float = 0.0
    drift: float = 0.0
    nonlinearity: float = 0.0

    @property
    def total(self) -> float:
        """The root of the sum of squares."""
        return math.sqrt(sum(value * value for value in self.terms.values()))

    @property
    def terms(self) -> dict[str, float]:
        """The terms by name, in the order of the fields."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def predict(
    weights: FloatArray | BlockStatistics,
    profile: DeviceProfile,
    plan: Plan,
    *,
    inputs: FloatArray | None = None,
    seconds: float = 0.0,
    compensated: bool = True,
) -> ErrorBudget:
    """Return the error that `weights` (outputs, inputs) will have on `profile` with `plan`.

    A `BlockStatistics` instead of the weights makes many predictions for one block cheap.

    Args:
        inputs: (inputs, vectors), samples of what will be multiplied with; white by default. Not with statistics,
            which know their own.
        seconds: since programming.
        compensated: results are multiplied with the one number that makes up for the drift of all devices together.

    Raises:
        WeightsInvalid: weights or inputs that cannot be planned for.
    """
    if plan.digital or profile.is_ideal:
        return ErrorBudget()
    block = weights if isinstance(weights, BlockStatistics) else BlockStatistics(weights, inputs)
    if block.signal_power == 0:
        return ErrorBudget()
    sample = block.sample(plan.rows, plan.scale)
    cells = Cells.of(sample, profile, plan)
    late = devices.aged_moments(profile, plan, seconds)
    static, restored = _static_terms(block, sample, cells, profile, plan, late, compensated=compensated)
    noise = cells.errors(devices.read_moments(profile, late, seconds))
    read = restored * block.relative(sample.weighted(noise.variance))
    noise_power = sum(value * value for value in static.values()) + read**2 * plan.replicas
    return ErrorBudget(
        **static,
        read=read,
        dac=0.0 if profile.dac_bits is None else block.relative(dac_error(block, profile.dac_bits)),
        adc=restored * _adc_term(block, sample, cells, profile, plan, noise_power),
        nonlinearity=_nonlinear_term(block, sample, cells, profile, plan),
    )


def expected_pulses(weights: FloatArray | BlockStatistics, profile: DeviceProfile, plan: Plan) -> float:
    """Return the expected programming pulses on each cell that holds a weight; 0 if there are none."""
    if plan.digital or profile.is_ideal:
        return 0.0
    block = weights if isinstance(weights, BlockStatistics) else BlockStatistics(weights)
    return devices.pulses_per_cell(
        Cells.of(block.sample(plan.rows, plan.scale), profile, plan), profile, plan
    )


def _static_terms(
    block: BlockStatistics,
    sample: WeightSample,
    cells: Cells,
    profile: DeviceProfile,
    plan: Plan,
    late: Moments,
    *,
    compensated: bool,
) -> tuple[dict[str, float], float]:
    """Return the terms that last from programming on, after gains and sparse residual, and the gain against drift.

    Drift is what time adds to the error of programming, and faults what stuck devices add to both: differences of
    squares. Gains of columns are those of fresh devices. The one against drift restores the power of the output; stuck
    devices do not drift, so it makes them worse.
    """
    rounded = _rounding_error(cells, sample, profile, plan)
    early = cells.errors(devices.programmed_moments(profile, plan))
    aged = cells.errors(late)
    stuck = stuck_errors(cells, profile, plan)
    faulty, aged_faulty = _sum(early, stuck), _sum(aged, stuck)
    restored = math.sqrt(_power(sample, faulty) / _power(sample, aged_faulty)) if compensated else 1.0
    gain = _best_gain(sample, early) if plan.column_gain else 1.0
    faulty_gain = _best_gain(sample, faulty) if plan.column_gain else 1.0
    programming = _after_gain(sample, early, gain)
    after_drift = _after_gain(sample, aged, gain * restored)
    with_faults = _after_gain(sample, aged_faulty, faulty_gain * restored)
    wired = wire_error(block, profile, plan)
    squares = {
        "quantization": sample.weighted(np.square(rounded)),
        "programming": programming,
        "ir_drop": wired * block.signal_power,
        "faults": max(0.0, with_faults - after_drift),
    }
    if squares["faults"] > 0:
        squares["faults"] *= assignment_share(block, profile, plan)
    if plan.residual_share > 0:
        # Wires are taken to weaken all weights alike. They do so unevenly, so a residual mends more of it than this.
        weakened = rounded - math.sqrt(wired) * sample.shares
        scattered = WeightError(early.mean + weakened, early.variance)
        left = residual_shares_left(sample, cells, scattered, profile, plan)
        squares["faults"] *= left.stuck
        # Gains were fitted to columns with stuck devices, and stay on the weights that are not made right.
        squares["programming"] = _after_gain(sample, early, faulty_gain) * left.scattered
        squares["quantization"] *= left.scattered
        squares["ir_drop"] *= left.scattered
    squares["drift"] = max(0.0, after_drift - programming)
    return {name: block.relative(value) for name, value in squares.items()}, restored


def _rounding_error(cells: Cells, sample: WeightSample, profile: DeviceProfile, plan: Plan) -> Array:
    """Return what rounding to levels makes each weight wrong by, as a share of its scale."""
    if not profile.levels:
        return np.zeros_like(sample.shares)
    encoder = devices.encoder_for(profile, plan)
    return np.asarray(encoder.decode(cells.targets, np.ones(1)) - sample.shares)


def _best_gain(sample: WeightSample, error: WeightError) -> float:
    """Return the common gain that leaves least: sum(u (u + b)) / sum((u + b)^2 + v), weighted by importance.

    u are the weights, b and v the means and variances of their errors.
    """
    power = _power(sample, error)
    common = sample.weighted(sample.shares * (sample.shares + error.mean))
    return common / power if power > 0 else 1.0


def _power(sample: WeightSample, error: WeightError) -> float:
    """Return the power of the output with these errors."""
    return sample.weighted(np.square(sample.shares + error.mean) + error.variance)


def _sum(one: WeightError, other: WeightError) -> WeightError:
    return WeightError(one.mean + other.mean, one.variance + other.variance)


def _after_gain(sample: WeightSample, error: WeightError, gain: float) -> float:
    """Return the squared error of the output after a gain a: sum((a (u + b) - u)^2 + a^2 v)."""
    wrong = gain * (sample.shares + error.mean) - sample.shares
    return sample.weighted(np.square(wrong) + gain**2 * error.variance)


def _adc_term(
    block: BlockStatistics,
    sample: WeightSample,
    cells: Cells,
    profile: DeviceProfile,
    plan: Plan,
    noise_power: float,
) -> float:
    """Return the error of the ADCs; what noise and static errors add to partial sums is converted with them."""
    if profile.adc_bits is None:
        return 0.0
    powers = block.partial_powers(plan.rows) * (1 + noise_power)
    scales = block.scales(plan.rows, plan.scale)
    lines = np.full((len(scales), 1), float(min(plan.rows, block.inputs)))
    bounds = lines * scales * math.sqrt(block.peak_power)
    total = 0.0
    for share, significance in _slice_powers(sample, cells):
        ranges = predicted_ranges(powers * share, bounds * significance, plan.adc_range, profile.adc_bits)
        error = adc_error(powers * share, ranges, profile.adc_bits)
        total += error.independent / plan.replicas + error.shared
    return block.relative(total)


def _slice_powers(sample: WeightSample, cells: Cells) -> list[tuple[float, float]]:
    """Return for each slice its share of the power of partial sums and the largest share of a weight it holds."""
    if len(cells.targets) == 1:
        return [(1.0, 1.0)]
    exact = sample.weighted(np.square(sample.shares))
    found = []
    for targets, per_siemens in zip(cells.targets, cells.share_per_siemens.tolist(), strict=True):
        other = targets[1] if cells.reference_siemens is None else cells.reference_siemens
        held = (targets[0] - other) * per_siemens
        found.append((sample.weighted(np.square(held)) / exact, float(np.abs(held).max())))
    return found


def _nonlinear_term(
    block: BlockStatistics, sample: WeightSample, cells: Cells, profile: DeviceProfile, plan: Plan
) -> float:
    """Return the error of the current-voltage law I = G V + c2 |V| V + c3 V^3 with V = v times the read voltage.

    A weight then gives w v + d2 |v| v + d3 v^3; independent, symmetric inputs add the squares of the last two, with
    moments of v up to the sixth. A calibrated gain removes what is proportional to w v.
    """
    table = devices.conductance_table(profile)
    terms = profile.nonlinear_terms(table)
    if terms is None:
        return 0.0
    moments = devices.Moments(table, np.zeros_like(table), np.zeros_like(table))
    second = cells.differences(np.asarray(terms[0], np.float64) * profile.read_volts, moments)
    third = cells.differences(np.asarray(terms[1], np.float64) * profile.read_volts**2, moments)
    cubed, fourth, fifth, sixth = block.bent_moments
    bent = sample.weighted(np.square(second) * fourth + 2 * second * third * fifth + np.square(third) * sixth)
    if plan.column_gain:
        exact = sample.weighted(np.square(sample.shares))
        along = sample.weighted(sample.shares * (second * cubed + third * fourth))
        bent = exact - (exact + along) ** 2 / (exact + 2 * along + bent)
    return block.relative(bent)
