"""Owns what stuck devices cost on average: enumerated for a sample of weights, and sampled where lines are chosen.

Devices are stuck independently, so a weight of two cells meets nine conditions, each with its probability. What it is
wrong by in each of them is known, partner compensation included; its mean and variance follow. What an assignment of
lines makes of that has no closed form: it is carried out on one tile with one fault map, and the ratio of the costs
after and before is taken for all tiles.
"""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from crossbar import randomness
from crossbar.mapping.assignment import assign
from crossbar.mapping.encoding import Window
from crossbar.mapping.faults import HEALTHY, STUCK_OFF, STUCK_ON, compensated, fault_map, with_faults
from crossbar.planning.cells import Cells, WeightError, encoder_for
from crossbar.planning.tile import sample_tile

if TYPE_CHECKING:
    from crossbar.devices.profile import DeviceProfile
    from crossbar.planning.plan import Plan
    from crossbar.planning.statistics import BlockStatistics

Array = npt.NDArray[np.float64]

FAULTS_SAMPLED_MIN = 64
"""Stuck devices that a sampled tile should have: with fewer its cost says little. Rarer faults are sampled at the rate
that gives so many, where an assignment gains less than it would, so a prediction errs on the safe side."""

_SAMPLE_SEED = 1  # of the fault map that stands for all others


def stuck_errors(cells: Cells, profile: DeviceProfile, plan: Plan) -> WeightError:
    """Return mean and variance of the error of each weight of a sample that stuck devices cause."""
    window = Window.of(profile)
    shape = cells.targets.shape[2:]
    mean, variance = np.zeros(shape), np.zeros(shape)
    for targets, per_siemens in zip(cells.targets, cells.share_per_siemens.tolist(), strict=True):
        first, second = np.zeros(shape), np.zeros(shape)
        for error, probability in _conditions(targets, window, profile, plan):
            first += probability * error
            second += probability * np.square(error)
        if cells.reference_siemens is not None:
            for stuck, probability in (
                (window.maximum_siemens, profile.stuck_on_rate),
                (window.minimum_siemens, profile.stuck_off_rate),
            ):
                first -= probability * (stuck - cells.reference_siemens)
                second += probability * (stuck - cells.reference_siemens) ** 2
        mean += per_siemens * first
        variance += per_siemens**2 * np.maximum(second - np.square(first), 0.0)
    return WeightError(mean=mean, variance=variance / cells.replicas)


def sampled_stuck_errors(cells: Cells, profile: DeviceProfile, plan: Plan, *, seed: int) -> Array:
    """Return (rows, samples): what stuck devices, drawn at their rates, make the weights of a sample wrong by.

    Those of an offset encoding's reference column are left out: no single weight can be corrected for them.
    """
    window = Window.of(profile)
    shape = cells.targets.shape[2:]
    errors = np.zeros(shape)
    if profile.stuck_on_rate + profile.stuck_off_rate == 0:
        return errors
    for index, targets in enumerate(cells.targets):
        conditions = _conditions(targets, window, profile, plan)
        ends = np.cumsum([probability for _, probability in conditions])
        choices = np.stack([np.zeros(shape), *(error for error, _ in conditions)])
        for replica in range(cells.replicas):
            stream = randomness.key(seed, randomness.FAULTS, index, replica)
            met = np.searchsorted(ends, randomness.uniforms(stream, errors.size), side="left")
            met = (met + 1) % len(choices)  # beyond the last end: healthy
            met = met.reshape(1, *shape)
            errors += cells.share_per_siemens[index] * np.take_along_axis(choices, met, axis=0)[0]
    return errors / cells.replicas


def assignment_share(statistics: BlockStatistics, profile: DeviceProfile, plan: Plan) -> float:
    """Return the share of the squared error of stuck devices that is left when lines are chosen around them."""
    if plan.assignment == "none":
        return 1.0
    levers = (plan.rows, plan.columns, plan.data_columns, plan.scale, plan.encoding, plan.slices)
    key = ("assignment", profile, levers, plan.partner_compensation, plan.assignment)
    return statistics.remembered(key, lambda: _assigned(statistics, profile, plan))


def _assigned(statistics: BlockStatistics, profile: DeviceProfile, plan: Plan) -> float:
    devices = plan.rows * plan.columns * (2 if plan.encoding == "differential" else 1)
    rate = profile.stuck_on_rate + profile.stuck_off_rate
    scale_up = min(1.0 / rate, max(1.0, FAULTS_SAMPLED_MIN / (rate * devices)))
    tile, moments = sample_tile(statistics, plan)
    encoder = encoder_for(profile, plan)
    scale = (
        np.abs(tile).max(axis=0) if plan.scale == "column" else np.full(tile.shape[1], statistics.scale_max)
    )
    faults = np.stack(
        [
            fault_map(
                _SAMPLE_SEED,
                polarity,
                rows=plan.rows,
                columns=plan.columns,
                stuck_on_rate=profile.stuck_on_rate * scale_up,
                stuck_off_rate=profile.stuck_off_rate * scale_up,
            )
            for polarity in range(encoder.polarities)
        ]
    )
    found = assign(
        encoder.encode(tile, scale)[0],
        faults,
        encoder.window,
        weight_per_siemens=encoder.weight_per_siemens(scale)[0],
        input_power=moments,
        partner_compensation=plan.partner_compensation,
        rows_too=plan.assignment == "rows_and_columns",
    )
    return found.cost / found.cost_before if found.cost_before > 0 else 1.0


def _conditions(
    targets: Array, window: Window, profile: DeviceProfile, plan: Plan
) -> list[tuple[Array, float]]:
    """Return (error in siemens, probability) of every condition but the healthy one, for cells of one slice."""
    on, off = profile.stuck_on_rate, profile.stuck_off_rate
    chances = {HEALTHY: 1 - on - off, STUCK_ON: on, STUCK_OFF: off}
    signs = (1.0, -1.0)[: len(targets)]
    found = []
    for condition in product(chances, repeat=len(targets)):
        probability = math.prod(chances[state] for state in condition)
        if probability == 0 or not any(condition):
            continue
        faults = np.broadcast_to(np.array(condition, np.int8)[:, None, None], targets.shape)
        written = compensated(targets, faults, window) if plan.partner_compensation else targets
        change = with_faults(written, faults, window) - targets
        found.append((np.asarray(np.tensordot(signs, change, axes=1)), probability))
    return found
