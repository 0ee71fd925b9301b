"""Owns where the new copies of one partition after the other go, and which holders they take the place of.

Room is taken as copies are planned, so that a step never asks a node for more than it offers. The choice is greedy:
where room is scarce, it may miss a solution that moves copies which nothing is wrong with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from sedmad.core.device_needs import NO_DEVICES, DeviceNeeds
from sedmad.core.offers import Offer, candidates
from sedmad.core.partitioning import Partitioning
from sedmad.core.placement import finish_time
from sedmad.core.prediction import PeerState
from sedmad.core.shortage import RoomLeft, Shortage

Copies = Mapping[str, bool]
"""Of one partition: whether each holder's copy is resident, by peer id."""


@dataclass(frozen=True, slots=True)
class NewCopy:
    """A copy to make before a manifest names it.

    Attributes:
        sources: living holders to fetch it from, the first one first; none where the target's standby copy becomes
            resident.
    """

    partition: int
    target: str
    resident: bool
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Mend:
    """What changes about one partition: its holders afterwards, the resident one first, and what to make for that."""

    copies: Copies
    new_copies: tuple[NewCopy, ...]


@dataclass(slots=True)
class _Room:
    """What is left of a node's offer, and what this step gives it."""

    offer: Offer
    memory_bytes: int
    disk_bytes: int
    finish_s: Callable[[int], float]
    residents: int
    cells: int
    devices: DeviceNeeds
    new_copies: int = 0

    @property
    def full(self) -> bool:
        """Whether more than half of the disk offered is taken by this step."""
        return self.disk_bytes < self.offer.disk_available_bytes // 2

    def takes_resident(self, size_bytes: int) -> bool:
        """Return whether memory and devices have room for a resident copy."""
        return (
            self.devices.allow(self.offer)
            and self.memory_bytes >= self.devices.memory_bytes(self.offer, size_bytes)
            and self.cells >= self.devices.of(self.offer).cells
        )

    def add_resident(self, size_bytes: int) -> None:
        """Take the memory and the cells of a resident copy."""
        self.memory_bytes -= self.devices.memory_bytes(self.offer, size_bytes)
        self.cells -= self.devices.of(self.offer).cells
        self.residents += 1


class Mending:
    """Mends partitions of one matrix within what nodes offer.

    Args:
        states: of nodes; one that is missing and offers nothing is dead.
        offers: of living nodes; for resident copies that some are short of memory for, others are found.
        going: nodes whose places others take.
        residents: how many resident copies of this matrix each node has.
        devices: what resident copies take of the nodes' devices.

    Attributes:
        shortage: what could not be made.
    """

    def __init__(
        self,
        cut: Partitioning,
        survive: int,
        states: Mapping[str, PeerState],
        offers: Sequence[Offer],
        *,
        going: Collection[str],
        residents: Mapping[str, int],
        matrix_id: bytes,
        devices: DeviceNeeds = NO_DEVICES,
    ) -> None:
        self._cut = cut
        self._wanted_copies = survive + 1
        self._states = states
        self._going = going
        self._short = {
            offer.peer_id: offer.memory_short_bytes for offer in offers if offer.memory_short_bytes > 0
        }
        usable = [
            offer
            for offer in offers
            if not offer.draining
            and offer.peer_id not in going
            and states.get(offer.peer_id, "alive") == "alive"
        ]
        self._rooms = {
            offer.peer_id: _Room(
                offer,
                max(0, offer.memory_available_bytes),
                max(0, offer.disk_available_bytes),
                finish_time(cut, offer, devices),
                residents.get(offer.peer_id, 0),
                max(0, offer.cells_available),
                devices,
            )
            for offer in usable
        }
        self._zones = {offer.peer_id: offer.zone for offer in offers if offer.zone}
        self._few = frozenset(offer.peer_id for offer in candidates(usable, matrix_id))
        self._reads: Counter[str] = Counter()
        self.shortage = Shortage(self._wanted_copies)

    def living(self, copies: Copies) -> list[str]:
        """Return the holders that can be read from."""
        return [peer_id for peer_id in copies if self._lives(peer_id)]

    def in_trouble(self, copies: Copies) -> bool:
        """Whether a partition lacks a copy or a resident one, has one that goes, or standby copies to spare.

        A resident copy at a node that is short of memory counts as a standby one.
        """
        staying = self._staying(copies).values()
        if len(staying) < len(copies) or not any(staying):
            return True
        return len(staying) < self._wanted_copies or (len(staying) > self._wanted_copies and not all(staying))

    def rooms_left(self) -> list[RoomLeft]:
        """Return what nodes could still take."""
        return [
            RoomLeft(room.offer.name or peer_id, room.memory_bytes, room.disk_bytes)
            for peer_id, room in self._rooms.items()
        ]

    def promote(self, index: int, copies: Copies) -> Mend | None:
        """Have a standby copy become resident where no resident one stays; None if there is no need, or no room."""
        after = self._staying(copies)
        promoted = None if any(after.values()) else self._promote(index, after)
        if promoted is None:
            return None
        self._relieve(index, copies, after)
        # Those that go are still named: their places are not taken yet.
        return Mend(_resident_first(dict.fromkeys(copies, False) | after), (promoted,))

    def mend(self, index: int, copies: Copies) -> Mend | None:
        """Make a partition good as far as there is room; None if nothing changes, of which `shortage` takes note."""
        sources = self.living(copies)
        if not sources:
            self.shortage.nobody_answers(index, copies)
            return None
        after = self._staying(copies)
        made = self._make_resident(index, after, copies, sources)
        while len(after) < self._wanted_copies:
            room = self._choose(index, {*copies, *after}, after, resident=False)
            if room is None:
                self.shortage.too_few_copies(index, self._cut.size_bytes(index))
                break
            made.append(self._copy(index, room, after, sources, resident=False))
        self._spare(after, copies)
        self._keep_enough(after, copies)
        if not any(after.values()):
            self.shortage.not_resident(index, self._cut.size_bytes(index))
        self._relieve(index, copies, after)
        if after == copies:
            return None
        return Mend(_resident_first(after), tuple(made))

    def _make_resident(
        self, index: int, after: dict[str, bool], copies: Copies, sources: Sequence[str]
    ) -> list[NewCopy]:
        """Have a resident copy where none stays: of a standby one if possible, else on another node."""
        if any(after.values()):
            return []
        if promoted := self._promote(index, after):
            return [promoted]
        room = self._choose(index, {*copies, *after}, after, resident=True)
        if room is None:
            return []
        return [self._copy(index, room, after, sources, resident=True)]

    def _promote(self, index: int, after: dict[str, bool]) -> NewCopy | None:
        size_bytes = self._cut.size_bytes(index)
        able = [
            room
            for peer_id in after
            if self._lives(peer_id)
            and (room := self._rooms.get(peer_id)) is not None
            and room.takes_resident(size_bytes)
            and self._short.get(peer_id, 0) <= 0
        ]
        if not able:
            return None
        room = min(able, key=lambda room: (room.finish_s(room.residents + 1), room.offer.peer_id))
        room.add_resident(size_bytes)
        after[room.offer.peer_id] = True
        return NewCopy(index, room.offer.peer_id, resident=True, sources=())

    def _copy(
        self, index: int, room: _Room, after: dict[str, bool], sources: Sequence[str], *, resident: bool
    ) -> NewCopy:
        size_bytes = self._cut.size_bytes(index)
        room.disk_bytes -= size_bytes
        if resident:
            room.add_resident(size_bytes)
        room.new_copies += 1
        after[room.offer.peer_id] = resident
        # Reading is spread as well.
        order = sorted(sources, key=lambda peer_id: (self._reads[peer_id], peer_id))
        self._reads[order[0]] += 1
        return NewCopy(index, room.offer.peer_id, resident, tuple(order))

    def _choose(
        self, index: int, excluded: Collection[str], after: Copies, *, resident: bool
    ) -> _Room | None:
        """Return the node that a copy goes to: of another zone where possible; for a resident one, the soonest to
        answer; for a standby one, whichever has most room left of those that were given least.
        """
        size_bytes = self._cut.size_bytes(index)
        able = [
            room
            for peer_id, room in self._rooms.items()
            if peer_id not in excluded
            and room.disk_bytes >= size_bytes
            and (not resident or room.takes_resident(size_bytes))
        ]

        def preference(room: _Room) -> tuple[bool, bool, float, int, str]:
            peer_id = room.offer.peer_id
            crowded = self._neighbours(peer_id, after) > 0
            if resident:
                return crowded, False, room.finish_s(room.residents + 1), -room.disk_bytes, peer_id
            return crowded, room.full, room.new_copies, -room.disk_bytes, peer_id

        few = [room for room in able if room.offer.peer_id in self._few]
        return min(few or able, key=preference, default=None)

    def _spare(self, after: dict[str, bool], copies: Copies) -> None:
        """Let standby copies go that make more than there have to be: a resident one came, or a node came back."""
        standbys = [
            peer_id for peer_id in after if peer_id in copies and not after[peer_id] and self._lives(peer_id)
        ]
        while standbys and len(self.living(after)) > self._wanted_copies:
            crowded = max(standbys, key=lambda peer_id: (self._neighbours(peer_id, after), peer_id))
            standbys.remove(crowded)
            del after[crowded]

    def _keep_enough(self, after: dict[str, bool], copies: Copies) -> None:
        """Keep naming holders that go as long as too few others live: they may come back, or can still be read."""
        going = sorted(
            (peer_id for peer_id in copies if peer_id in self._going),
            key=lambda peer_id: (not self._lives(peer_id), peer_id),
        )
        resident = any(after.values())
        for peer_id in going[: max(0, self._wanted_copies - len(self.living(after)))]:
            after[peer_id] = copies[peer_id] and not resident

    def _staying(self, copies: Copies) -> dict[str, bool]:
        """Return what stays as it is; a resident copy at a node that is short of memory stays as a standby one."""
        return {
            peer_id: resident and self._short.get(peer_id, 0) <= 0
            for peer_id, resident in copies.items()
            if peer_id not in self._going
        }

    def _relieve(self, index: int, copies: Copies, after: Copies) -> None:
        """Count what nodes that are short of memory need not have resident any more."""
        for peer_id, resident in copies.items():
            if resident and peer_id in self._short and not after.get(peer_id, False):
                self._short[peer_id] -= self._cut.size_bytes(index)

    def _lives(self, peer_id: str) -> bool:
        """Whether a node can be read from; whoever offers something can."""
        return self._states.get(peer_id) == "alive" or peer_id in self._rooms

    def _neighbours(self, peer_id: str, copies: Copies) -> int:
        """Return how many holders are in the zone of a node."""
        zone = self._zones.get(peer_id)
        return sum(
            zone is not None and self._zones.get(other) == zone for other in copies if other != peer_id
        )


def _resident_first(copies: Mapping[str, bool]) -> dict[str, bool]:
    return dict(sorted(copies.items(), key=lambda copy: not copy[1]))
