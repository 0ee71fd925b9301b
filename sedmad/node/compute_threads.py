"""Threads that run kernels, and nothing else.

With trio's own, kernels side by side take a task and a wake-up of the event loop each; these wake it once for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import trio

Result = TypeVar("Result")


class ComputeThreads:
    """Runs functions side by side.

    Args:
        count: threads; one for each core, as BLAS runs on one in each of them.
    """

    def __init__(self, count: int) -> None:
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="sedmad-compute")

    async def run(self, functions: Sequence[Callable[[], Result]]) -> list[Result]:
        """Return what the functions return, in their order. Kernels are short: they are not cancelled.

        Raises:
            Exception: what the first of them raised, once all have ended.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        token, task = trio.lowlevel.current_trio_token(), trio.lowlevel.current_task()
        missing = len(functions)

        def ended(future: Future[Result]) -> None:
            token.run_sync_soon(count_down)

        def count_down() -> None:
            nonlocal missing
            missing -= 1
            if not missing:
                trio.lowlevel.reschedule(task)

        running = [self._threads.submit(function) for function in functions]
        for future in running:
            future.add_done_callback(ended)
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
        return [future.result() for future in running]
