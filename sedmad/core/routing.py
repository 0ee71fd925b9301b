"""Owns who answers for which partition of a product, and when somebody else is asked too."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sedmad.core.prediction import PeerEstimate, Prediction, Work
from sedmad.errors import HoldersUnreachable

EXPLORATION = 0.01
"""Share of choices made against the prediction: a holder that is never asked is never known to be fast
again."""

LATE_AT_LEAST_S = 0.060
LATE_FACTOR, LATE_MARGIN_S = 1.8, 0.020
"""An answer is late beyond 1.8 times its prediction and 20 ms, but never before 60 ms: a pause of the
interpreter or one lost packet must not double the work."""

HEDGE_SHARE = 0.05
"""Share of requests that may be asked twice for being late: enough for the tail, too little to feed an
overload."""

HEDGE_BURST = 10
"""Late requests in a row that may be asked twice after a quiet time: about one wave of joined products."""

_SHOWN_PARTITIONS = 8  # named in an error: more than a screenful helps nobody


@dataclass(frozen=True, slots=True)
class PartitionCopies:
    """Peer ids of the holders of one partition. A hot partition may have several resident copies."""

    index: int
    resident: tuple[str, ...]
    standby: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """Which partitions each holder is asked for, and when it should have answered."""

    assignments: Mapping[str, tuple[int, ...]]
    predicted_s: Mapping[str, float]
    standby: frozenset[int]
    """Partitions asked of a standby copy: the matrix is degraded."""
    explored: frozenset[int]
    """Partitions whose holder was chosen against the prediction."""


def route(
    partitions: Sequence[PartitionCopies],
    estimates: Mapping[str, PeerEstimate],
    work: Work,
    rng: random.Random,
    *,
    avoid: Collection[str] = (),
    matrix: str = "",
) -> Route:
    """Choose a holder for every partition: the one predicted to answer first among the best kind of copies.

    Kinds, best first: resident or standby copies of live holders, then of suspects, who may only be slow.
    Holders that are dead, unreachable or not in `estimates` are not asked.

    Args:
        work: what is asked for each partition.
        avoid: holders not to ask, because they were asked already or failed.
        matrix: its name, for the error.

    Raises:
        HoldersUnreachable: a partition has no holder to ask; names the partitions and their holders.
    """
    choices = [_choices(copies, estimates, avoid) for copies in partitions]
    if not all(choices):
        lost = [copies for copies, holders in zip(partitions, choices, strict=True) if not holders]
        raise _unreachable(lost, len(partitions), estimates, avoid, matrix)
    predictions = {
        peer_id: estimates[peer_id].predict(work)
        for peer_id in {peer_id for holders in choices for peer_id in holders}
    }
    assigned: dict[str, list[int]] = {}
    explored = set()
    # Partitions without a choice go first, so that the others see the load they make.
    for position in sorted(range(len(partitions)), key=lambda position: len(choices[position]) > 1):
        index, holders = partitions[position].index, choices[position]
        best = _first_to_answer(holders, predictions, assigned)
        if len(holders) > 1 and rng.random() < EXPLORATION:
            best = rng.choice([holder for holder in holders if holder != best])
            explored.add(index)
        assigned.setdefault(best, []).append(index)
    standby = {
        copies.index
        for copies, holders in zip(partitions, choices, strict=True)
        if holders[0] not in copies.resident
    }
    return Route(
        assignments={peer_id: tuple(sorted(indexes)) for peer_id, indexes in assigned.items()},
        predicted_s={
            peer_id: predictions[peer_id].seconds(len(indexes)) for peer_id, indexes in assigned.items()
        },
        standby=frozenset(standby),
        explored=frozenset(explored),
    )


def late_after_s(predicted_s: float) -> float:
    """Return after how many seconds an answer predicted in `predicted_s` is late."""
    return max(LATE_AT_LEAST_S, LATE_FACTOR * predicted_s + LATE_MARGIN_S)


class HedgeBudget:
    """Limits how many late requests are asked twice to a share of all requests.

    Only lateness is limited. A request whose holder is lost must be asked elsewhere, and costs nothing here.
    """

    def __init__(self) -> None:
        self._tokens = 1.0  # the very first request may be a late one

    def earn(self) -> None:
        """Count one request."""
        self._tokens = min(HEDGE_BURST, self._tokens + HEDGE_SHARE)

    def spend(self) -> bool:
        """Return whether a late request may be asked twice now, and count it if so."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


def _choices(
    copies: PartitionCopies, estimates: Mapping[str, PeerEstimate], avoid: Collection[str]
) -> tuple[str, ...]:
    """Return the holders of the best kind that has any; none of them is better than another by kind."""
    for state in ("alive", "suspect"):
        for holders in (copies.resident, copies.standby):
            found = tuple(
                peer_id
                for peer_id in holders
                if peer_id not in avoid and peer_id in estimates and estimates[peer_id].state == state
            )
            if found:
                return found
    return ()


def _first_to_answer(
    holders: Sequence[str], predictions: Mapping[str, Prediction], assigned: Mapping[str, Sequence[int]]
) -> str:
    return min(holders, key=lambda peer_id: predictions[peer_id].seconds(len(assigned.get(peer_id, ())) + 1))


def _unreachable(
    lost: Sequence[PartitionCopies],
    count: int,
    estimates: Mapping[str, PeerEstimate],
    avoid: Collection[str],
    matrix: str,
) -> HoldersUnreachable:
    def describe(peer_id: str) -> str:
        estimate = estimates.get(peer_id)
        if estimate is None:
            return f"{peer_id} (unknown)"
        return f"{estimate.name or peer_id} ({'gave no answer' if peer_id in avoid else estimate.state})"

    shown = [
        f"partition {copies.index} is on {', '.join(map(describe, (*copies.resident, *copies.standby)))}"
        for copies in lost[:_SHOWN_PARTITIONS]
    ]
    if len(lost) > _SHOWN_PARTITIONS:
        shown.append(f"and {len(lost) - _SHOWN_PARTITIONS} more")
    return HoldersUnreachable(
        f"{len(lost)} of {count} partitions have no holder that can be asked",
        why="; ".join(shown),
        matrix=matrix,
    )
