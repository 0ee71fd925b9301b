"""Whom membership holds for dead, and whose matrices have been without an owner for long enough."""

from __future__ import annotations

from collections.abc import Iterable

from sedmad.core.ownership.settings import OwnershipSettings


class Peers:
    """Verdicts on peers, as far as this node has heard any.

    A peer that was never spoken of is neither up nor down. It is given `unheard_after_s` from when it first
    matters, and is down then.
    """

    def __init__(self, settings: OwnershipSettings) -> None:
        self._settings = settings
        self._up: set[str] = set()
        self._down: set[str] = set()
        self._mourned_at: dict[str, float] = {}

    def is_up(self, peer_id: str) -> bool:
        return peer_id in self._up

    def is_down(self, peer_id: str) -> bool:
        return peer_id in self._down

    def has_left(self, peer_id: str) -> bool:
        """Say whether a peer has been dead for so long that its matrices may pass on."""
        return peer_id in self._down and peer_id not in self._mourned_at

    def living(self, peers: Iterable[str]) -> list[str]:
        """Return those that are not known to be dead."""
        return [peer_id for peer_id in peers if peer_id not in self._down]

    def up(self, peer_id: str) -> None:
        self._up.add(peer_id)
        self._down.discard(peer_id)
        self._mourned_at.pop(peer_id, None)

    def down(self, peer_id: str, now: float) -> None:
        if peer_id in self._down:
            return
        self._up.discard(peer_id)
        self._down.add(peer_id)
        self._mourned_at[peer_id] = now + self._settings.takeover_after_s

    def expect(self, peer_id: str, now: float) -> None:
        """A peer matters from now on; if nothing is ever heard of it, it is dead."""
        if peer_id not in self._up and peer_id not in self._down:
            self._mourned_at.setdefault(peer_id, now + self._settings.unheard_after_s)

    def leaving(self, now: float) -> list[str]:
        """Return the peers that have been dead for long enough just now, each once."""
        left = [peer_id for peer_id, at in self._mourned_at.items() if at <= now]
        for peer_id in left:
            del self._mourned_at[peer_id]
            self._down.add(peer_id)
        return left

    def next_timeout(self) -> float | None:
        return min(self._mourned_at.values(), default=None)
