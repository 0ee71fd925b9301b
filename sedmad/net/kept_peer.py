"""A peer that this node wants a session with: where it is, and when to dial it again."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import trio

BACKOFF_S_MIN = 0.25
BACKOFF_S_MAX = 15.0
# A stream that lived this long was no failure: the next one is dialled at once.
STABLE_S = 10.0


@dataclass(slots=True)
class KeptPeer:
    """A peer that is dialled until it is released.

    Attributes:
        addresses: where to dial it.
        session_id: what hellos tell before there is a session; an answer that was lost finds the same id the
            next time.
        scope: around the task that keeps it connected.
    """

    addresses: tuple[str, ...]
    session_id: int
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    _failures: int = 0
    _moved: trio.Event = field(default_factory=trio.Event)

    def move(self, addresses: tuple[str, ...]) -> None:
        """Take note of other addresses, and dial them soon."""
        self.addresses = addresses
        self._moved.set()

    async def back_off(self, lived_s: float, rng: random.Random) -> None:
        """Wait before the next attempt after one that lived so long, or until the addresses change."""
        if lived_s >= STABLE_S:
            self._failures = 0
            return
        self._failures += 1
        delay_s = min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2 ** min(self._failures, 10))
        with trio.move_on_after(delay_s * rng.uniform(0.5, 1.0)):
            await self._moved.wait()
        self._moved = trio.Event()
