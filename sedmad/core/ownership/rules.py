"""The rules of ownership, pure: what a guardian may keep, what it may promise, and what is a majority.

This is Paxos (Lamport, The Part-Time Parliament, 1998), one instance per matrix, whose ballots are epochs and
whose value is the line of manifests; changes of guardians follow Raft's joint majorities (Ongaro and
Ousterhout, 2014, section 6). What makes it safe:

- a promise and what its guardian keeps are read and written as one, so that a later winner hears of every
  manifest that the guardian kept before, and the guardian keeps none afterwards;
- any majority that elects meets any majority that establishes, in the guardians of the last established
  manifest; a manifest that changes the guardians needs both majorities until it is established itself.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum

from sedmad.core.ownership.standing import Promise, Standing, Vote


class Refusal(Enum):
    """Why a guardian does not do what it is asked for."""

    OWNER_ALIVE = "the owner answers here"
    PROMISED = "this epoch or a later one is promised to another"
    NOT_GUARDIAN = "not a guardian of this matrix"
    NOT_NEWER = "what is kept is newer"
    CONTRADICTED = "another manifest of the same order is kept"


def is_majority(votes: Collection[str], guardians: Collection[str]) -> bool:
    """Say whether more than half of these guardians are among `votes`, each counted once."""
    electorate = frozenset(guardians)
    return 2 * len(electorate.intersection(votes)) > len(electorate)


def has_majorities(votes: Collection[str], standing: Standing) -> bool:
    """Say whether `votes`, or nodes that keep it, are majorities of all whom this standing needs."""
    return all(is_majority(votes, electorate) for electorate in standing.electorates)


def accepts(promised: Promise | None, kept: Standing | None, offered: Standing) -> Refusal | None:
    """Say why a node must not keep an offered manifest; None if it may.

    To be asked within the transaction that stores the manifest, with what is on disk. One that is known to be
    established is taken whatever was promised: every later winner has seen it, so that no promise is broken,
    and a guardian that voted for somebody else is not left behind. The same manifest again is fine.
    """
    if promised is not None and not offered.established and _outdated(promised, offered.epoch, offered.owner):
        return Refusal.PROMISED
    if kept is not None:
        if offered.order < kept.order:
            return Refusal.NOT_NEWER
        if offered.order == kept.order and not _alike(kept, offered):
            return Refusal.CONTRADICTED
    return None


def may_promise(promised: Promise | None, kept: Standing | None, vote: Vote) -> Refusal | None:
    """Say why a vote must not be given after all; None if it may.

    To be asked within the transaction that stores the promise, with what is on disk: a manifest that was
    stored since the vote was made up would be missing in it, and lost.
    """
    if promised is not None and _outdated(promised, vote.promise.epoch, vote.promise.candidate):
        return Refusal.PROMISED
    if kept is not None and kept.order > vote.standing.order:
        return Refusal.NOT_NEWER
    return None


def refuses_vote(
    candidate: str,
    epoch: int,
    *,
    guardian: str,
    promised: Promise | None,
    kept: Standing | None,
    owner_answers: bool,
) -> Refusal | None:
    """Say why a guardian does not vote for a candidate; None if it does. Owners may ask for a later epoch."""
    if kept is None or guardian not in kept.electors:
        return Refusal.NOT_GUARDIAN
    if epoch <= kept.epoch or (promised is not None and _outdated(promised, epoch, candidate)):
        return Refusal.PROMISED
    if owner_answers and candidate != kept.owner:
        return Refusal.OWNER_ALIVE
    return None


def _outdated(promised: Promise, epoch: int, candidate: str) -> bool:
    return epoch < promised.epoch or (epoch == promised.epoch and candidate != promised.candidate)


def _alike(kept: Standing, offered: Standing) -> bool:
    if kept.manifest is not None and offered.manifest is not None and kept.manifest != offered.manifest:
        return False
    return kept.owner == offered.owner
