"""What arrived for one reader, in order."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

import trio

from sedmad.errors import ProtocolViolation
from sedmad.wire.calls import EVENTS_MAX

Item = TypeVar("Item")


class Inbox(Generic[Item]):
    """Things that wait for one task, which takes what is there without giving up its turn."""

    def __init__(self) -> None:
        self._waiting: deque[Item] = deque()
        self._reader = trio.lowlevel.ParkingLot()

    def put(self, item: Item) -> None:
        """Add the last thing that may come: it is let in whatever waits."""
        self._waiting.append(item)
        self._reader.unpark()

    def put_one_of_many(self, item: Item) -> None:
        """Add one of any number of things.

        Raises:
            ProtocolViolation: more waits than anybody may send. Credit bounds payload; this bounds the frames.
        """
        if len(self._waiting) >= EVENTS_MAX:
            raise ProtocolViolation(
                "the peer sent more than may wait", why=f"{EVENTS_MAX} frames of one call"
            )
        self.put(item)

    async def take(self) -> Item:
        """Return the oldest thing, once there is one."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._waiting:
            await self._reader.park()
        return self._waiting.popleft()
