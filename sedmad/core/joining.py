"""Owns the queue in which products of one matrix wait and are joined into a wider panel.

One column is bound by memory: 24 joined take about as long as five alone. Nothing waits for company, though: while a
panel travels or is computed, the products that come in meanwhile become the next one. So panels grow with the load and
a lone product is not delayed. The same queue serves the asking node and the holder.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sedmad.core.partitioning import PANEL_LIMIT_COLUMNS
from sedmad.errors import DeadlineExceeded, LocalError, Overloaded

WAITING_COLUMNS_MAX = 4096
"""Columns that wait on one node, over all matrices: 64 full panels, about as much as is served within a deadline."""

RUNNING_MAX = 2
"""Joined products of one key that run at once: one is computed while the other travels. More would only split the same
columns into narrower panels, with fewer either the processor or the network would pause."""

_BUSY_RETRY_S = 0.1  # by then some panels are done

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Waiting(Generic[Item]):
    """A product that waits: `columns` of X, with `deadline` on the clock of `now`, and whatever the caller keeps."""

    request_id: Hashable
    columns: int
    deadline: float
    item: Item


@dataclass(slots=True)
class _Line(Generic[Item]):
    waiting: deque[Waiting[Item]] = field(default_factory=deque)
    running: int = 0


class JoinQueue(Generic[Key, Item]):
    """Products that wait, first come first served for each key: a matrix and whether the product is transposed."""

    def __init__(
        self, *, waiting_columns_max: int = WAITING_COLUMNS_MAX, running_max: int = RUNNING_MAX
    ) -> None:
        self._waiting_columns_max = waiting_columns_max
        self._running_max = running_max
        self._lines: dict[Key, _Line[Item]] = {}  # only keys that wait or run: both are bounded
        self._waiting_columns = 0

    @property
    def waiting_columns(self) -> int:
        """Columns that wait, over all keys."""
        return self._waiting_columns

    def add(self, key: Key, waiting: Waiting[Item], now: float) -> None:
        """Let a product wait; then `take` may have a panel.

        Raises:
            Overloaded: too many columns wait already.
            DeadlineExceeded: its deadline is over before it starts.
            LocalError: no columns, or more than fit any panel: the caller splits those.
        """
        if not 1 <= waiting.columns <= PANEL_LIMIT_COLUMNS:
            raise LocalError(
                "a product of this width cannot wait",
                why=f"{waiting.columns} columns, 1 to {PANEL_LIMIT_COLUMNS} are possible",
            )
        if waiting.deadline <= now:
            raise DeadlineExceeded("the product's deadline was over before it started")
        if self._waiting_columns + waiting.columns > self._waiting_columns_max:
            raise Overloaded(
                "too many products wait on this node",
                why=f"{self._waiting_columns} columns wait, at most {self._waiting_columns_max} may",
                retry_after_s=_BUSY_RETRY_S,
            )
        self._lines.setdefault(key, _Line()).waiting.append(waiting)
        self._waiting_columns += waiting.columns

    def take(self, key: Key, max_columns: int, now: float) -> list[Waiting[Item]]:
        """Return the products to join and run now, oldest first, or nothing if enough of this key run already.

        The panel has at most `max_columns` columns (and never more than 64), except that a single product which is
        wider by itself is returned alone. Products whose deadline is over stay for `expire`. Follow a panel with
        exactly one `done`.
        """
        line = self._lines.get(key)
        if line is None or line.running >= self._running_max:
            return []
        limit = min(max_columns, PANEL_LIMIT_COLUMNS)
        panel: list[Waiting[Item]] = []
        expired: list[Waiting[Item]] = []
        columns = 0
        while line.waiting:
            first = line.waiting[0]
            if first.deadline <= now:
                expired.append(line.waiting.popleft())
            elif not panel or columns + first.columns <= limit:
                panel.append(line.waiting.popleft())
                columns += first.columns
            else:
                break  # a narrower one further back must not overtake
        line.waiting.extendleft(reversed(expired))
        line.running += bool(panel)
        self._waiting_columns -= columns
        return panel

    def done(self, key: Key) -> None:
        """Count a panel of `key` as no longer running; then `take` may have the next one.

        Raises:
            LocalError: none runs.
        """
        line = self._lines.get(key)
        if line is None or not line.running:
            raise LocalError("only a joined product that runs can be done", why=f"key {key!r}")
        line.running -= 1
        self._drop_if_idle(key, line)

    def expire(self, now: float) -> list[Waiting[Item]]:
        """Remove and return the waiting products whose deadline is over; their company stays."""
        return self._remove(lambda waiting: waiting.deadline <= now)

    def withdraw(self, request_id: Hashable) -> list[Waiting[Item]]:
        """Remove and return the waiting products of one request, because nobody wants its answer any more."""
        return self._remove(lambda waiting: waiting.request_id == request_id)

    def next_timeout(self) -> float | None:
        """Return when `expire` will have something to do, None if nothing waits. Looks at all that wait."""
        deadlines = (waiting.deadline for line in self._lines.values() for waiting in line.waiting)
        return min(deadlines, default=None)

    def _remove(self, unwanted: Callable[[Waiting[Item]], bool]) -> list[Waiting[Item]]:
        removed: list[Waiting[Item]] = []
        for key, line in list(self._lines.items()):
            found = [waiting for waiting in line.waiting if unwanted(waiting)]
            if found:
                removed += found
                line.waiting = deque(waiting for waiting in line.waiting if not unwanted(waiting))
                self._drop_if_idle(key, line)
        self._waiting_columns -= sum(waiting.columns for waiting in removed)
        return removed

    def _drop_if_idle(self, key: Key, line: _Line[Item]) -> None:
        if not line.running and not line.waiting:
            del self._lines[key]
