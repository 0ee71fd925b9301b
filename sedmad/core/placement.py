"""Owns where the copies of a new matrix go: one resident and `survive` standby copies of each partition.

Residents follow predicted time: partition by partition, each goes to the node that would finish its share
first. For equal partitions this is the exact form of water-filling. Standby copies go where
`sedmad.core.standby` says.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from sedmad.core.device_needs import NO_DEVICES, DeviceNeeds
from sedmad.core.offers import Offer, candidates
from sedmad.core.partitioning import Partitioning
from sedmad.core.prediction import Work, memory_penalty_s
from sedmad.core.standby import StandbyChoice
from sedmad.errors import InsufficientCapacity, NotEnoughPeers, UsageError
from sedmad.sizes import format_bytes

_SHOWN_NODES = 8  # lines of arithmetic in an error: more than a screenful helps nobody
_SLOWEST = 1e-9  # a link of no bandwidth is merely the last choice


@dataclass(frozen=True, slots=True)
class PartitionPlacement:
    """Peer ids of the holders of one partition; all are different."""

    resident: str
    standbys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Need:
    """What a placement takes of one node's pledges."""

    memory_bytes: int = 0
    disk_bytes: int = 0
    resident_partitions: int = 0


@dataclass(frozen=True, slots=True)
class Placement:
    """Holders of every partition, by partition index."""

    partitioning: Partitioning
    partitions: tuple[PartitionPlacement, ...]

    def needs(self) -> Mapping[str, Need]:
        """Return what every holder must have room for, by peer id."""
        needs: dict[str, Need] = {}
        for index, partition in enumerate(self.partitions):
            size_bytes = self.partitioning.size_bytes(index)
            for peer_id in (partition.resident, *partition.standbys):
                need = needs.get(peer_id, Need())
                resident = peer_id == partition.resident
                needs[peer_id] = Need(
                    need.memory_bytes + size_bytes * resident,
                    need.disk_bytes + size_bytes,
                    need.resident_partitions + resident,
                )
        return needs


def place(
    partitioning: Partitioning,
    survive: int,
    offers: Sequence[Offer],
    matrix_id: bytes,
    devices: DeviceNeeds = NO_DEVICES,
) -> Placement:
    """Return where the copies of a matrix go. The same inputs, in any order, give the same placement.

    Args:
        survive: how many holders may be lost at once: the number of standby copies.
        offers: one per node that could hold something, the planning node included.
        matrix_id: digest of the matrix; decides which of very many nodes are considered.
        devices: what resident copies take of the nodes' devices.

    Raises:
        UsageError: `survive` is negative.
        NotEnoughPeers: fewer nodes than copies.
        InsufficientCapacity: memory or disk does not suffice, with the arithmetic in `why`. Never raised if
            every node's room, counted in whole partitions, adds up (see `sedmad.core.standby`).
    """
    if survive < 0:
        raise UsageError("a matrix cannot survive less than no loss", why=f"survive is {survive}")
    usable = sorted((offer for offer in offers if not offer.draining), key=lambda offer: offer.peer_id)
    if len(usable) <= survive:
        draining = len(offers) - len(usable)
        raise NotEnoughPeers(
            f"there are too few nodes to survive the loss of {survive}",
            why=f"{survive + 1} copies need {survive + 1} nodes; {len(usable)} take copies"
            + (f", {draining} are draining" if draining else ""),
        )
    few = candidates(usable, matrix_id)
    partitions = _fit(partitioning, survive, few, devices)
    if partitions is None and len(few) < len(usable):
        partitions = _fit(partitioning, survive, usable, devices)
    if partitions is None:
        raise InsufficientCapacity(
            f"this mesh has no room for a matrix of {format_bytes(partitioning.total_bytes)}",
            why=_arithmetic(partitioning, survive, usable, devices),
        )
    return Placement(partitioning, tuple(partitions))


def place_on_devices(
    partitioning: Partitioning,
    survive: int,
    offers: Sequence[Offer],
    matrix_id: bytes,
    devices: DeviceNeeds,
) -> tuple[Placement, DeviceNeeds]:
    """Place a matrix; where cells are short, so that nodes compute exactly what their arrays have no room for.

    Returns the placement, and what it counts on. Raises as `place` does; cells are a hard limit where a profile is
    demanded.
    """
    try:
        return place(partitioning, survive, offers, matrix_id, devices), devices
    except InsufficientCapacity:
        if devices.profile or not devices.by_profile:
            raise
        return place(partitioning, survive, offers, matrix_id), NO_DEVICES


def finish_time(
    partitioning: Partitioning, offer: Offer, devices: DeviceNeeds = NO_DEVICES
) -> Callable[[int], float]:
    """Return a function of n: the predicted seconds in which a node answers for n partitions of a full panel.

    A full panel, because shares matter most when a node is busy: a single column is answered fast by anybody.
    """
    work = Work.of(partitioning, partitioning.panel_columns)
    size_bytes = devices.memory_bytes(offer, partitioning.size_bytes(0))
    link = max(offer.link_bandwidth_bytes_per_s, _SLOWEST)
    fixed_s = offer.rtt_s + offer.queue_s + work.shared_bytes / link
    service_s = work.service_s(offer.gflops, offer.memory_bandwidth_bytes_per_s) * devices.of(offer).slowdown
    partition_s = service_s + work.answer_bytes / link
    pledged, taken = offer.memory_pledged_bytes, offer.memory_pledged_bytes - offer.memory_available_bytes

    def finish(count: int) -> float:
        full = (taken + count * size_bytes) / pledged if pledged > 0 else 0.0
        return fixed_s + count * partition_s + memory_penalty_s(full)

    return finish


def _fit(
    cut: Partitioning, survive: int, offers: Sequence[Offer], devices: DeviceNeeds
) -> list[PartitionPlacement] | None:
    """Place all partitions as if they were as large as the first; if that fails, the last one by itself."""
    placed = _fit_equal(cut, cut.count, survive, offers, devices)
    if placed is not None or cut.size_bytes(cut.count - 1) == cut.size_bytes(0):
        return placed
    short = _fit_short(cut, survive, offers, devices)
    if short is None:
        return None
    last_bytes = cut.size_bytes(cut.count - 1)
    holders = (short.resident, *short.standbys)
    left = [
        replace(
            offer,
            memory_available_bytes=offer.memory_available_bytes
            - devices.memory_bytes(offer, last_bytes) * (offer.peer_id == holders[0]),
            cells_available=offer.cells_available - devices.of(offer).cells * (offer.peer_id == holders[0]),
            disk_available_bytes=offer.disk_available_bytes - last_bytes * (offer.peer_id in holders),
        )
        for offer in offers
    ]
    placed = _fit_equal(cut, cut.count - 1, survive, left, devices)
    return None if placed is None else [*placed, short]


def _fit_short(
    cut: Partitioning, survive: int, offers: Sequence[Offer], devices: DeviceNeeds
) -> PartitionPlacement | None:
    """Place the short last partition, if possible where it takes no room that a whole one could use."""
    size_bytes, last_bytes = cut.size_bytes(0), cut.size_bytes(cut.count - 1)

    def lost(available_bytes: int) -> int:
        return available_bytes // size_bytes - (available_bytes - last_bytes) // size_bytes

    with_disk = [offer for offer in offers if offer.disk_available_bytes >= last_bytes]
    residents = [offer for offer in with_disk if devices.room(offer, last_bytes)]
    if not residents or len(with_disk) <= survive:
        return None
    resident = min(
        residents,
        key=lambda offer: (
            lost(offer.memory_available_bytes) + lost(offer.disk_available_bytes),
            finish_time(cut, offer, devices)(1),
        ),
    )
    others = [offer for offer in with_disk if offer is not resident]
    others.sort(key=lambda offer: (lost(offer.disk_available_bytes), -offer.disk_available_bytes))
    return PartitionPlacement(resident.peer_id, tuple(offer.peer_id for offer in others[:survive]))


def _fit_equal(
    cut: Partitioning, count: int, survive: int, offers: Sequence[Offer], devices: DeviceNeeds
) -> list[PartitionPlacement] | None:
    """Place `count` partitions of the size of the first, or return None if room does not add up."""
    size_bytes = cut.size_bytes(0)
    disk_room = [max(0, offer.disk_available_bytes) // size_bytes for offer in offers]
    memory_room = [
        min(disk, devices.room(offer, size_bytes)) for disk, offer in zip(disk_room, offers, strict=True)
    ]
    copies_room = sum(min(disk, count) for disk in disk_room)
    if sum(memory_room) < count or copies_room < count * (survive + 1):
        return None
    residents = _residents(cut, count, offers, memory_room, devices)
    standbys = StandbyChoice(offers, disk_room, residents, survive)
    peer_ids = [offer.peer_id for offer in offers]
    return [
        PartitionPlacement(peer_ids[resident], tuple(peer_ids[node] for node in standbys.choose()))
        for resident in residents
    ]


def _residents(
    cut: Partitioning, count: int, offers: Sequence[Offer], room: Sequence[int], devices: DeviceNeeds
) -> list[int]:
    """Return the node, by index, of every partition's resident copy; a node's partitions are neighbours."""
    finish = [finish_time(cut, offer, devices) for offer in offers]
    shares = [0] * len(offers)
    soonest = [(finish[node](1), node) for node in range(len(offers)) if room[node] > 0]
    heapq.heapify(soonest)
    for _ in range(count):
        _, node = soonest[0]
        shares[node] += 1
        if shares[node] < room[node]:
            heapq.heapreplace(soonest, (finish[node](shares[node] + 1), node))
        else:
            heapq.heappop(soonest)
    by_speed = sorted(range(len(offers)), key=lambda node: finish[node](1))
    return [node for node in by_speed for _ in range(shares[node])]


def _arithmetic(cut: Partitioning, survive: int, offers: Sequence[Offer], devices: DeviceNeeds) -> str:
    """Return what is needed, and what the roomiest nodes have, one line each."""
    copies, size_bytes = survive + 1, cut.size_bytes(0)
    lines = [
        f"{cut.count} partitions of {format_bytes(size_bytes)}, {copies} copies on different nodes, need "
        f"{format_bytes(cut.total_bytes)} of memory and {format_bytes(copies * cut.total_bytes)} of disk"
    ]
    roomiest = sorted(offers, key=lambda offer: (-offer.memory_available_bytes, offer.peer_id))
    for offer in roomiest[:_SHOWN_NODES]:
        memory, disk = max(0, offer.memory_available_bytes), max(0, offer.disk_available_bytes)
        lines.append(
            f"  {offer.name or offer.peer_id}: "
            f"memory {format_bytes(memory)} (room for {memory // size_bytes}), "
            f"disk {format_bytes(disk)} (room for {disk // size_bytes})" + _devices(offer, devices)
        )
    if len(roomiest) > _SHOWN_NODES:
        lines.append(f"  and {len(roomiest) - _SHOWN_NODES} nodes with less memory")
    return "\n".join(lines)


def _devices(offer: Offer, devices: DeviceNeeds) -> str:
    """Return what counts of a node's devices, to be said after memory and disk; nothing where none does."""
    if not devices.allow(offer):
        return f", {offer.device_profile} devices, not {devices.profile}"
    need = devices.of(offer)
    if not need.cells:
        return ""
    return f", {offer.cells_available:,} cells of {offer.device_profile} (a partition takes {need.cells:,})"
