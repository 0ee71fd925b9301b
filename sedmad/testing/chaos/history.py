"""What happened: faults, products, changes, and everything that should not have happened. Any thread may write."""

from __future__ import annotations

import threading
import time
from array import array
from collections import Counter
from dataclasses import dataclass

from sedmad.errors import SedmadError
from sedmad.testing.chaos.faults import Fault, FaultKind

# Who was hit of late is looked up among this many faults; more are never under way at once.
RECENT_FAULTS = 16
# Failures are counted for ever and told in full up to this many: the first ones say most.
FAILURES_KEPT = 200


@dataclass(slots=True, eq=False)
class Injury:
    """A fault that happened. Times are those of time.monotonic.

    Attributes:
        fault: what happened.
        began_s: when.
        undone_s: when it was undone.
        ended_s: when the nodes that it hit had found back to all others.
    """

    fault: Fault
    began_s: float
    undone_s: float | None = None
    ended_s: float | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that a user would complain about.

    Attributes:
        at_s: seconds after the start.
        what: what was asked of whom.
        message: the answer.
        fault: what was under way then.
    """

    at_s: float
    what: str
    message: str
    fault: str


class Products:
    """Products that one thread was answered rightly, as columns; time.monotonic for times."""

    def __init__(self) -> None:
        self.began_s = array("d")
        self.ended_s = array("d")
        self.entry = array("H")
        self.own_node_hit = array("B")

    def append(self, began_s: float, entry: int, *, own_node_hit: bool) -> None:
        self.began_s.append(began_s)
        self.entry.append(entry)
        self.own_node_hit.append(own_node_hit)
        # Last: whoever counts products while they come looks at this.
        self.ended_s.append(time.monotonic())

    def __len__(self) -> int:
        return len(self.ended_s)


class History:
    """Everything that a run is judged by."""

    def __init__(self) -> None:
        self.started_s = time.monotonic()
        self.ended_s: float | None = None
        self.products: list[Products] = []
        self.injuries: list[Injury] = []
        self.wrong: list[Failure] = []
        self.failed: list[Failure] = []
        self.problems: list[Failure] = []
        self.skipped: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.moves: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def is_clean(self) -> bool:
        return not (self.wrong or self.failed or self.problems)

    def product_count(self) -> int:
        """Return how many products were asked for and came to an end."""
        counts = self.counts
        return sum(map(len, self.products)) + counts["wrong"] + counts["failed"]

    def elapsed_s(self) -> float:
        """Return how long products have been asked for."""
        return (time.monotonic() if self.ended_s is None else self.ended_s) - self.started_s

    def begin(self, fault: Fault) -> Injury:
        """Note that a fault happens now."""
        injury = Injury(fault, time.monotonic())
        with self._lock:
            self.injuries.append(injury)
        return injury

    def hit(self, since_s: float | None = None) -> set[str]:
        """Return the nodes that a fault has under way now, or had at any time since."""
        with self._lock:
            recent = self.injuries[-RECENT_FAULTS:]
        return {
            name
            for injury in recent
            if injury.ended_s is None or (since_s is not None and injury.ended_s >= since_s)
            for name in injury.fault.nodes
        }

    def all_hit(self) -> bool:
        """Return whether the fault under way has hit every node: nobody can answer then."""
        with self._lock:
            return any(
                injury.ended_s is None and injury.fault.kind is FaultKind.OFF
                for injury in self.injuries[-RECENT_FAULTS:]
            )

    def under_way(self, since_s: float | None = None) -> str:
        """Return the faults that are under way now, or were since, as text."""
        with self._lock:
            recent = self.injuries[-RECENT_FAULTS:]
        return ", ".join(
            str(injury.fault)
            for injury in recent
            if injury.ended_s is None or (since_s is not None and injury.ended_s >= since_s)
        )

    def note_wrong(self, what: str, message: str, since_s: float) -> None:
        """Note an answer that is not right."""
        self._note("wrong", self.wrong, what, message, since_s)

    def note_failed(self, what: str, error: SedmadError, since_s: float) -> None:
        """Note an answer that is an error, and should have been none."""
        self._note("failed", self.failed, what, told(error), since_s)

    def note_problem(self, what: str, message: str, since_s: float | None = None) -> None:
        """Note something else that should not be."""
        self._note("problems", self.problems, what, message, since_s)

    def count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1

    def note_refusal(self, what: str, error: SedmadError) -> None:
        """Note a change that was refused while something was broken, as is right."""
        with self._lock:
            self.refusals[f"{what}: {type(error).__name__}"] += 1

    def note_move(self, error: SedmadError) -> None:
        """Note that a client lost its own node and asks another one."""
        with self._lock:
            self.moves[type(error).__name__] += 1

    def _note(self, count: str, kept: list[Failure], what: str, message: str, since_s: float | None) -> None:
        failure = Failure(self.elapsed_s(), what, message, self.under_way(since_s))
        with self._lock:
            self.counts[count] += 1
            if len(kept) < FAILURES_KEPT:
                kept.append(failure)


def told(error: SedmadError) -> str:
    """Return an error on one line."""
    return f"{type(error).__name__}: {error.what}" + (f" ({error.why})" if error.why else "")
