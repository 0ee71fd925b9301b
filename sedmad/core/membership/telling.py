"""What leaves this node: news, promised records, and everything else, all under one byte budget."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence

from sedmad.core.membership.budget import ByteBudget
from sedmad.core.membership.messages import Gossip, Message
from sedmad.core.membership.record import Locator, SignedRecord
from sedmad.core.membership.rumour import Rumour
from sedmad.core.membership.settings import MembershipSettings
from sedmad.core.membership.spreading import ENVELOPE_BYTES, News, Spreading, Urgency
from sedmad.core.membership.transfers import Transfers

SizeOf = Callable[[Message | News], int]

BARE_MESSAGE_BYTES = 64  # ids, a round-trip time, and the frame around them


class Telling:
    """Decides what goes into messages and whether there is room for them.

    Args:
        find: returns the present record at a place, or None if there is none any more.
    """

    def __init__(
        self,
        settings: MembershipSettings,
        size_of: SizeOf,
        find: Callable[[Locator], SignedRecord | None],
        now: float,
    ) -> None:
        self._settings = settings
        self._size_of = size_of
        self._find = find
        self._budget = ByteBudget(settings.bytes_per_second, now)
        self._transfers = Transfers()
        self._push_at: float | None = None
        self._pushed_at = float("-inf")
        self._messages: list[tuple[str, Message]] = []
        self.spreading = Spreading(size_of)

    def send(self, peer_id: str, message: Message, now: float) -> bool:
        """Send unless the budget is spent to the last byte; True if it was sent."""
        if not self._budget.spend(self._size_of(message), now):
            return False
        self._messages.append((peer_id, message))
        return True

    def send_if_room(self, peer_id: str, message: Message, now: float) -> bool:
        """Send if that leaves enough of the budget for heartbeats; True if it was sent."""
        return self._size_of(message) <= self._budget.gossip_bytes(now) and self.send(peer_id, message, now)

    def collect(self) -> tuple[tuple[str, Message], ...]:
        messages, self._messages = tuple(self._messages), []
        return messages

    def spread(self, news: News, urgency: Urgency, known_by: Collection[str], now: float) -> None:
        """Tell everybody, at once if it is urgent, and those in `known_by` not at all."""
        self.spreading.add(news, urgency, known_by)
        if urgency is not Urgency.ROUTINE:
            self._push_later(now)

    def promise(self, peer_id: str, locators: Sequence[Locator], now: float) -> None:
        """Send this peer these records as soon as the budget allows."""
        for locator in locators:
            self._transfers.add(peer_id, locator)
        if len(self._transfers):
            self._push_later(now)

    def cancel(self, peer_id: str) -> None:
        """Drop what was promised to a peer that went away."""
        self._transfers.cancel(peer_id)

    def news_for(
        self, peer_id: str, members: int, now: float, first: Sequence[News] = ()
    ) -> tuple[tuple[SignedRecord, ...], tuple[Rumour, ...]]:
        """Return the records and rumours for a message; `first` are those this very peer must hear."""
        room_bytes = self._room_bytes(now)
        news: list[News] = []
        for item in first:
            room_bytes -= self._size_of(item) + ENVELOPE_BYTES
            if room_bytes >= 0:
                news.append(item)
                self.spreading.heard_from(peer_id, item)
        news += self.spreading.take(peer_id, room_bytes, self._settings.retransmissions(members))
        records = tuple(item for item in news if isinstance(item, SignedRecord))
        rumours = tuple(item for item in news if isinstance(item, Rumour))
        return records, rumours

    def push(self, neighbours: Collection[str], rng: random.Random, now: float) -> None:
        """Send what does not wait for a probe, if its time has come."""
        if self._push_at is None or self._push_at > now:
            return
        self._pushed_at, self._push_at = now, None
        self._push_news(neighbours, rng, now)
        self._push_transfers(now)

    def next_timeout(self) -> float | None:
        return self._push_at

    def _push_news(self, neighbours: Collection[str], rng: random.Random, now: float) -> None:
        untold = sorted(peer_id for peer_id in neighbours if self.spreading.urgent_for(peer_id))
        for peer_id in rng.sample(untold, min(self._settings.gossip_fanout, len(untold))):
            records, rumours = self.news_for(peer_id, len(neighbours) + 1, now)
            if records or rumours:
                self.send(peer_id, Gossip(records, rumours), now)
        if untold:
            self._push_later(now)

    def _push_transfers(self, now: float) -> None:
        for peer_id in self._transfers.peers():
            records: list[SignedRecord] = []
            room_bytes = self._room_bytes(now)
            while (locator := self._transfers.next_for(peer_id)) is not None:
                record = self._find(locator)
                if record is not None:
                    room_bytes -= self._size_of(record) + ENVELOPE_BYTES
                    if room_bytes < 0:
                        break
                    records.append(record)
                self._transfers.done(peer_id, locator)
            if records:
                self.send(peer_id, Gossip(tuple(records), repair=True), now)
        if len(self._transfers):
            self._push_later(now)

    def _room_bytes(self, now: float) -> int:
        room_bytes = min(self._settings.message_bytes_maximum, self._budget.gossip_bytes(now))
        return max(0, room_bytes - BARE_MESSAGE_BYTES)

    def _push_later(self, now: float) -> None:
        if self._push_at is None:
            self._push_at = max(now, self._pushed_at + self._settings.gossip_interval_s)
