"""Owns which nodes take the standby copies: other ones than the resident's, of other zones where possible,
spread so that the load of a lost node falls on many.

Why a plan never gets stuck. In units of the largest partition let node i have room for m_i resident copies
(memory and disk) and d_i copies in all (disk, at most one of each of the P partitions). If sum m_i >= P and
sum d_i >= P (f + 1), a placement exists for *any* choice of residents within m_i: give each node r_i
residents and c_i - r_i standbys with r_i <= c_i <= d_i <= P. For a set U of nodes, a partition can use min(f,
|U| less its own holder) of them. If |U| > f that is f for each, and f P suffices; if |U| <= f it sums to |U|
P - r(U) >= c(U) - r(U) as c_i <= P. So Hall's condition holds (Gale, A theorem on flows in networks, 1957),
and holds again for what is left after each step that keeps it: `StandbyChoice` only ever takes such steps.

In the code, `room` is what a node may still take, and `eligible` how many of the partitions to come are not
resident on it. What is left can be placed as long as `spare`, the sum of min(room, eligible) less the copies
to come, is not negative. Passing over a node with eligible <= room lowers it by one.
"""

from __future__ import annotations

from collections.abc import Sequence

from sedmad.core.offers import Offer


class StandbyChoice:
    """Chooses the standby holders of one partition after the other.

    Args:
        offers: the nodes; here only their zones count.
        disk_room: for every node, how many partitions its disk takes; enough in all.
        residents: for every partition, the node of its resident copy, by index into `offers`.
        survive: standby copies of every partition.
    """

    def __init__(
        self, offers: Sequence[Offer], disk_room: Sequence[int], residents: Sequence[int], survive: int
    ) -> None:
        self._zones = [offer.zone for offer in offers]
        self._disk_room = disk_room
        self._residents = residents
        self._survive = survive
        self._next = 0
        held = [0] * len(offers)
        for node in residents:
            held[node] += 1
        self._held = held
        self._room = [disk - own for disk, own in zip(disk_room, held, strict=True)]
        self._eligible = [len(residents) - own for own in held]
        self._stand_in: dict[tuple[int, int], int] = {}  # (lost node, standby): partitions it would take over

    def choose(self) -> list[int]:
        """Return the standby holders of the next partition."""
        resident = self._residents[self._next]
        to_come = self._survive * (len(self._residents) - self._next)
        spare = sum(map(min, self._room, self._eligible)) - to_come
        possible = [node for node in range(len(self._room)) if node != resident and self._room[node] > 0]
        pressing = {node for node in possible if self._eligible[node] <= self._room[node]}
        zones = {self._zones[resident]} - {""}
        chosen: list[int] = []
        for left in range(self._survive, 0, -1):
            must = len(pressing) - spare >= left  # else more than `spare` would be passed over
            best = min(
                pressing if must else possible, key=lambda node: self._preference(node, resident, zones)
            )
            chosen.append(best)
            possible.remove(best)
            pressing.discard(best)
            zones |= {self._zones[best]} - {""}
        self._take(resident, chosen)
        return chosen

    def _preference(self, node: int, resident: int, zones: set[str]) -> tuple[bool, bool, int, float, int]:
        """Order nodes: another zone first, then those less than half full, with few of this resident's."""
        full = (self._held[node] + 1) / self._disk_room[node]
        stands_in = self._stand_in.get((resident, node), 0)
        return self._zones[node] in zones, full > 0.5, stands_in, full, node

    def _take(self, resident: int, chosen: Sequence[int]) -> None:
        self._next += 1
        for node in range(len(self._eligible)):
            self._eligible[node] -= node != resident
        for node in chosen:
            self._room[node] -= 1
            self._held[node] += 1
            self._stand_in[resident, node] = self._stand_in.get((resident, node), 0) + 1
