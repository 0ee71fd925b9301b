"""Records promised to single peers in answer to their inventories, waiting for room in the byte budget."""

from __future__ import annotations

from sedmad.core.membership.record import Locator

# Places, not records: about 2 MiB at most. What is dropped is found again by the next round of anti-entropy.
MAX_TRANSFERS = 16_384


class Transfers:
    """Who is to be sent which records. Only places are kept; a record is looked up when it is sent."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[Locator, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, peer_id: str, locator: Locator) -> None:
        """Queue one record for a peer, once."""
        waiting = self._waiting.setdefault(peer_id, {})
        if locator not in waiting and self._count < MAX_TRANSFERS:
            waiting[locator] = None
            self._count += 1

    def peers(self) -> list[str]:
        return [peer_id for peer_id, waiting in self._waiting.items() if waiting]

    def next_for(self, peer_id: str) -> Locator | None:
        """Return the first record waiting for a peer, and leave it there."""
        return next(iter(self._waiting.get(peer_id, ())), None)

    def done(self, peer_id: str, locator: Locator) -> None:
        """Remove one record from a peer's queue; a peer with more waiting goes behind the others."""
        waiting = self._waiting.pop(peer_id, {})
        if locator in waiting:
            del waiting[locator]
            self._count -= 1
        if waiting:
            self._waiting[peer_id] = waiting

    def cancel(self, peer_id: str) -> None:
        """Drop all that waits for a peer that went away."""
        self._count -= len(self._waiting.pop(peer_id, ()))
