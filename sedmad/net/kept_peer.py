"""A peer that this node wants a session with: where it is, and when to dial it again."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import trio

BACKOFF_S_MIN = 0.25
BACKOFF_S_MAX = 15.0
# While calls wait for a session to go on, and its dials are cut as well.
RESUMING_BACKOFF_S_MAX = 1.0
# A stream that carried the session this long was no failure: connections are cut, and the next one is dialled soon.
CARRIED_S = 0.25
# After one that carried it this long, at once.
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

    async def back_off(self, carried_s: float, rng: random.Random, *, resuming: bool) -> None:
        """Wait before the next attempt, or until the addresses change.

        Args:
            carried_s: how long the last attempt's stream carried the session; 0 where it came to none.
            rng: jitter.
            resuming: whether there is a session that can go on.
        """
        self._failures = 0 if carried_s >= CARRIED_S else self._failures + 1
        if carried_s >= STABLE_S:
            return
        longest_s = RESUMING_BACKOFF_S_MAX if resuming else BACKOFF_S_MAX
        delay_s = min(longest_s, BACKOFF_S_MIN * 2 ** min(self._failures, 10))
        with trio.move_on_after(delay_s * rng.uniform(0.5, 1.0)):
            await self._moved.wait()
        self._moved = trio.Event()
