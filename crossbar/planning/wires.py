"""Owns what the resistance of wires costs: one tile is folded exactly and stands for all others.

The effective matrix M of an array, I = M^T V, says what its cells seem to conduct (`crossbar.irdrop`). What M lacks of
the conductances themselves is an error of the weights, the same in every replica and at every read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from crossbar.mapping.encoding import Encoder
from crossbar.planning.cells import encoder_for
from crossbar.planning.tile import sample_tile

if TYPE_CHECKING:
    from crossbar.devices.profile import DeviceProfile
    from crossbar.planning.plan import Plan
    from crossbar.planning.statistics import BlockStatistics

Array = npt.NDArray[np.float64]


def wire_error(statistics: BlockStatistics, profile: DeviceProfile, plan: Plan) -> float:
    """Return the relative squared error of the output that the wires of the arrays cause.

    A calibrated gain for every column removes what all its cells lose alike: the error left is
    sum(m w^2) - sum(m w w')^2 / sum(m w'^2), with w' the weight that the column seems to hold.
    """
    if not plan.fold_ir_drop or statistics.signal_power == 0:
        return 0.0
    levers = (plan.rows, plan.data_columns, plan.scale, plan.encoding, plan.slices, plan.column_gain)
    return statistics.remembered(("wires", profile, levers), lambda: _tried(statistics, profile, plan))


def _tried(statistics: BlockStatistics, profile: DeviceProfile, plan: Plan) -> float:
    tile, moments = sample_tile(statistics, plan)
    encoder = encoder_for(profile, plan)
    scale = (
        np.abs(tile).max(axis=0) if plan.scale == "column" else np.full(tile.shape[1], statistics.scale_max)
    )
    targets = np.asarray(encoder.encode(tile, scale), np.float64)
    exact = np.asarray(encoder.decode(targets, scale), np.float64)
    power = float((moments @ np.square(exact)).sum())
    if power == 0.0:
        return 0.0
    seen = _seen(encoder, targets, scale, profile)
    if plan.column_gain:
        seen = seen * best_gains(exact, seen, moments)
    return float((moments @ np.square(seen - exact)).sum()) / power


def _seen(encoder: Encoder, targets: Array, scale: Array, profile: DeviceProfile) -> Array:
    """Return the weights (inputs, outputs) that arrays with wires seem to hold."""
    if encoder.polarities == 2:
        return np.asarray(encoder.decode(_folded(targets, profile), scale), np.float64)
    reference = np.full((*targets.shape[:-1], 1), encoder.window.middle_siemens)
    folded = _folded(np.concatenate([targets, reference], axis=-1), profile)
    return np.asarray(encoder.decode(folded[..., :-1], scale, folded[:, 0, :, -1]), np.float64)


def best_gains(exact: Array, seen: Array, moments: Array) -> Array:
    """Return (outputs,): the factor for each column of `seen` (inputs, outputs) that brings it closest to `exact`."""
    power = moments @ np.square(seen)
    return np.divide(moments @ (seen * exact), power, out=np.ones_like(power), where=power > 0)


def _folded(targets: Array, profile: DeviceProfile) -> Array:
    """Return the effective conductances of arrays (slices, polarities, inputs, outputs)."""
    from crossbar.irdrop import fold_stack

    arrays = targets.reshape(-1, *targets.shape[2:])
    folded = fold_stack(arrays, profile.word_line_ohm, profile.bit_line_ohm)
    return np.asarray(folded, np.float64).reshape(targets.shape)
