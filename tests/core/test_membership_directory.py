"""The directory of names: alike on every node, whatever the order in which claims arrive."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sedmad.core.membership.claim import TOMBSTONE_LIFETIME_S, Claim, short_id
from sedmad.core.membership.directory import MAX_AUTHORS_PER_NAME, Directory
from sedmad.core.membership.record import SignedRecord
from sedmad.errors import InsufficientCapacity

AUTHORS = ["anna", "bert", "carl", "dora", "emil", "frida"]


def signed(claim: Claim) -> SignedRecord:
    return SignedRecord(claim, repr(claim).encode())


def draft(author: str, name: str = "w") -> Claim:
    return Claim(name, 0, bytes(32), first_owner=author, owner=author)


def write(directory: Directory, author: str, name: str = "w") -> Claim:
    claim = directory.next_version(draft(author, name))
    assert directory.accept(signed(claim)) is not None
    return claim


def sync(source: Directory, target: Directory) -> None:
    for record in list(source.records()):
        target.accept(record)


def content(directory: Directory) -> tuple[object, object]:
    return set(directory.records()), list(directory.entries())


def test_a_name_stands_for_its_newest_version() -> None:
    directory = Directory()
    first = write(directory, "anna")
    second = write(directory, "bert")
    assert (first.version, second.version) == (1, 2)
    assert second.clock > first.clock
    assert directory.get("w") == second
    assert list(directory.entries()) == [("w", second)]


def test_claims_of_both_sides_of_a_split_stay_reachable() -> None:
    here, there = Directory(), Directory()
    ours, theirs = write(here, "anna"), write(there, "bert")
    sync(here, there)
    sync(there, here)
    assert content(here) == content(there)
    assert here.get("w") == theirs
    assert here.get("w@anna") == here.get("w@a") == ours
    assert here.get("w@bert") == theirs
    assert here.get("w@zoe") is None
    assert [name for name, _ in here.entries()] == ["w", "w@anna"]


def test_a_successor_replaces_the_winner_and_leaves_the_conflict() -> None:
    directory = Directory()
    other = Directory()
    write(other, "bert")
    loser = write(directory, "anna")
    sync(other, directory)
    successor = write(directory, "carl")
    assert dict(successor.ancestors) == {short_id("bert"): 1}
    assert directory.get("w") == successor
    assert directory.get("w@bert") is None
    assert directory.get("w@anna") == loser


def test_an_old_ancestor_that_comes_back_is_history() -> None:
    directory, stale = Directory(), Directory()
    write(directory, "anna")
    sync(directory, stale)
    write(directory, "bert")
    newest = write(directory, "carl")
    fresh = Directory()
    fresh.accept(signed(newest))
    sync(stale, fresh)
    assert list(fresh.entries()) == [("w", newest)]


def test_removal_takes_its_own_claim_away_only() -> None:
    here, there = Directory(), Directory()
    loser, winner = write(here, "anna"), write(there, "bert")
    sync(there, here)
    here.accept(signed(loser.tombstone(5.0)))
    assert here.get("w") == winner
    assert here.get("w@anna") is None
    here.accept(signed(winner.tombstone(6.0)))
    assert here.get("w") is None
    assert list(here.entries()) == []
    assert write(here, "carl").version == 2


def test_ownership_passes_on_without_becoming_a_conflict() -> None:
    directory = Directory()
    claim = write(directory, "anna")
    passed_on = replace(claim, owner="bert", epoch=1, seq=0)
    directory.accept(signed(passed_on))
    directory.accept(signed(replace(claim, seq=7)))
    assert list(directory.entries()) == [("w", passed_on)]


def test_a_loser_stays_reachable_when_the_winners_owner_takes_it_over() -> None:
    here, there = Directory(), Directory()
    loser = write(here, "anna")
    winner = write(there, "bert")
    sync(there, here)
    passed_on = replace(loser, owner="bert", epoch=1, seq=2)
    here.accept(signed(passed_on))
    assert here.get("w") == here.get("w@bert") == winner
    assert here.get("w@anna") == passed_on
    assert [name for name, _ in here.entries()] == ["w", "w@anna"]


def test_what_was_replaced_is_told_whoever_owns_it_by_then() -> None:
    directory = Directory()
    first = write(directory, "anna")
    passed_on = replace(first, owner="bert", epoch=1, seq=2)
    directory.accept(signed(passed_on))
    assert directory.replaced("w") == []
    write(directory, "carl")
    assert directory.replaced("w") == [passed_on]
    directory.accept(signed(passed_on.tombstone(0.0)))
    assert directory.replaced("w") == []


def test_an_ambiguous_owner_prefix_finds_nothing() -> None:
    directories = [Directory() for _ in range(3)]
    for directory, author in zip(directories, ["12D3a", "12D3b", "zoe"], strict=True):
        write(directory, author)
        sync(directory, directories[0])
    assert directories[0].get("w@12D3") is None
    assert directories[0].get("w@12D3a") is not None


def test_one_name_too_many_is_refused() -> None:
    directory = Directory(names_maximum=2)
    write(directory, "anna", "one")
    write(directory, "anna", "two")
    write(directory, "bert", "two")
    with pytest.raises(InsufficientCapacity, match="three"):
        directory.next_version(draft("anna", "three"))
    assert directory.accept(signed(replace(draft("anna", "three"), version=1))) is None
    assert len(directory) == 2


def test_only_the_greatest_claims_of_a_name_are_kept() -> None:
    directory = Directory()
    claims = []
    for author in AUTHORS[: MAX_AUTHORS_PER_NAME + 1]:
        alone = Directory()
        claims.append(signed(write(alone, author)))
    for claim in claims[:-1]:
        assert directory.accept(claim) is not None
    accepted = directory.accept(claims[-1])
    assert accepted is not None
    assert accepted.evicted == (claims[0],)
    assert directory.accept(claims[0]) is None


def test_tombstones_are_dropped_after_ninety_days() -> None:
    directory = Directory()
    claim = write(directory, "anna")
    directory.accept(signed(claim.tombstone(1_000.0)))
    write(directory, "bert", "kept")
    assert directory.drop_old_tombstones(1_000.0 + TOMBSTONE_LIFETIME_S) == []
    assert len(directory.drop_old_tombstones(1_001.0 + TOMBSTONE_LIFETIME_S)) == 1
    assert [name for name, _ in directory.entries()] == ["kept"]


claims = st.builds(
    Claim,
    name=st.sampled_from(["w", "v"]),
    version=st.integers(1, 3),
    matrix_digest=st.sampled_from([bytes(32), b"\1" * 32]),
    first_owner=st.sampled_from(AUTHORS),
    owner=st.sampled_from(AUTHORS),
    epoch=st.integers(0, 1),
    seq=st.integers(0, 1),
    clock=st.integers(0, 2),
    ancestors=st.lists(st.tuples(st.sampled_from(AUTHORS).map(short_id), st.integers(1, 3)), max_size=3).map(
        tuple
    ),
    removed=st.booleans(),
)


@given(st.lists(claims, max_size=20), st.randoms(use_true_random=False))
def test_order_and_repetition_make_no_difference(told: list[Claim], rng: object) -> None:
    one, other = Directory(), Directory()
    for claim in told:
        one.accept(signed(claim))
    again = [*told, *told]
    rng.shuffle(again)  # type: ignore[attr-defined]
    for claim in again:
        other.accept(signed(claim))
    assert content(one) == content(other)


@given(st.lists(claims, max_size=10), st.lists(claims, max_size=10), st.lists(claims, max_size=10))
def test_merging_is_associative(first: list[Claim], second: list[Claim], third: list[Claim]) -> None:
    parts = []
    for told in (first, second, third):
        directory = Directory()
        for claim in told:
            directory.accept(signed(claim))
        parts.append(directory)
    left, right, second_and_third = Directory(), Directory(), Directory()
    for part in parts:
        sync(part, left)
    sync(parts[1], second_and_third)
    sync(parts[2], second_and_third)
    sync(second_and_third, right)
    sync(parts[0], right)
    assert content(left) == content(right)


class Replicas(RuleBasedStateMachine):
    """Three nodes that write, remove and hear of each other in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.replicas = {author: Directory() for author in AUTHORS[:3]}

    @rule(author=st.sampled_from(AUTHORS[:3]), name=st.sampled_from(["w", "v"]))
    def write(self, author: str, name: str) -> None:
        claim = write(self.replicas[author], author, name)
        assert self.replicas[author].get(name) == claim

    @rule(author=st.sampled_from(AUTHORS[:3]), name=st.sampled_from(["w", "v"]))
    def remove(self, author: str, name: str) -> None:
        record = self.replicas[author].find(name, author)
        if record is not None and isinstance(record.record, Claim):
            self.replicas[author].accept(signed(record.record.tombstone(1.0)))

    @rule(source=st.sampled_from(AUTHORS[:3]), listener=st.sampled_from(AUTHORS[:3]))
    def hear(self, source: str, listener: str) -> None:
        sync(self.replicas[source], self.replicas[listener])

    @invariant()
    def names_are_unambiguous(self) -> None:
        for directory in self.replicas.values():
            listed = dict(directory.entries())
            assert len(listed) == len(list(directory.entries()))
            assert all(directory.get(name) == claim for name, claim in listed.items())

    def teardown(self) -> None:
        meeting = Directory()
        for directory in self.replicas.values():
            sync(directory, meeting)
        for directory in self.replicas.values():
            sync(meeting, directory)
            assert content(directory) == content(meeting)


TestReplicas = Replicas.TestCase
TestReplicas.settings = settings(max_examples=60, stateful_step_count=20)
