"""Owns how long a lost node is waited for before its copies are made again elsewhere: longer if it dies often.

A node that comes and goes would otherwise have its copies moved away and back each time. Nothing is at risk
meanwhile that another loss would not put at risk as well: products go to the other copies at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

REPAIR_DELAY_S = 5.0
"""After the verdict that a node is dead, which took seconds itself: long enough for a daemon's restart."""

REPAIR_DELAY_MAX_S = 300.0
"""Copies that are missing for longer than this are at more risk than any copying costs."""

UNHEARD_DELAY_S = 60.0
"""For a node that was not heard of since this one started: whole rooms are switched on at once, and some
machines boot slowly."""

DEATHS_MEMORY_S = 600.0
"""Deaths that are longer ago say nothing about the next one."""

DEATHS_MAX = 8
"""Deaths remembered of one node: with seven, the longest delay is reached."""

PEERS_MAX = 4096
"""Nodes remembered. Beyond that many, those that died longest ago are forgotten first, and are then like nodes
that were never heard of."""


def repair_delay_s(deaths: int, base_s: float = REPAIR_DELAY_S) -> float:
    """Return how long to wait for a node after its latest death, of so many within the last ten minutes."""
    return min(REPAIR_DELAY_MAX_S, base_s * 2.0 ** min(deaths - 1, DEATHS_MAX))


@dataclass(slots=True)
class _History:
    deaths_s: list[float] = field(default_factory=list)
    given_up_s: float | None = None
    """From when on its copies are made again; None while it is there."""


class LossTable:
    """Which nodes are given up, and when the next one will be.

    Args:
        base_s, unheard_s: delays after a first death, and for a node that was never there.
    """

    def __init__(self, *, base_s: float = REPAIR_DELAY_S, unheard_s: float = UNHEARD_DELAY_S) -> None:
        self._base_s = base_s
        self._unheard_s = unheard_s
        self._histories: OrderedDict[str, _History] = OrderedDict()  # the latest death last

    def observe(self, living: Iterable[str], dead: Iterable[str], now: float) -> None:
        """Take in who is there and who is not, as membership has it; the same again changes nothing."""
        for peer_id in living:
            self._histories.setdefault(peer_id, _History()).given_up_s = None
        for peer_id in dead:
            self._note_dead(peer_id, now)
        while len(self._histories) > PEERS_MAX:
            self._histories.popitem(last=False)

    def lost(self, now: float) -> frozenset[str]:
        """Return the nodes that are given up."""
        return frozenset(peer_id for peer_id, given_up_s in self._waits() if given_up_s <= now)

    def next_loss_s(self, now: float) -> float | None:
        """Return when the next of the dead nodes is given up, if any is still waited for."""
        return min((given_up_s for _, given_up_s in self._waits() if given_up_s > now), default=None)

    def _note_dead(self, peer_id: str, now: float) -> None:
        history = self._histories.get(peer_id)
        if history is None:
            self._histories[peer_id] = _History(given_up_s=now + self._unheard_s)
        elif history.given_up_s is None:
            recent = [death_s for death_s in history.deaths_s if now - death_s < DEATHS_MEMORY_S]
            history.deaths_s = [*recent, now][-DEATHS_MAX:]
            history.given_up_s = now + repair_delay_s(len(history.deaths_s), self._base_s)
            self._histories.move_to_end(peer_id)

    def _waits(self) -> list[tuple[str, float]]:
        return [
            (peer_id, history.given_up_s)
            for peer_id, history in self._histories.items()
            if history.given_up_s is not None
        ]
