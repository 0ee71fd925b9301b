"""Coroutines on a core's clock: what a daemon does in tasks, a simulated node does in these, alike for a seed.

Owns the order in which tasks run and wake. Knows no node and no network; nothing here cancels a task: a life that ends
closes all of them.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable
from types import TracebackType
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Outcome(Generic[T]):
    """Something that is going to be known: awaited by any number of tasks; set or failed once, then never again."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._waiting: list[Coroutine[Any, Any, Any]] = []
        self._value: T | None = None
        self._error: BaseException | None = None
        self.done = False

    def set(self, value: T) -> None:
        self._settle(value, None)

    def fail(self, error: BaseException) -> None:
        self._settle(None, error)

    def __await__(self) -> Generator[Outcome[T], None, T]:
        if not self.done:
            yield self
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]

    def wake_up(self, task: Coroutine[Any, Any, Any]) -> None:
        """Have a task go on when this is known."""
        if self.done:
            self._tasks.ready.append(task)
        else:
            self._waiting.append(task)

    def _settle(self, value: T | None, error: BaseException | None) -> None:
        if self.done:
            return
        self.done, self._value, self._error = True, value, error
        self._tasks.ready.extend(self._waiting)
        self._waiting.clear()


class Tasks:
    """The tasks of one life of a node."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.ready: deque[Coroutine[Any, Any, Any]] = deque()
        self._alive: dict[int, Coroutine[Any, Any, Any]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._closed = False

    def spawn(self, task: Coroutine[Any, Any, Any]) -> None:
        """Have a task run from the next `run` on."""
        if self._closed:
            task.close()
            return
        self._alive[id(task)] = task
        self.ready.append(task)

    def call_later(self, delay_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (self.now + delay_s, next(self._order), action))

    async def sleep(self, seconds: float) -> None:
        over: Outcome[None] = Outcome(self)
        self.call_later(seconds, lambda: over.set(None))
        await over

    async def gather(self, work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        """Do all of it side by side, and return the results in order; the first error, once all have ended."""
        outcomes = [self.start(one) for one in work]
        results: list[T] = []
        errors: list[Exception] = []
        for outcome in outcomes:
            try:
                results.append(await outcome)
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return results

    def start(self, work: Coroutine[Any, Any, T]) -> Outcome[T]:
        """Spawn something whose result or error is asked for."""
        outcome: Outcome[T] = Outcome(self)

        async def keep() -> None:
            try:
                outcome.set(await work)
            except Exception as error:
                outcome.fail(error)

        self.spawn(keep())
        return outcome

    def next_timeout(self) -> float | None:
        return self._timers[0][0] if self._timers else None

    def run(self, now: float) -> None:
        """Let time be `now`, and every task go on until all wait."""
        self.now = max(self.now, now)
        while True:
            while self._timers and self._timers[0][0] <= self.now:
                heapq.heappop(self._timers)[2]()
            if not self.ready:
                return
            task = self.ready.popleft()
            try:
                task.send(None).wake_up(task)
            except StopIteration:
                del self._alive[id(task)]

    def close(self) -> None:
        """End a life in the middle of everything."""
        self._closed = True
        alive, self._alive = self._alive, {}
        for task in alive.values():
            task.close()
        # Closing lets others in where one was inside; they are over as well.
        self.ready.clear()
        self._timers.clear()


class Places:
    """So many may be inside at once, `async with`; the others wait in the order in which they came. One is a lock."""

    def __init__(self, tasks: Tasks, count: int = 1) -> None:
        self._tasks = tasks
        self._free = count
        self._queue: deque[Outcome[None]] = deque()

    async def __aenter__(self) -> None:
        if self._free:
            self._free -= 1
            return
        turn: Outcome[None] = Outcome(self._tasks)
        self._queue.append(turn)
        await turn

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._queue:
            self._queue.popleft().set(None)
        else:
            self._free += 1


class Bell:
    """Wakes whoever waits for it, or for the time to be over."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._rung: Outcome[None] = Outcome(tasks)

    def ring(self) -> None:
        self._rung.set(None)

    async def wait(self, seconds: float) -> None:
        rung = self._rung
        self._tasks.call_later(seconds, lambda: rung.set(None))
        await rung
        self._rung = Outcome(self._tasks)
