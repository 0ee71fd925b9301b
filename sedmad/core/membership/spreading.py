"""News still to be told: a bounded queue, deaths and names first, each told a bounded number of times."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, field
from enum import IntEnum

from sedmad.core.membership.record import SignedRecord
from sedmad.core.membership.rumour import Rumour

# A mesh of thousands restarting at once makes a few thousand pieces; what does not fit is found by
# anti-entropy.
MAX_NEWS = 4096
# A record or rumour inside a message costs a tag and a length beyond its own bytes.
ENVELOPE_BYTES = 8

News = SignedRecord | Rumour


class Urgency(IntEnum):
    """The order in which news is told. What is not ROUTINE does not wait for the next probe."""

    RUMOUR = 0
    NAME = 1
    ROUTINE = 2


@dataclass(slots=True)
class _Piece:
    news: News
    size_bytes: int
    times_told: int = 0
    known_by: set[str] = field(default_factory=set)


class Spreading:
    """The queue of news of one node.

    Args:
        size_of: bytes that a record or rumour takes on the wire.
    """

    def __init__(self, size_of: Callable[[News], int]) -> None:
        self._size_of = size_of
        # Per urgency in the order of telling: what was just told goes to the end.
        self._queues: dict[Urgency, dict[Hashable, _Piece]] = {urgency: {} for urgency in Urgency}

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def add(self, news: News, urgency: Urgency, known_by: Collection[str] = ()) -> None:
        """Queue news, in place of older news of the same subject; those in `known_by` need not be told."""
        subject = _subject(news)
        for queue in self._queues.values():
            queue.pop(subject, None)
        if len(self) >= MAX_NEWS:
            self._drop_least_urgent()
        self._queues[urgency][subject] = _Piece(
            news, self._size_of(news) + ENVELOPE_BYTES, known_by=set(known_by)
        )

    def heard_from(self, peer_id: str, news: News) -> None:
        """Note that a peer knows this very piece already."""
        for queue in self._queues.values():
            piece = queue.get(_subject(news))
            if piece is not None and piece.news == news:
                piece.known_by.add(peer_id)

    def settle(self, peer_id: str, sequence: int) -> None:
        """Drop what was said against a peer's adverts older than `sequence`."""
        queue = self._queues[Urgency.RUMOUR]
        for subject, piece in list(queue.items()):
            news = piece.news
            if isinstance(news, Rumour) and news.peer_id == peer_id and news.sequence < sequence:
                del queue[subject]

    def urgent_for(self, peer_id: str) -> bool:
        """Say whether there is news that should reach this peer before the next probe does."""
        return any(
            peer_id not in piece.known_by
            for urgency in (Urgency.RUMOUR, Urgency.NAME)
            for piece in self._queues[urgency].values()
        )

    def take(self, peer_id: str, room_bytes: int, times_maximum: int) -> list[News]:
        """Return what to tell this peer in a message with `room_bytes` to spare, and count it as told.

        A piece that has been told `times_maximum` times is dropped.
        """
        taken: list[News] = []
        for queue in self._queues.values():
            told: list[Hashable] = []
            for subject, piece in queue.items():
                if peer_id in piece.known_by or piece.size_bytes > room_bytes:
                    continue
                room_bytes -= piece.size_bytes
                taken.append(piece.news)
                told.append(subject)
            for subject in told:
                piece = queue.pop(subject)
                piece.known_by.add(peer_id)
                piece.times_told += 1
                if piece.times_told < times_maximum:
                    queue[subject] = piece
        return taken

    def drop_known_by_all(self, audience: Collection[str]) -> None:
        """Drop what everybody in `audience` knows; called now and then, as peers come and go."""
        for queue in self._queues.values():
            for subject, piece in list(queue.items()):
                if piece.known_by.issuperset(audience):
                    del queue[subject]

    def _drop_least_urgent(self) -> None:
        for urgency in reversed(Urgency):
            queue = self._queues[urgency]
            if queue:
                del queue[max(queue, key=lambda subject: queue[subject].times_told)]
                return


def _subject(news: News) -> Hashable:
    if isinstance(news, SignedRecord):
        return news.locator
    # Every accuser counts, so each suspicion is a piece of its own; one word of a death is enough.
    return ("suspect", news.peer_id, news.by) if news.kind == "suspect" else ("dead", news.peer_id)
