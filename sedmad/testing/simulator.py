"""A world with a clock of its own: a heap of things to come, the same every time for the same seed."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable

TRACE_LINES = 20_000  # the last ones are what explains a failure; a long run would fill memory with the rest


class Simulator:
    """Runs actions in the order of their times; those of one instant in the order of asking.

    >>> simulator = Simulator(seed=1)
    >>> simulator.call_later(2.0, lambda: print("two"))
    >>> simulator.call_later(1.0, lambda: print("one"))
    >>> simulator.run_for(5.0)
    one
    two
    >>> simulator.now
    5.0
    """

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.rng = random.Random(seed)  # noqa: S311  (replayable chance is the point)
        self.trace: deque[tuple[float, str]] = deque(maxlen=TRACE_LINES)
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.actions_run = 0

    def call_at(self, time_s: float, action: Callable[[], None]) -> None:
        """Run `action` at `time_s`; right after the present action if that is past."""
        heapq.heappush(self._heap, (max(time_s, self.now), next(self._order), action))

    def call_later(self, delay_s: float, action: Callable[[], None]) -> None:
        self.call_at(self.now + delay_s, action)

    def run_for(self, seconds: float) -> None:
        """Let this much time pass."""
        self.run_until(self.now + seconds)

    def run_until(self, time_s: float) -> None:
        """Let time pass up to and including `time_s`."""
        while self._heap and self._heap[0][0] <= time_s:
            self.now, _, action = heapq.heappop(self._heap)
            self.actions_run += 1
            action()
        self.now = max(self.now, time_s)

    def note(self, text: str) -> None:
        """Write a line into the trace."""
        self.trace.append((self.now, text))

    def story(self, lines: int = TRACE_LINES) -> str:
        """Return the last lines of the trace, each with its time in seconds."""
        last = list(self.trace)[-lines:]
        return "\n".join(f"{time_s:9.3f}  {text}" for time_s, text in last)
