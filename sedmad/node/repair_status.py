"""What the repair of this node's matrices is at, for people."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RepairReport:
    """One matrix of ours that is under repair, or waits for something.

    Attributes:
        names: what it is stored as.
        partitions, made_bytes, step_bytes: of the present step: how many change, and of the bytes that have to travel
            those that are safe, and all; 0 where it waits.
        waiting_for: why it is not whole yet, in lines; empty while it is under repair.
    """

    names: tuple[str, ...]
    partitions: int = 0
    made_bytes: int = 0
    step_bytes: int = 0
    waiting_for: str = ""


@dataclass(frozen=True, slots=True)
class RepairStatus:
    """All that is to be said of repairs.

    Attributes:
        restored_bytes: what travelled in steps that came to their end since this node started.
        waited_for: names of nodes that are dead and whose copies are not made again yet, as they may come back.
    """

    under_repair: tuple[RepairReport, ...]
    waiting: tuple[RepairReport, ...]
    restored_bytes: int
    waited_for: tuple[str, ...]
