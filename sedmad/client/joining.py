"""Products of several threads with the same matrix: what waits while one is under way leaves as one panel.

One thread at a time asks, for itself and for those that wait; nobody waits for company. A daemon joins what its clients
ask anyway; joined here already, 24 products cost it one request.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

from sedmad.errors import SedmadError
from sedmad.wire.messages import ApplyMatrixResponse

if TYPE_CHECKING:
    import numpy.typing as npt

# A product in more of a hurry goes alone: joined ones share the earliest deadline among them.
JOINABLE_S_MIN = 5.0

# (panel of X, deadline, whether to explain) -> (panel of Y, what the daemon told)
Ask = Callable[["npt.NDArray[Any]", float, bool], "tuple[npt.NDArray[Any], ApplyMatrixResponse]"]


class _Waiting:
    """A product of one thread. `turn` is free once there is an outcome, or when the thread shall ask for others."""

    __slots__ = ("deadline", "error", "explain", "leads", "response", "turn", "x", "y")

    def __init__(self, x: npt.NDArray[Any], deadline: float, explain: bool) -> None:
        self.x = x
        self.deadline = deadline
        self.explain = explain
        self.y: npt.NDArray[Any] | None = None
        self.response: ApplyMatrixResponse | None = None
        self.error: SedmadError | None = None
        self.leads = False
        self.turn = threading.Lock()
        self.turn.acquire()


class ProductJoiner:
    """The products under way over one connection."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # What waits behind the panel that is under way, by what may be joined; as many as there are threads.
        self._lines: dict[Hashable, deque[_Waiting]] = {}

    def run(
        self, key: Hashable, x: npt.NDArray[Any], columns_max: int, deadline: float, explain: bool, ask: Ask
    ) -> tuple[npt.NDArray[Any], ApplyMatrixResponse]:
        """Return a product, computed together with others of the same key that wait.

        Args:
            key: products with the same one may be joined.
            x: (columns, n), at most `columns_max` columns.
            deadline: on the clock of time.monotonic.
            ask: computes a panel of at most `columns_max` columns.

        Raises:
            SedmadError: what `ask` raised for this product alone, or for all when the deadline is over.
        """
        if deadline - time.monotonic() < JOINABLE_S_MIN:
            return ask(x, deadline, explain)
        own = _Waiting(x, deadline, explain)
        with self._lock:
            line = self._lines.get(key)
            own.leads = line is None
            if line is None:
                self._lines[key] = deque()
            else:
                line.append(own)
        if own.leads or self._wait(key, own):
            self._lead(key, own, columns_max, ask)
        if own.response is not None and own.y is not None:
            return own.y, own.response
        if own.error is not None and deadline <= time.monotonic():
            raise own.error
        # What went wrong may be the matter of one of those that were joined: each finds out for itself.
        return ask(x, deadline, explain)

    def _wait(self, key: Hashable, own: _Waiting) -> bool:
        """Wait for an outcome, the lead, or the deadline; return whether it is the lead."""
        try:
            remaining_s = own.deadline - time.monotonic()
            own.turn.acquire(timeout=max(0.0, min(remaining_s, threading.TIMEOUT_MAX)))
        except BaseException:
            if self._withdraw(key, own):
                self._pass_on(key)
            raise
        return self._withdraw(key, own)

    def _withdraw(self, key: Hashable, own: _Waiting) -> bool:
        """Let a product wait no more; return whether its thread has the lead."""
        with self._lock:
            line = self._lines.get(key)
            if line and own in line:
                line.remove(own)
            return own.leads

    def _lead(self, key: Hashable, own: _Waiting, columns_max: int, ask: Ask) -> None:
        """Ask for this product and those that wait, tell them, and pass on the lead."""
        joined, line = [own], self._lines[key]
        try:
            # Threads that are ready to run go first, as those that were just answered are: they wait for nothing, and
            # neither does this one.
            seen = -1
            while seen < len(line) < columns_max:
                seen = len(line)
                time.sleep(0)
            with self._lock:
                columns = len(own.x)
                while line and columns + len(line[0].x) <= columns_max:
                    joined.append(line.popleft())
                    columns += len(joined[-1].x)
            _ask_for(joined, ask)
        finally:
            for waiting in joined[1:]:
                waiting.turn.release()
            # Last: those who were told come back with their next products before the next panel is taken.
            self._pass_on(key)

    def _pass_on(self, key: Hashable) -> None:
        with self._lock:
            line = self._lines[key]
            if not line:
                del self._lines[key]
                return
            leader = line.popleft()
            leader.leads = True
        leader.turn.release()


def _ask_for(joined: list[_Waiting], ask: Ask) -> None:
    import numpy as np

    x = joined[0].x if len(joined) == 1 else np.concatenate([waiting.x for waiting in joined])
    try:
        y, response = ask(
            x, min(waiting.deadline for waiting in joined), any(waiting.explain for waiting in joined)
        )
    except SedmadError as error:
        if len(joined) == 1:
            raise
        for waiting in joined:
            waiting.error = copy.copy(error)
        return
    start = 0
    for waiting in joined:
        stop = start + len(waiting.x)
        # A copy: a part would keep the whole panel in memory for as long as somebody has it.
        waiting.y = y if len(joined) == 1 else y[start:stop].copy()
        waiting.response = response
        start = stop
