"""Puts a partition on this node's simulated devices: planned, programmed and measured; for a worker thread.

A plan is made for the age PLANNED_AGE_S, so that devices that drift keep the target until they are programmed again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

import crossbar
from crossbar.analog import AnalogPartition
from crossbar.devices import DeviceProfile
from crossbar.errors import CrossbarError
from sedmad.core.accuracy import Accuracy
from sedmad.errors import TargetUnreachable
from sedmad.store.programmed import ProgrammedRow

if TYPE_CHECKING:
    from crossbar.planning.planned import Planned

ENGINE_VERSION = 2
"""Of planning, programming and noise: with another one the same seed gives other devices."""

PLANNED_AGE_S = 3600.0
"""Programming again costs about what a hundred products do; planned for a day, drift would cost cells all day long."""

_SEED_BITS = 63  # SQLite's integers are signed

Weights = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class PartitionKey:
    """A partition, and what is asked of its products."""

    digest: bytes
    rows: int
    columns: int
    dtype: str
    accuracy: Accuracy


@dataclass(frozen=True, slots=True)
class Programmed:
    """A partition on devices.

    Attributes:
        planned: how, and what of it is expected and was measured; None where nothing could be planned.
        seed: of the devices. programmed_at_s: Unix time.
        simulated_age_s: the age at which the devices are simulated now.
        partition: to multiply with; None where arithmetic is exact.
        digital_because: why it is; empty where devices compute.
    """

    planned: Planned | None
    seed: int
    programmed_at_s: float
    simulated_age_s: float = 0.0
    partition: AnalogPartition | None = None
    digital_because: str = ""

    @property
    def memory_bytes(self) -> int:
        """Bytes held beyond the partition's own."""
        return 0 if self.partition is None else self.partition.memory_bytes

    @property
    def cells(self) -> int:
        """Cells of the arrays that it takes."""
        return 0 if self.partition is None or self.planned is None else self.planned.cells_allocated


def seed_of(key: PartitionKey, peer_id: str, generation: int) -> int:
    """Return what the devices of a partition on a node are drawn from; programmed again they are others."""
    text = f"{key.digest.hex()} {key.rows} {key.columns} {key.dtype} {key.accuracy} {peer_id} {generation}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> (64 - _SEED_BITS)


def simulated_age_s(age_s: float) -> float:
    """Return the age at which devices of that age are simulated: drift laws are smooth in the logarithm of time.

    It is 0 in the first minute, then a minute times a power of two: programmed state is made anew a few times a day,
    and a restart within such a span finds the same devices.
    """
    if age_s < 60.0:
        return 0.0
    simulated = 60.0
    while simulated * 2 <= age_s:
        simulated *= 2
    return simulated


def simulation_bytes(shape: tuple[int, int], profile: DeviceProfile, plan: crossbar.Plan) -> int:
    """Return about how many bytes simulate a block of `shape` (outputs, inputs): float32 for each cell's share."""
    outputs, inputs = shape
    if plan.digital:
        return 0
    tile_rows = -(-inputs // plan.rows)
    arrays = (
        1 + (profile.read_noise is not None or plan.fold_ir_drop) + 2 * (profile.nonlinearity is not None)
    )
    return 4 * arrays * tile_rows * plan.slices * plan.replicas * min(plan.rows, inputs) * outputs


def program(
    weights: Weights,
    key: PartitionKey,
    profile: DeviceProfile,
    *,
    seed: int,
    now_s: float,
    cells_max: int,
    memory_max_bytes: int,
) -> Programmed:
    """Plan, program and measure; exact arithmetic where no plan keeps the target, or nothing has room for it.

    Raises:
        TargetUnreachable: the profile was demanded, and no plan keeps the target on it.
    """
    demanded = bool(key.accuracy.profile)
    try:
        planned = crossbar.partition(
            weights,
            profile,
            key.accuracy.target_error,
            seconds=PLANNED_AGE_S if profile.drift is not None else 0.0,
            seed=seed,
            cells_max=cells_max,
            allow_digital=not demanded,
        )
        if planned.plan.digital:
            return Programmed(
                planned, seed, now_s, digital_because="no plan on these devices keeps the target"
            )
        if (
            needed_bytes := simulation_bytes((key.rows, key.columns), profile, planned.plan)
        ) > memory_max_bytes:
            why = f"simulating it takes {needed_bytes:,} bytes, {memory_max_bytes:,} are free"
            if demanded:
                raise TargetUnreachable(f"a partition does not fit the devices of {profile.name}", why=why)
            return Programmed(None, seed, now_s, digital_because=why)
        return realised(weights, profile, Programmed(planned, seed, now_s), 0.0)
    except CrossbarError as error:
        if demanded:
            hint = error.hint or None
            raise TargetUnreachable(error.what, why=error.why, hint=hint) from error
        return Programmed(None, seed, now_s, digital_because=f"{error.what}: {error.why}")


def realised(weights: Weights, profile: DeviceProfile, programmed: Programmed, age_s: float) -> Programmed:
    """Return what was programmed with its devices simulated at an age: the same seed gives the same devices."""
    planned = programmed.planned
    if planned is None or planned.plan.digital:
        return programmed
    devices = crossbar.program(weights, profile, seed=programmed.seed, plan=planned.plan)
    if age_s > 0 and planned.drifts:
        devices = devices.aged(age_s)
    return replace(programmed, partition=AnalogPartition(devices), simulated_age_s=age_s)


def profile_digest(profile: DeviceProfile) -> bytes:
    """Return a digest of all that is said of devices: a profile of the same name may have been edited."""
    return hashlib.sha256(repr(profile).encode()).digest()


def to_row(
    key: PartitionKey, profile: DeviceProfile, programmed: Programmed, generation: int
) -> ProgrammedRow:
    """Return what is kept on disk."""
    planned = programmed.planned
    told = None if planned is None else asdict(replace(planned, rungs=()))
    if told is not None:
        del told["fault_map_digest"]  # simulated devices stay as faulty as their seed makes them
    document = {
        "generation": generation,
        "digital_because": programmed.digital_because,
        "planned": told,
    }
    return ProgrammedRow(
        digest=key.digest,
        rows=key.rows,
        columns=key.columns,
        dtype=key.dtype,
        target_error=key.accuracy.target_error,
        demanded=key.accuracy.profile,
        profile=profile.name,
        profile_digest=profile_digest(profile),
        engine_version=ENGINE_VERSION,
        seed=programmed.seed,
        programmed_at_s=programmed.programmed_at_s,
        plan=json.dumps(document),
    )


def from_row(row: ProgrammedRow) -> tuple[Programmed, int]:
    """Return what a row says, not realised yet, and how often the partition was programmed before.

    Raises:
        ValueError, KeyError, TypeError, CrossbarError: it is damaged.
    """
    from crossbar.planning.budget import ErrorBudget
    from crossbar.planning.calibration import MeasuredError
    from crossbar.planning.planned import Cells, Planned

    document = json.loads(row.plan)
    told = document["planned"]
    planned = None
    if told is not None:
        planned = Planned(
            **{
                **told,
                "plan": crossbar.Plan(**told["plan"]),
                "predicted": ErrorBudget(**told["predicted"]),
                "measured": None if told["measured"] is None else MeasuredError(**told["measured"]),
                "cells": Cells(**told["cells"]),
                "rungs": (),
            }
        )
    programmed = Programmed(
        planned, row.seed, row.programmed_at_s, digital_because=str(document["digital_because"])
    )
    return programmed, int(document["generation"])


def is_current(row: ProgrammedRow, profile: DeviceProfile) -> bool:
    """Return whether a row speaks of these devices, and was written by this version of the engine."""
    return row.engine_version == ENGINE_VERSION and row.profile_digest == profile_digest(profile)
