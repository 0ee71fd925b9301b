"""What goes wrong: faults in an endless row, drawn from a seed and from nothing else."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

# Below a time-out, about a suspicion, far beyond a death.
STOPS_S = (0.5, 5.0, 30.0)
KILLED_S = (1.0, 20.0)
WIPED_S = (1.0, 20.0)
OFF_S = (0.5, 5.0)
SPLIT_S = (1.0, 30.0)
CUT_S = (0.0, 5.0)
SLOW_DISK_S = (5.0, 20.0)
LONGEST_S = 30.0

Item = TypeVar("Item")


class FaultKind(StrEnum):
    """What may go wrong: `disk` is a kill after which the disk is empty but for who the node is, `off` one of all."""

    KILL = "kill"
    STOP = "stop"
    SPLIT = "split"
    SLOW_DISK = "slow-disk"
    CUT = "cut"
    DISK = "disk"
    OFF = "off"

    @property
    def is_alone(self) -> bool:
        """Whether nothing else may be broken meanwhile, and everything has to be whole before and afterwards."""
        return self in (FaultKind.DISK, FaultKind.OFF)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        number: 1, 2, 3, ...
        kind: what happens.
        nodes: whom it hits; several only where the network splits, and all when power fails.
        duration_s: until what happened is undone. A kill is undone by starting the daemon again.
    """

    number: int
    kind: FaultKind
    nodes: tuple[str, ...]
    duration_s: float

    def __str__(self) -> str:
        names = ", ".join(self.nodes)
        return f"#{self.number} {self.kind} {names} for {self.duration_s:.1f} s"


def plan(
    seed: int,
    kinds: Sequence[FaultKind],
    names: Sequence[str],
    *,
    survive: int,
    everybody: Sequence[str] = (),
    longest_s: float = LONGEST_S,
) -> Iterator[Fault]:
    """Yield faults for ever: every kind as often as the others, and every node, in an order of chance.

    Args:
        seed: the same seed, the same faults.
        kinds: that may happen.
        names: of the nodes that may be hit.
        survive: the most nodes that a split cuts off from the others, or one.
        everybody: the nodes that are off when power fails; `names` where there are no others.
        longest_s: no fault lasts longer.
    """
    rng = random.Random(f"chaos {seed}")  # noqa: S311  (replayable chance is the point)
    kinds_drawn, names_drawn = _in_rounds(rng, kinds), _in_rounds(rng, names)
    for number in itertools.count(1):
        kind = next(kinds_drawn)
        nodes = [next(names_drawn)]
        if kind is FaultKind.SPLIT:
            others = [name for name in names if name not in nodes]
            count = rng.randint(1, min(max(1, survive), len(names)))
            nodes += rng.sample(others, count - 1)
        elif kind is FaultKind.OFF:
            nodes = list(everybody or names)
        yield Fault(number, kind, tuple(sorted(nodes)), min(longest_s, _duration_s(kind, rng)))


def _duration_s(kind: FaultKind, rng: random.Random) -> float:
    match kind:
        case FaultKind.STOP:
            return rng.choice(STOPS_S)
        case FaultKind.KILL:
            return rng.uniform(*KILLED_S)
        case FaultKind.SPLIT:
            return rng.uniform(*SPLIT_S)
        case FaultKind.CUT:
            return rng.uniform(*CUT_S)
        case FaultKind.SLOW_DISK:
            return rng.uniform(*SLOW_DISK_S)
        case FaultKind.DISK:
            return rng.uniform(*WIPED_S)
        case FaultKind.OFF:
            return rng.uniform(*OFF_S)


def _in_rounds(rng: random.Random, items: Sequence[Item]) -> Iterator[Item]:
    """Yield all items in an order of chance, then all of them in another."""
    while True:
        yield from rng.sample(items, len(items))
