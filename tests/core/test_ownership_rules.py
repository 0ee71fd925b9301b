"""The pure rules of ownership."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sedmad.core.ownership import (
    Promise,
    Refusal,
    Standing,
    Vote,
    accepts,
    has_majorities,
    is_majority,
    may_promise,
)
from sedmad.core.ownership.rules import refuses_vote
from sedmad.errors import LocalError

PEERS = ["a", "b", "c", "d", "e", "f", "g"]
KEPT = Standing("w", "a", ("a", "b", "c"), 3, 7, manifest="kept")
peers = st.sampled_from(PEERS)
electorates = st.lists(peers, min_size=1, max_size=5, unique=True).map(tuple)
standings = st.builds(
    Standing,
    key=st.just("w"),
    owner=peers,
    guardians=electorates,
    epoch=st.integers(0, 4),
    seq=st.integers(0, 4),
    before=st.just(()) | electorates,
    established=st.booleans(),
)
promises = st.builds(Promise, st.just("w"), st.integers(0, 5), peers, st.just("g"))


@pytest.mark.parametrize(
    ("votes", "guardians", "most"),
    [
        (["a"], ["a"], True),
        (["a"], ["a", "b"], False),
        (["a", "b"], ["a", "b", "c"], True),
        (["a", "a"], ["a", "b", "c"], False),
        (["a", "x", "y"], ["a", "b", "c"], False),
        (["a", "b"], ["a", "b", "c", "d"], False),
        ([], [], False),
    ],
)
def test_majorities(votes: list[str], guardians: list[str], most: bool) -> None:
    assert is_majority(votes, guardians) is most


def test_changed_guardians_need_both_majorities_until_they_are_established() -> None:
    changed = Standing("w", "a", ("a", "d", "e"), 0, 1, before=("a", "b", "c"))
    assert not has_majorities({"d", "e"}, changed)
    assert not has_majorities({"a", "b"}, changed)
    assert has_majorities({"b", "c", "d", "e"}, changed)
    assert has_majorities({"d", "e"}, replace(changed, established=True))


@given(standings, st.sets(peers), st.sets(peers))
def test_two_majorities_of_one_standing_meet(standing: Standing, one: set[str], other: set[str]) -> None:
    if has_majorities(one, standing) and has_majorities(other, standing):
        assert one & other


@given(standings, electorates, st.sets(peers), st.sets(peers))
def test_whoever_elects_meets_whoever_establishes_the_next(
    standing: Standing, guardians: tuple[str, ...], electing: set[str], establishing: set[str]
) -> None:
    """Across a change of guardians too, as long as its predecessor is established."""
    standing = replace(standing, established=True)
    following = standing.succeeded_by(standing.owner, standing.epoch, guardians=guardians)
    if has_majorities(electing, standing) and has_majorities(establishing, following):
        assert electing & establishing


@pytest.mark.parametrize(
    ("offered", "promised", "refusal"),
    [
        (replace(KEPT, seq=8), None, None),
        (KEPT, None, None),
        (replace(KEPT, manifest=None), None, None),
        (replace(KEPT, manifest="another"), None, Refusal.CONTRADICTED),
        (replace(KEPT, owner="b"), None, Refusal.CONTRADICTED),
        (replace(KEPT, seq=6), None, Refusal.NOT_NEWER),
        (replace(KEPT, epoch=2, seq=9), None, Refusal.NOT_NEWER),
        (replace(KEPT, seq=8), (4, "b"), Refusal.PROMISED),
        (replace(KEPT, seq=8), (3, "a"), None),
        (replace(KEPT, epoch=4, seq=8, owner="b"), (4, "b"), None),
        (replace(KEPT, epoch=4, seq=8, owner="c"), (4, "b"), Refusal.PROMISED),
        (replace(KEPT, epoch=5, seq=8, owner="c"), (4, "b"), None),
        (replace(KEPT, seq=8, established=True), (4, "b"), None),
        (replace(KEPT, seq=6, established=True), (4, "b"), Refusal.NOT_NEWER),
    ],
)
def test_what_a_guardian_keeps(
    offered: Standing, promised: tuple[int, str] | None, refusal: Refusal | None
) -> None:
    promise = Promise("w", *promised, guardian="g") if promised else None
    assert accepts(promise, KEPT, offered) is refusal


@given(st.none() | promises, st.none() | standings, standings)
def test_what_is_kept_never_grows_older(
    promised: Promise | None, kept: Standing | None, offered: Standing
) -> None:
    if accepts(promised, kept, offered) is None:
        assert kept is None or offered.order >= kept.order
        if promised is not None and not offered.established:
            assert offered.epoch >= promised.epoch


@given(promises, st.none() | standings, peers, st.integers(0, 5), st.booleans())
def test_a_vote_binds_more_and_never_less(
    promised: Promise, kept: Standing | None, candidate: str, epoch: int, owner_answers: bool
) -> None:
    refusal = refuses_vote(
        candidate, epoch, guardian="g", promised=promised, kept=kept, owner_answers=owner_answers
    )
    if refusal is None:
        assert kept is not None
        assert "g" in kept.electors
        assert (epoch, candidate) == (promised.epoch, promised.candidate) or epoch > promised.epoch
        assert epoch > kept.epoch
        vote = Vote(Promise("w", epoch, candidate, "g"), b"", kept)
        assert may_promise(promised, kept, vote) is None
        assert accepts(vote.promise, None, replace(kept, established=False)) is Refusal.PROMISED


def test_a_vote_is_not_given_once_something_newer_is_kept() -> None:
    vote = Vote(Promise("w", 4, "b", "g"), b"", KEPT)
    assert may_promise(None, KEPT, vote) is None
    assert may_promise(None, replace(KEPT, established=True), vote) is None
    assert may_promise(None, replace(KEPT, seq=8), vote) is Refusal.NOT_NEWER
    assert may_promise(Promise("w", 4, "c", "g"), KEPT, vote) is Refusal.PROMISED
    assert may_promise(Promise("w", 4, "b", "g"), KEPT, vote) is None


def test_guardians_change_only_after_an_established_manifest() -> None:
    established = replace(KEPT, established=True)
    changed = established.succeeded_by("a", 3, guardians=("a", "d", "e"), manifest="changed")
    assert (changed.order, changed.before, changed.established) == ((3, 8), ("a", "b", "c"), False)
    assert changed.electors == frozenset("abcde")
    passed_on = changed.succeeded_by("d", 4)
    assert (passed_on.order, passed_on.guardians, passed_on.before) == (
        (4, 9),
        ("a", "d", "e"),
        ("a", "b", "c"),
    )
    assert replace(passed_on, established=True).succeeded_by("d", 4).before == ()
    with pytest.raises(LocalError, match="guardians"):
        changed.succeeded_by("a", 3, guardians=("a", "b", "c"))
