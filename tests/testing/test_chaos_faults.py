"""The plan of faults, and the measure of answers."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sedmad.testing.chaos.catalogue import CONTENTS_MAX, Entry
from sedmad.testing.chaos.faults import Fault, FaultKind, plan

NAMES = ("b", "c", "d", "e")


@given(seed=st.integers(0, 2**32), survive=st.integers(0, 3), longest_s=st.floats(0.1, 60.0))
def test_a_seed_is_a_plan(seed: int, survive: int, longest_s: float) -> None:
    kinds = tuple(FaultKind)
    count, everybody = 8 * len(kinds), ("a", *NAMES)

    def drawn() -> list[Fault]:
        faults = plan(seed, kinds, NAMES, survive=survive, everybody=everybody, longest_s=longest_s)
        return list(islice(faults, count))

    faults = drawn()
    assert faults == drawn()
    assert Counter(fault.kind for fault in faults) == dict.fromkeys(kinds, 8)
    for fault in faults:
        assert 0 <= fault.duration_s <= longest_s
        if fault.kind is FaultKind.OFF:
            assert fault.nodes == everybody
            continue
        assert set(fault.nodes) <= set(NAMES)
        assert 1 <= len(set(fault.nodes)) == len(fault.nodes) <= max(1, survive)
        assert len(fault.nodes) == 1 or fault.kind is FaultKind.SPLIT


def test_every_node_is_hit_as_often_as_the_others() -> None:
    faults = islice(plan(5, (FaultKind.KILL,), NAMES, survive=1), 40)
    assert Counter(fault.nodes for fault in faults) == {(name,): 10 for name in NAMES}


@pytest.fixture
def entry() -> Entry:
    return Entry(0, "w", 192, 64, "<f4", np.random.default_rng(0))


def test_right_answers_are_recognised_and_others_are_not(entry: Entry) -> None:
    weights = entry.begin_put()
    for number, question in enumerate(entry.questions):
        y = (weights.T if question.transposed else weights) @ question.x
        assert entry.recognise(y, number, since=0) == 0
        assert entry.recognise(y * np.float32(1.001), number, since=0) is None
        assert entry.recognise(y.astype(np.float64), number, since=0) is None
        assert entry.recognise(y[:-1], number, since=0) is None
        y[0] = np.nan
        assert entry.recognise(y, number, since=0) is None


def test_an_answer_from_what_was_replaced_is_wrong_for_who_has_seen_the_new(entry: Entry) -> None:
    old, x = entry.begin_put(), entry.questions[0].x
    new = entry.begin_put()
    assert entry.recognise(new @ x, 0, since=0) == 1
    assert entry.recognise(old @ x, 0, since=0) == 0
    assert entry.recognise(old @ x, 0, since=1) is None
    for _ in range(CONTENTS_MAX):
        entry.begin_put()
    assert entry.recognise(old @ x, 0, since=0) is None


def test_what_may_be_found_follows_what_was_acknowledged(entry: Entry) -> None:
    def found() -> list[object]:
        return [None if array is None else array.tobytes() for array in entry.expected()]

    assert found() == [None]
    first = entry.begin_put().tobytes()
    assert found() == [None, first]
    entry.end_put()
    assert found() == [first]
    second = entry.begin_put().tobytes()
    assert found() == [first, second]
    entry.begin_removal()
    assert found() == [first, second, None]
    assert entry.may_be_absent()
    entry.end_removal()
    assert found() == [None]
    assert not entry.is_stored
