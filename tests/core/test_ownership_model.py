"""Explores small instances of the ownership protocol to the end, and shows that what breaks it is found."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sedmad.core.ownership import Promise, Refusal, Standing, rules
from sedmad.core.ownership.election import Election
from sedmad.testing import guardian as guardian_module
from sedmad.testing.guardian import Guardian
from sedmad.testing.ownership_model import LARGE, SMALL, Instance, explore

STATES_MAXIMUM = 300_000  # some 130 MiB
EXPLORED = {
    "an owner that writes": 12_235,
    "owners after owners": 19_300,
    "other guardians": 27_343,
    "five guardians": 7_725,
    "a voter's core hears late": 1_208,
    "a candidate's core hears late": 3_704,
}


@pytest.mark.parametrize("name", SMALL)
def test_nothing_established_is_ever_lost(name: str) -> None:
    explored = explore(SMALL[name], STATES_MAXIMUM)
    assert not explored.fault, explored
    # A change here is fine if it is meant; an instance that shrinks by itself no longer tests what it did.
    assert explored.states == EXPLORED[name]


Break = Callable[[pytest.MonkeyPatch], None]


def forget_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Votes leave before they are on disk."""
    monkeypatch.setattr(Guardian, "_promise", lambda self, vote: True)


def accept_old_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guardians go on to take manifests of an owner whom they voted out."""

    def forgetful(promised: Promise | None, kept: Standing | None, offered: Standing) -> Refusal | None:
        return rules.accepts(None, kept, offered)

    monkeypatch.setattr(guardian_module, "accepts", forgetful)


def count_a_vote_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    def carried(election: Election) -> bool:
        return 2 * (len(election.votes()) + 2) > len(election.newest.guardians)

    monkeypatch.setattr(Election, "carried", property(carried))


def ask_the_wrong_guardians(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those whom the newest manifest names decide, though it may not be established."""

    def carried(election: Election) -> bool:
        voters = {vote.promise.guardian for vote in election.votes()} | {election.candidate}
        return rules.is_majority(voters, election.newest.guardians)

    monkeypatch.setattr(Election, "carried", property(carried))


def adopt_the_own_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Winners write on after what they keep themselves, and not after the newest that the votes showed."""
    monkeypatch.setattr(Election, "learn", lambda election, standing: False)


def vote_for_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two candidates get a vote for the same epoch."""
    monkeypatch.setattr(rules, "_outdated", lambda promised, epoch, candidate: epoch < promised.epoch)


def vote_with_old_knowledge(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was stored while a vote was made up is missing in it."""
    monkeypatch.setattr(guardian_module, "may_promise", lambda promised, kept, vote: None)


def establish_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner holds a manifest for established that it keeps alone."""
    monkeypatch.setattr(guardian_module, "has_majorities", lambda votes, standing: True)


@pytest.mark.parametrize(
    ("defect", "instance"),
    [
        (forget_promises, SMALL["an owner that writes"]),
        (accept_old_epochs, SMALL["an owner that writes"]),
        (count_a_vote_twice, SMALL["an owner that writes"]),
        (ask_the_wrong_guardians, LARGE["all guardians but the owner change"]),
        (adopt_the_own_manifest, SMALL["an owner that writes"]),
        (vote_for_everybody, SMALL["five guardians"]),
        (vote_with_old_knowledge, SMALL["a voter's core hears late"]),
        (vote_with_old_knowledge, SMALL["a candidate's core hears late"]),
        (establish_alone, SMALL["an owner that writes"]),
    ],
)
def test_a_defect_is_found(defect: Break, instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    defect(monkeypatch)
    explored = explore(instance, STATES_MAXIMUM)
    print(explored)
    assert explored.fault
    assert explored.steps
