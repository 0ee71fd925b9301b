"""Products that wait are run together: the core decides which (core/joining.py), this gives it tasks and a clock."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from typing import TYPE_CHECKING, Generic, TypeVar

import structlog
import trio

from sedmad.core.joining import RUNNING_MAX, JoinQueue, Waiting
from sedmad.errors import DeadlineExceeded, LocalError, SedmadError
from sedmad.node.clock import monotonic_s

if TYPE_CHECKING:
    # libp2p brings stubs that hide trio's own types, this one among them.
    from trio_typing import TaskStatus

log = structlog.get_logger("sedmad.node")

Task = TypeVar("Task", bound=Hashable)
Item = TypeVar("Item")
Result = TypeVar("Result")


class _Slot(Generic[Item, Result]):
    """One product that waits, and its outcome."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.done = trio.Event()
        self.result: Result | None = None
        self.error: SedmadError | None = None


class Joiner(Generic[Task, Item, Result]):
    """Joins what is asked of the same task while others of it run.

    Args:
        run: runs a task on several items at once and returns a result for each, in order.
        columns_max: columns that may be joined for a task.
        running_max: returns how often a task may run at once, 1 or 2 now; more of it waits, and is joined.
    """

    def __init__(
        self,
        run: Callable[[Task, list[Item], float], Awaitable[list[Result]]],
        columns_max: Callable[[Task], int],
        running_max: Callable[[Task], int],
    ) -> None:
        self._run = run
        self._columns_max = columns_max
        self._running_max = running_max
        # Batches that run or are about to; only tasks that have one.
        self._running: Counter[Task] = Counter()
        self._queue: JoinQueue[Task, _Slot[Item, Result]] = JoinQueue(running_max=RUNNING_MAX)
        self._ids = itertools.count(1)
        self._nursery: trio.Nursery | None = None

    @property
    def busy(self) -> bool:
        """Whether anything runs, or is about to."""
        return bool(self._running)

    async def serve(self, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run joined products until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    async def ask(self, task: Task, item: Item, columns: int, deadline: float) -> Result:
        """Run a task on an item, together with others that wait.

        Raises:
            DeadlineExceeded: the deadline came first; the others go on.
            Overloaded: too much waits already.
        """
        slot: _Slot[Item, Result] = _Slot(item)
        request_id = next(self._ids)
        self._queue.add(task, Waiting(request_id, columns, deadline, slot), monotonic_s())
        self._start(task)
        try:
            with trio.CancelScope(deadline=deadline) as scope:
                await slot.done.wait()
        finally:
            if not slot.done.is_set():
                self._queue.withdraw(request_id)
        if scope.cancelled_caught:
            raise DeadlineExceeded("the product was not done in time")
        if slot.error is not None:
            raise slot.error
        assert slot.result is not None
        return slot.result

    def _start(self, task: Task) -> None:
        assert self._nursery is not None
        if self._running[task] < self._running_max(task):
            self._running[task] += 1
            self._nursery.start_soon(self._run_batches, task)

    async def _run_batches(self, task: Task) -> None:
        """Run what waits, joined, until nothing does.

        A batch is taken when this task's turn comes, so that requests which arrived with the first one belong to it.
        """
        try:
            while batch := self._queue.take(task, self._columns_max(task), monotonic_s()):
                await self._run_batch(task, batch)
        finally:
            self._running[task] -= 1
            if not self._running[task]:
                del self._running[task]

    async def _run_batch(self, task: Task, batch: list[Waiting[_Slot[Item, Result]]]) -> None:
        slots = [waiting.item for waiting in batch]
        deadline = max(waiting.deadline for waiting in batch)
        try:
            results = await self._run(task, [slot.item for slot in slots], deadline)
            for slot, result in zip(slots, results, strict=True):
                slot.result = result
        except SedmadError as error:
            for slot in slots:
                # Each task raises an error of its own: tracebacks grow on what is raised, and each names its matrix.
                slot.error = copy.copy(error)
        except Exception as error:
            log.exception("joined_product_failed")
            for slot in slots:
                slot.error = LocalError("the product failed", why=f"{type(error).__name__}: {error}")
        finally:
            for slot in slots:
                slot.done.set()
            self._queue.done(task)
