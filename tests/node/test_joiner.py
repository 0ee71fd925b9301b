from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from sedmad.errors import DeadlineExceeded, HoldersUnreachable, LocalError, Overloaded
from sedmad.node.joiner import Joiner


class Work:
    """Runs what is asked; each run ends when the test says so."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, list[str], float]] = []
        self.ends: list[trio.Event] = []
        self.error: BaseException | None = None

    async def run(self, task: str, items: list[str], deadline: float) -> list[str]:
        self.runs.append((task, items, deadline))
        end = trio.Event()
        self.ends.append(end)
        await end.wait()
        if self.error is not None:
            raise self.error
        return [item.upper() for item in items]


class Setup:
    def __init__(self, nursery: trio.Nursery, work: Work, joiner: Joiner[str, str, str]) -> None:
        self.nursery, self.work, self.joiner = nursery, work, joiner
        self.outcomes: dict[str, Any] = {}

    def ask(self, item: str, task: str = "w", columns: int = 1, patience_s: float = 30) -> trio.CancelScope:
        scope = trio.CancelScope()

        async def ask() -> None:
            with scope:
                try:
                    deadline = trio.current_time() + patience_s
                    self.outcomes[item] = await self.joiner.ask(task, item, columns, deadline)
                except Exception as error:
                    self.outcomes[item] = error

        self.nursery.start_soon(ask)
        return scope

    async def settle(self) -> None:
        await trio.testing.wait_all_tasks_blocked()


@pytest.fixture
async def joined(nursery: trio.Nursery) -> Setup:
    work = Work()
    joiner: Joiner[str, str, str] = Joiner(work.run, lambda task: 4, lambda task: 1)
    await nursery.start(joiner.serve)
    return Setup(nursery, work, joiner)


async def test_a_lone_product_waits_for_nobody(joined: Setup, autojump_clock: object) -> None:
    joined.ask("a")
    began = trio.current_time()
    await joined.settle()
    assert [items for _, items, _ in joined.work.runs] == [["a"]]
    assert trio.current_time() == began
    joined.work.ends[0].set()
    await joined.settle()
    assert joined.outcomes == {"a": "A"}


async def test_what_waits_while_others_run_is_joined_up_to_the_bound(
    joined: Setup, autojump_clock: object
) -> None:
    for item in "abcdef":
        joined.ask(item)
        await joined.settle()
    assert [items for _, items, _ in joined.work.runs] == [["a"]]
    joined.work.ends[0].set()
    await joined.settle()
    assert [items for _, items, _ in joined.work.runs] == [["a"], ["b", "c", "d", "e"]]
    joined.work.ends[1].set()
    await joined.settle()
    joined.work.ends[2].set()
    await joined.settle()
    assert joined.outcomes == {item: item.upper() for item in "abcdef"}


async def test_different_tasks_are_not_joined(joined: Setup, autojump_clock: object) -> None:
    joined.ask("a", task="w")
    joined.ask("b", task="v")
    await joined.settle()
    assert sorted(task for task, _, _ in joined.work.runs) == ["v", "w"]


async def test_each_product_keeps_its_own_deadline(joined: Setup, autojump_clock: object) -> None:
    joined.ask("a", patience_s=60)
    await joined.settle()
    joined.ask("b", patience_s=1)
    joined.ask("c", patience_s=60)
    await trio.sleep(2)
    assert isinstance(joined.outcomes["b"], DeadlineExceeded)
    joined.work.ends[0].set()
    await joined.settle()
    assert joined.work.runs[1][1] == ["c"]
    joined.work.ends[1].set()
    await joined.settle()
    assert joined.outcomes["c"] == "C"


async def test_a_joined_product_runs_until_its_last_deadline(joined: Setup, autojump_clock: object) -> None:
    joined.ask("a")
    await joined.settle()
    now = trio.current_time()
    joined.ask("b", patience_s=1)
    joined.ask("c", patience_s=9)
    await joined.settle()
    joined.work.ends[0].set()
    await joined.settle()
    assert joined.work.runs[1][2] == now + 9
    await trio.sleep(2)
    assert isinstance(joined.outcomes["b"], DeadlineExceeded)
    joined.work.ends[1].set()
    await joined.settle()
    assert joined.outcomes["c"] == "C"


async def test_who_leaves_leaves_the_others_alone(joined: Setup, autojump_clock: object) -> None:
    joined.ask("a")
    await joined.settle()
    leaving = joined.ask("b")
    joined.ask("c")
    await joined.settle()
    leaving.cancel()
    await joined.settle()
    joined.work.ends[0].set()
    await joined.settle()
    assert joined.work.runs[1][1] == ["c"]
    joined.work.ends[1].set()
    await joined.settle()
    assert joined.outcomes == {"a": "A", "c": "C"}


async def test_an_error_reaches_all_of_them_each_its_own(joined: Setup, autojump_clock: object) -> None:
    joined.ask("a")
    await joined.settle()
    joined.ask("b")
    joined.ask("c")
    await joined.settle()
    joined.work.error = HoldersUnreachable("nobody answers", why="ben is dead", node="ben")
    joined.work.ends[0].set()
    await joined.settle()
    joined.work.ends[1].set()
    await joined.settle()
    errors = list(joined.outcomes.values())
    assert [(type(error), error.why, error.node) for error in errors] == [
        (HoldersUnreachable, "ben is dead", "ben")
    ] * 3
    assert len({id(error) for error in errors}) == 3


async def test_a_bug_is_told_and_ends_nothing_else(joined: Setup, autojump_clock: object) -> None:
    joined.work.error = ZeroDivisionError("a bug")
    joined.ask("a")
    await joined.settle()
    joined.work.ends[0].set()
    await joined.settle()
    assert isinstance(joined.outcomes["a"], LocalError)
    assert "a bug" in joined.outcomes["a"].why
    joined.work.error = None
    joined.ask("b")
    await joined.settle()
    joined.work.ends[1].set()
    await joined.settle()
    assert joined.outcomes["b"] == "B"


async def test_too_much_waiting_is_refused_at_once(joined: Setup, autojump_clock: object) -> None:
    joined.ask("a")
    await joined.settle()
    for number in range(64):
        joined.ask(f"full {number}", columns=64)
    await joined.settle()
    joined.ask("one more")
    await joined.settle()
    assert isinstance(joined.outcomes["one more"], Overloaded)


async def test_a_deadline_already_past_is_refused_at_once(joined: Setup, autojump_clock: object) -> None:
    joined.ask("a", patience_s=0)
    await joined.settle()
    assert isinstance(joined.outcomes["a"], DeadlineExceeded)
    assert not joined.work.runs
