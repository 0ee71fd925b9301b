"""Owns what the owner of a matrix does about copies that are lost, on nodes that leave, or were never made: step by
step, each a new manifest.

A step first makes copies and then names them; holders are dropped from the manifest only when enough others live.
Planning again after each step until nothing is left to do ends, and what no node has room for is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sedmad.core.device_needs import NO_DEVICES, DeviceNeeds
from sedmad.core.guarding import renew_guardians
from sedmad.core.mending import Copies, Mend, Mending, NewCopy
from sedmad.core.offers import Offer
from sedmad.core.partitioning import Partitioning
from sedmad.core.placement import Need
from sedmad.core.prediction import PeerState
from sedmad.sizes import MIB

STEP_PARTITIONS = 64
"""Partitions changed in one step: enough to keep many targets busy, and what a crash in the middle throws away
takes seconds to make again."""

STEP_BYTES = 512 * MIB
"""Bytes copied in one step, for the same reason; one partition in any case."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a manifest says of where a matrix lies.

    Attributes:
        matrix_id: digest of the matrix; decides which of very many nodes are considered.
        copies: of each partition, whether each holder's copy is resident, by peer id.
    """

    matrix_id: bytes
    partitioning: Partitioning
    survive: int
    owner: str
    guardians: tuple[str, ...]
    copies: tuple[Copies, ...]


@dataclass(frozen=True, slots=True)
class RepairPlan:
    """One step.

    Attributes:
        new_copies: what to make first.
        copies: of each partition that changes, its holders afterwards, the resident one first.
        guardians: from now on; None if they stay.
        degraded: what cannot be made good, and why, in lines; empty if all can as far as this step looked.
    """

    partitioning: Partitioning
    new_copies: tuple[NewCopy, ...] = ()
    copies: Mapping[int, Copies] = field(default_factory=dict)
    guardians: tuple[str, ...] | None = None
    degraded: str = ""

    @property
    def is_empty(self) -> bool:
        return not self.copies and self.guardians is None

    @property
    def copied_bytes(self) -> int:
        """Return how much has to travel."""
        return sum(self.partitioning.size_bytes(copy.partition) for copy in self.new_copies if copy.sources)

    def needs(self) -> Mapping[str, Need]:
        """Return what every target must have room for, by peer id."""
        needs: dict[str, Need] = {}
        for copy in self.new_copies:
            size_bytes = self.partitioning.size_bytes(copy.partition)
            need = needs.get(copy.target, Need())
            needs[copy.target] = Need(
                need.memory_bytes + size_bytes * copy.resident,
                need.disk_bytes + size_bytes * bool(copy.sources),
                need.resident_partitions + copy.resident,
            )
        return needs

    def apply(self, layout: Layout) -> Layout:
        """Return where the matrix lies after this step."""
        return replace(
            layout,
            guardians=layout.guardians if self.guardians is None else self.guardians,
            copies=tuple(self.copies.get(index, before) for index, before in enumerate(layout.copies)),
        )


def plan_repair(
    layout: Layout,
    states: Mapping[str, PeerState],
    *,
    offers: Sequence[Offer],
    lost: Collection[str] = (),
    leaving: Collection[str] = (),
    wanted: Collection[int] = (),
    names: Mapping[str, str] | None = None,
    devices: DeviceNeeds = NO_DEVICES,
    step_partitions: int = STEP_PARTITIONS,
    step_bytes: int = STEP_BYTES,
) -> RepairPlan:
    """Return the next step. The same inputs give the same step.

    Args:
        states: of the holders and guardians; one that is missing is dead.
        offers: of living nodes, the owner included.
        lost: nodes to replace because they are dead for long.
        leaving: nodes to empty; they are read from as long as they live.
        wanted: partitions that products ask for: where a standby copy of theirs can become resident, that alone is
            the first step, as no byte has to travel.
        names: of holders, for what is said of them.
        devices: what resident copies take of the nodes' devices.
    """
    going = frozenset(lost) | frozenset(leaving)
    residents = Counter(
        peer_id for copies in layout.copies for peer_id, resident in copies.items() if resident
    )
    mending = Mending(
        layout.partitioning,
        layout.survive,
        states,
        offers,
        going=going,
        residents=residents,
        matrix_id=layout.matrix_id,
        devices=devices,
    )
    # First those that the next loss would take away.
    order = sorted(
        (index for index, copies in enumerate(layout.copies) if mending.in_trouble(copies)),
        key=lambda index: (len(mending.living(layout.copies[index])), index),
    )
    steps: dict[int, Mend] = {}
    for index in order:
        if (
            index in wanted
            and len(steps) < step_partitions
            and (mend := mending.promote(index, layout.copies[index]))
        ):
            steps[index] = mend
    if not steps:
        steps = _mend_in_order(mending, layout, order, step_partitions, step_bytes)
    guardians = renew_guardians(
        layout.guardians, owner=layout.owner, states=states, lost=lost, leaving=leaving, offers=offers
    )
    return RepairPlan(
        partitioning=layout.partitioning,
        new_copies=tuple(copy for mend in steps.values() for copy in mend.new_copies),
        copies={index: mend.copies for index, mend in steps.items()},
        guardians=None if guardians == layout.guardians else guardians,
        degraded=mending.shortage.text(mending.rooms_left(), names or {}),
    )


def _mend_in_order(
    mending: Mending, layout: Layout, order: Sequence[int], step_partitions: int, step_bytes: int
) -> dict[int, Mend]:
    """Mend partitions until the step is full; the last one may exceed the bytes by its own."""
    steps: dict[int, Mend] = {}
    copied_bytes = 0
    for index in order:
        if len(steps) == step_partitions or copied_bytes >= step_bytes:
            break
        mend = mending.mend(index, layout.copies[index])
        if mend is not None:
            steps[index] = mend
            size_bytes = layout.partitioning.size_bytes(index)
            copied_bytes += sum(size_bytes for copy in mend.new_copies if copy.sources)
    return steps
