"""Kernels in threads of their own: results in order, errors to whoever asked, nothing cut short."""

from __future__ import annotations

import gc
import threading

import pytest
import trio

from sedmad.node.compute_threads import ComputeThreads


async def test_results_come_in_the_order_of_the_functions() -> None:
    threads = ComputeThreads(2)
    both = threading.Barrier(2)

    def second_to_end() -> int:
        both.wait(10)
        return 1

    def first_to_end() -> int:
        both.wait(10)
        return 2

    for _ in range(20):
        assert await threads.run([second_to_end, first_to_end]) == [1, 2]
    assert await threads.run([lambda index=index: index for index in range(10)]) == list(range(10))


async def test_an_error_comes_when_all_have_ended_and_the_threads_live_on() -> None:
    threads = ComputeThreads(1)
    ended = []

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await threads.run([fail, lambda: ended.append(True)])
    assert ended
    assert await threads.run([lambda: 3]) == [3]


async def test_a_kernel_that_runs_is_not_cancelled() -> None:
    threads = ComputeThreads(1)
    begun, go_on = threading.Event(), threading.Event()
    results = []

    def kernel() -> int:
        begun.set()
        go_on.wait(10)
        return 4

    async with trio.open_nursery() as nursery:

        async def run() -> None:
            results.extend(await threads.run([kernel]))

        nursery.start_soon(run)
        await trio.to_thread.run_sync(begun.wait, 10)
        nursery.cancel_scope.cancel()
        go_on.set()
    assert results == [4]


async def test_nothing_begins_for_who_is_cancelled() -> None:
    begun = []
    with trio.CancelScope() as scope:
        scope.cancel()
        await ComputeThreads(1).run([lambda: begun.append(True)])
    assert not begun


async def test_threads_end_with_whom_they_work_for() -> None:
    def ours() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name.startswith("sedmad-compute")]

    before = ours()
    threads = ComputeThreads(2)
    await threads.run([lambda: None])
    made = [thread for thread in ours() if thread not in before]
    assert made
    del threads
    gc.collect()
    for thread in made:
        await trio.to_thread.run_sync(thread.join, 10)
        assert not thread.is_alive()
