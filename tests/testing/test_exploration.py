"""The explorer, on systems small enough to count by hand."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import pytest

from sedmad.testing.exploration import Exploration, Sent, clone, freeze


@dataclass
class Counter:
    name: str
    heard: int = 0


class Counting:
    """`a` may send two numbers; `b` adds up what it hears, up to three, and the watcher minds some sums."""

    nodes = ("a", "b")

    def __init__(self, minded: int = -1, *, fleeting: bool = False) -> None:
        self.minded = minded
        self.is_fleeting = fleeting

    def start(self, node: str) -> Counter:
        return Counter(node)

    def watcher(self) -> list[int]:
        return []

    def choices(self, node: Counter) -> Sequence[Hashable]:
        return ["one", "two"] if node.name == "a" else []

    def happen(self, node: Counter, choice: Hashable) -> Counter:
        self.sending = [Sent("a", "b", 1 if choice == "one" else 2)]
        return node

    def receive(self, node: Counter, sent: Sent) -> None:
        node.heard = min(node.heard + sent.message, 3)
        self.sending = []

    def outcome(self, node: Counter) -> tuple[list[Sent], list[int]]:
        return self.sending, [node.heard] if node.name == "b" else []

    def watch(self, watcher: list[int], news: Sequence[int]) -> str:
        return f"the sum is {self.minded}" if self.minded in news else ""

    def fleeting(self, sent: Sent) -> bool:
        return self.is_fleeting

    def spent(self, node: Counter, sent: Sent) -> bool:
        return False


def test_all_states_are_found() -> None:
    # Nothing sent: 0. One sent: 0 to 3. Two sent: 0, 2, 3. Both: 0 to 3.
    assert Exploration(Counting()).run().states == 1 + 4 + 3 + 4
    # Nothing is ever on the network: 0 to 3.
    assert Exploration(Counting(fleeting=True)).run().states == 4


def test_the_first_fault_has_the_shortest_story() -> None:
    explored = Exploration(Counting(minded=3)).run()
    assert explored.fault == "the sum is 3"
    assert [step.split(":")[0] for step in explored.steps] == ["a", "b", "b"]
    assert "the sum is 3" in str(explored)


def test_more_states_than_allowed_are_refused() -> None:
    with pytest.raises(MemoryError, match="more than 5 states"):
        Exploration(Counting(), states_maximum=5).run()


@dataclass(frozen=True)
class Value:
    number: int


@dataclass
class Everything:
    value: Value = field(default_factory=lambda: Value(1))
    numbers: list[int] = field(default_factory=lambda: [1, 2])
    names: set[str] = field(default_factory=lambda: {"a"})
    waiting: deque[int] = field(default_factory=deque)
    nested: dict[str, Counter] = field(default_factory=lambda: {"x": Counter("x")})
    chance: random.Random = field(default_factory=lambda: random.Random(1))


def test_a_copy_is_equal_and_apart() -> None:
    one = Everything()
    other = clone(one)
    assert freeze(one) == freeze(other)
    assert other.value is one.value
    for change in (
        lambda: other.numbers.append(3),
        lambda: other.names.add("b"),
        lambda: other.waiting.append(1),
        lambda: setattr(other.nested["x"], "heard", 1),
    ):
        before = freeze(other)
        change()
        assert freeze(other) != before
    assert freeze(one) == freeze(Everything())
