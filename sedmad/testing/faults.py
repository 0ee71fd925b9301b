"""Everything that can go wrong, as numbers: one dataclass, drawn from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

SplitKind = Literal["none", "one", "halves", "random"]


@dataclass(frozen=True, slots=True)
class Faults:
    """The faults of one run. The defaults are a good network on a good day.

    Attributes:
        loss: share of messages lost.
        duplication: share of messages delivered twice.
        delay_mean_s: mean of the exponential delay on top of `delay_minimum_s`.
        reordering: share of messages that wait up to ten times as long as others.
        clog_per_s: how often, per second, some direction between two nodes stops for up to `clog_maximum_s`;
            what is sent meanwhile arrives afterwards.
        split: who is cut off when the network splits, every `split_every_s` on average.
        split_one_way: the cut lets messages through in one direction.
        crash_every_s: mean time between crashes of any node; 0 is never. Crashed nodes restart after a while.
        disk_lost: share of restarts that remember nothing but the boot counter.
        pause_every_s: mean time between stops (as by SIGSTOP) of any node; 0 is never.
        clock_skew_s: clocks are wrong by up to this, either way.
        write_every_s: mean time between claims published by any node; 0 is never.
        duration_s: how long all this goes on.
    """

    loss: float = 0.0
    duplication: float = 0.0
    delay_minimum_s: float = 0.0005
    delay_mean_s: float = 0.002
    reordering: float = 0.0
    clog_per_s: float = 0.0
    clog_maximum_s: float = 5.0
    split: SplitKind = "none"
    split_one_way: bool = False
    split_every_s: float = 20.0
    split_seconds: float = 10.0
    crash_every_s: float = 0.0
    down_maximum_s: float = 30.0
    disk_lost: float = 0.0
    pause_every_s: float = 0.0
    pause_maximum_s: float = 10.0
    clock_skew_s: float = 0.0
    write_every_s: float = 0.0
    duration_s: float = 0.0

    @classmethod
    def draw(cls, rng: random.Random) -> Faults:
        """Draw a day with some of the faults.

        Each kind is present half of the time, so that runs differ in kind and not only in degree (swarm
        testing: Groce et al., ISSTA 2012); rates are drawn so that small ones are as likely as large ones.
        """

        def sometimes(most: float) -> float:
            return most * rng.random() ** 2 if rng.random() < 0.5 else 0.0

        def every(soonest_s: float, latest_s: float) -> float:
            return rng.uniform(soonest_s, latest_s) if rng.random() < 0.5 else 0.0

        return cls(
            loss=sometimes(0.3),
            duplication=sometimes(0.5),
            delay_mean_s=0.001 * 500 ** rng.random() if rng.random() < 0.5 else 0.002,
            reordering=sometimes(0.1),
            clog_per_s=sometimes(0.5),
            split=rng.choice(("none", "one", "halves", "random")),
            split_one_way=rng.random() < 0.25,
            split_every_s=rng.uniform(5.0, 30.0),
            split_seconds=rng.uniform(1.0, 30.0),
            crash_every_s=every(5.0, 60.0),
            disk_lost=rng.choice((0.0, 0.3, 1.0)),
            pause_every_s=every(5.0, 60.0),
            pause_maximum_s=rng.uniform(0.5, 30.0),
            clock_skew_s=sometimes(30.0),
            write_every_s=rng.uniform(0.5, 10.0),
            duration_s=rng.uniform(10.0, 30.0),
        )

    def calm(self) -> Faults:
        """Return the day after: nothing goes wrong any more, and clocks stay as wrong as they are."""
        return Faults(clock_skew_s=self.clock_skew_s)
