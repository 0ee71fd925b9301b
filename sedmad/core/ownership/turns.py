"""When each matrix's turn comes: a heap with lazy deletion, so that tens of thousands cost nothing while they wait."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Hashable

STALE_ENTRIES = 1_024  # more of them than this, and than live ones, and the heap is built anew


class Turns:
    """At most one turn for each matrix."""

    def __init__(self) -> None:
        self._due: dict[Hashable, float] = {}
        self._heap: list[tuple[float, bytes, Hashable]] = []

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._due

    def set(self, key: Hashable, at: float) -> None:
        """Give a matrix its turn at this time, instead of any other."""
        if self._due.get(key) != at:
            self._due[key] = at
            heapq.heappush(self._heap, (at, digest_of(key), key))
            self._tidy()

    def bring_forward(self, key: Hashable, at: float) -> None:
        """Let a matrix that waits for its turn have it at this time already."""
        if at < self._due.get(key, at):
            self.set(key, at)

    def drop(self, key: Hashable) -> None:
        self._due.pop(key, None)
        self._tidy()

    def pop(self, now: float) -> Hashable | None:
        """Return the next matrix whose turn has come, which it then had; None if there is none."""
        if not self._heap or self._heap[0][0] > now:
            return None
        _, _, key = heapq.heappop(self._heap)
        del self._due[key]
        self._tidy()
        return key

    def next_at(self) -> float | None:
        return self._heap[0][0] if self._heap else None

    def _tidy(self) -> None:
        """Keep a live entry on top, and stale ones from piling up."""
        if len(self._heap) > 2 * len(self._due) + STALE_ENTRIES:
            self._heap = [entry for entry in self._heap if self._due.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)


def digest_of(key: Hashable) -> bytes:
    """Return eight bytes that are alike for the same matrix on all nodes."""
    return hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
