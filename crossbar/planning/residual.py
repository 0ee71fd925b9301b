"""Owns what a sparse digital residual leaves of the errors of weights: tried on a sample of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from crossbar import randomness
from crossbar.planning.stuck import sampled_stuck_errors

if TYPE_CHECKING:
    from crossbar.devices.profile import DeviceProfile
    from crossbar.planning.cells import Cells, WeightError
    from crossbar.planning.plan import Plan
    from crossbar.planning.statistics import WeightSample

_SAMPLE_SEED = 1  # of the errors that stand for those of all devices


@dataclass(frozen=True, slots=True)
class SharesLeft:
    """The shares of squared errors that are left: of devices that scatter, and of stuck ones."""

    scattered: float
    stuck: float


def residual_shares_left(
    sample: WeightSample, cells: Cells, scattered: WeightError, profile: DeviceProfile, plan: Plan
) -> SharesLeft:
    """Return what is left of errors once the dearest weights are made right digitally.

    Errors are drawn: normal ones with the moments of `scattered`, and stuck devices at their rates. A weight's error
    e costs m e^2; the dearest weights are taken first.
    """
    stream = randomness.key(_SAMPLE_SEED, randomness.PROGRAMMING)
    normals = randomness.normals(stream, sample.shares.size).reshape(sample.shares.shape)
    scatter = scattered.mean + np.sqrt(scattered.variance) * normals
    stuck = sampled_stuck_errors(cells, profile, plan, seed=_SAMPLE_SEED)
    weights = np.broadcast_to(sample.stands_for, sample.shares.shape)
    costs = sample.importance / weights * np.square(scatter + stuck)
    order = np.argsort(-costs, axis=None)
    taken = np.zeros(costs.size, bool)
    taken[order] = np.cumsum(weights.ravel()[order]) <= plan.residual_share * float(weights.sum())
    kept = ~taken.reshape(costs.shape)
    scattered_left, stuck_left = (
        sample.weighted(np.square(errors) * kept) / max(sample.weighted(np.square(errors)), 1e-300)
        for errors in (scatter, stuck)
    )
    return SharesLeft(scattered_left, stuck_left)
