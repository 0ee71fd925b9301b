"""What is made of a history."""

from __future__ import annotations

import numpy as np

from sedmad.testing.chaos.faults import Fault, FaultKind
from sedmad.testing.chaos.figures import Latency, columns, latency, routed_around_s, under_faults
from sedmad.testing.chaos.history import Injury, Products


def products(*rows: tuple[float, float, int, bool]) -> Products:
    """Products that began and ended then, of that entry, at a node that was hit or not."""
    made = Products()
    for began_s, ended_s, entry, own_node_hit in rows:
        made.append(began_s, entry, own_node_hit=own_node_hit)
        made.ended_s[-1] = ended_s
    return made


def injury(began_s: float, ended_s: float | None) -> Injury:
    return Injury(Fault(1, FaultKind.KILL, ("b",), 1.0), began_s, ended_s=ended_s)


def test_a_fault_is_routed_around_when_every_name_has_had_an_answer() -> None:
    first = products((9.0, 12.0, 0, False), (10.5, 11.0, 0, False), (11.5, 14.0, 1, False))
    second = products((10.1, 10.2, 1, True), (10.2, 13.0, 0, False))
    answered = columns([first, second])
    assert routed_around_s(answered, injury(10.0, 20.0), [0]) == 1.0
    assert routed_around_s(answered, injury(10.0, 20.0), [0, 1]) == 4.0
    assert routed_around_s(answered, injury(11.6, 20.0), [0, 1]) is None


def test_products_are_under_a_fault_where_both_were_under_way() -> None:
    answered = columns([products((1, 2, 0, False), (2, 6, 0, False), (5.5, 9, 0, False), (8, 9, 0, False))])
    assert under_faults(answered, [injury(5.0, 7.0)]).tolist() == [False, True, True, False]
    assert under_faults(answered, [injury(5.0, None)]).tolist() == [False, True, True, True]


def test_no_products_have_no_latency() -> None:
    none = columns([])
    assert not under_faults(none, [injury(0.0, None)]).any()
    assert latency(none.ended_s) == Latency(0)
    assert latency(np.array([1.0, 3.0])).slowest_s == 3.0
