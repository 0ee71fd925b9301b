"""Figures of a run out of its history; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sedmad.testing.chaos.faults import FaultKind
from sedmad.testing.chaos.history import Injury, Products

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Latency:
    """How long products took, in seconds; None where there were none."""

    count: int
    p50_s: float | None = None
    p99_s: float | None = None
    slowest_s: float | None = None


@dataclass(frozen=True, slots=True)
class Columns:
    """All products of all threads: when each began and ended, which name, and whether the own node was hit."""

    began_s: Floats
    ended_s: Floats
    entry: npt.NDArray[np.uint16]
    own_node_hit: npt.NDArray[np.bool_]


def columns(products: Sequence[Products]) -> Columns:
    """Return the products of all threads together."""
    return Columns(
        _joined([np.asarray(each.began_s, np.float64) for each in products]),
        _joined([np.asarray(each.ended_s, np.float64) for each in products]),
        _joined([np.asarray(each.entry, np.uint16) for each in products]).astype(np.uint16),
        _joined([np.asarray(each.own_node_hit, np.bool_) for each in products]).astype(np.bool_),
    )


def under_faults(products: Columns, injuries: Sequence[Injury]) -> npt.NDArray[np.bool_]:
    """Return which products were under way while a fault was, the time until all nodes were back included."""
    touched = np.zeros(len(products.began_s), np.bool_)
    for injury in injuries:
        ended_s = np.inf if injury.ended_s is None else injury.ended_s
        touched |= (products.ended_s >= injury.began_s) & (products.began_s <= ended_s)
    return touched


def latency(took_s: Floats) -> Latency:
    """Return percentiles of durations."""
    if not len(took_s):
        return Latency(0)
    p50_s, p99_s = np.percentile(took_s, (50, 99))
    return Latency(len(took_s), float(p50_s), float(p99_s), float(took_s.max()))


def routed_around_s(products: Columns, injury: Injury, entries: Iterable[int]) -> float | None:
    """Return the seconds from a fault until each of some names had a right product that was asked for after it.

    Products of clients whose own node was hit do not count, unless all nodes were: they waited until these were back.

    Returns:
        None where one of the names had none until the end of the run.
    """
    counted = ~products.own_node_hit | (injury.fault.kind is FaultKind.OFF)
    later = (products.began_s >= injury.began_s) & counted
    longest_s = 0.0
    for entry in entries:
        ended_s = products.ended_s[later & (products.entry == entry)]
        if not len(ended_s):
            return None
        longest_s = max(longest_s, float(ended_s.min()) - injury.began_s)
    return longest_s


def _joined(arrays: Sequence[npt.NDArray[np.generic]]) -> Floats:
    return np.concatenate([np.zeros(0), *arrays])
