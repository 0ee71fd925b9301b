"""What a matrix will take of devices before a byte of it has come: planned for a sample, once for each profile.

The sample is random and smaller than a partition; holders plan again with the real weights, within what they have. Of a
profile that only its own node knows nothing is expected: that node decides for itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import structlog
import trio

import crossbar
from crossbar.devices import DeviceProfile
from crossbar.errors import CrossbarError, ProfileUnknown
from crossbar.errors import TargetUnreachable as NoPlan
from sedmad.core.accuracy import Accuracy
from sedmad.core.device_needs import NO_DEVICES, DeviceNeed, DeviceNeeds
from sedmad.core.offers import Offer
from sedmad.core.partitioning import Partitioning
from sedmad.errors import TargetUnreachable, UsageError
from sedmad.node.long_thread import in_long_thread
from sedmad.node.programming import PLANNED_AGE_S, simulation_bytes

log = structlog.get_logger("sedmad.devices")

# As many rows and columns as a few tiles have: errors depend on the tiles, cells are counted for the whole.
SAMPLE_ROWS, SAMPLE_COLUMNS = 128, 256
SAMPLE_SEED = 20260109
# Outcomes kept: shapes and targets repeat, as the layers of a model do.
KEPT_MAX = 256

_Question = tuple[DeviceProfile, float, int, int, bool]


@dataclass(frozen=True, slots=True)
class _Refused:
    """No plan keeps the target."""

    error: NoPlan


class Expectations:
    """Predicts what partitions take on the profiles that nodes offer.

    Args:
        profiles: the folder of the user's own profiles.
    """

    def __init__(self, profiles: Path | None = None) -> None:
        self._profiles = profiles
        self._kept: OrderedDict[_Question, DeviceNeed | _Refused] = OrderedDict()
        self._turn = trio.CapacityLimiter(1)

    async def needs(
        self, accuracy: Accuracy, partitioning: Partitioning, offers: Iterable[Offer]
    ) -> DeviceNeeds:
        """Return what resident copies of a matrix take.

        Raises:
            UsageError: nobody offers the profile that is demanded.
            TargetUnreachable: no plan keeps the target on it.
        """
        if not accuracy.target_error:
            return NO_DEVICES
        offered = {offer.device_profile for offer in offers}
        if accuracy.profile and accuracy.profile not in offered:
            raise UsageError(
                f"no node has devices of the profile {accuracy.profile!r}",
                why=f"those that are ready have {', '.join(sorted(offered))}",
                hint="Choose one of these, or start a node with --profile " + accuracy.profile + ".",
            )
        wanted = {accuracy.profile} if accuracy.profile else offered
        found = {}
        for name in sorted(wanted):
            profile = self._known(name)
            if profile is not None and not profile.is_ideal:
                found[name] = await self._need(profile, accuracy, partitioning)
        return DeviceNeeds(accuracy.profile, found)

    async def needs_if_any(
        self, accuracy: Accuracy, partitioning: Partitioning, offers: Iterable[Offer]
    ) -> DeviceNeeds:
        """Return what resident copies take; where none can be made now, what allows none."""
        try:
            return await self.needs(accuracy, partitioning, offers)
        except (UsageError, TargetUnreachable):
            return DeviceNeeds(accuracy.profile)

    def _known(self, name: str) -> DeviceProfile | None:
        try:
            return crossbar.profile(name, self._profiles)
        except ProfileUnknown:
            return None

    async def _need(self, profile: DeviceProfile, accuracy: Accuracy, cut: Partitioning) -> DeviceNeed:
        question = (profile, accuracy.target_error, cut.partition_rows, cut.columns, bool(accuracy.profile))
        if question not in self._kept:
            answer = await in_long_thread(partial(_plan, question), self._turn)
            self._kept[question] = answer
            if len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)
        answer = self._kept[question]
        if isinstance(answer, _Refused):
            error = answer.error
            raise TargetUnreachable(error.what, why=error.why, hint=error.hint)
        return answer


def _plan(question: _Question) -> DeviceNeed | _Refused:
    """Plan for a sample, in a worker thread."""
    profile, target_error, rows, columns, demanded = question
    rng = np.random.default_rng(SAMPLE_SEED)
    sample = rng.standard_normal((min(rows, SAMPLE_ROWS), min(columns, SAMPLE_COLUMNS))).astype(np.float32)
    try:
        planned = crossbar.partition(
            sample,
            profile,
            target_error,
            seconds=PLANNED_AGE_S if profile.drift is not None else 0.0,
            allow_digital=not demanded,
            verify=False,
        )
    except NoPlan as error:
        return _Refused(error)
    except CrossbarError as error:
        log.warning("devices_not_planned", profile=profile.name, why=str(error))
        return DeviceNeed()
    from crossbar.planning.planned import cells_of

    plan = planned.plan
    return DeviceNeed(
        cells=cells_of((rows, columns), plan).allocated,
        memory_bytes=simulation_bytes((rows, columns), profile, plan),
        slowdown=1.0 if plan.digital else float(plan.slices * plan.replicas),
    )
