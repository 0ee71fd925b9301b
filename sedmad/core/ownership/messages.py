"""What ownership cores say to each other."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from sedmad.core.ownership.rules import Refusal
from sedmad.core.ownership.standing import Standing, Vote


@dataclass(frozen=True, slots=True)
class VoteRequest:
    """Promise me this epoch: I believe the matrix's owner dead."""

    key: Hashable
    epoch: int


@dataclass(frozen=True, slots=True)
class VoteAnswer:
    """The vote, or why not.

    Attributes:
        epoch: the one that was asked for.
        vote: the promise, and what its guardian keeps; None where it is refused.
        refusal: None where it is granted.
        known_epoch: the greatest epoch that the guardian promised or knows.
        standing: what the guardian keeps, refused or not; None where it keeps nothing of the matrix.
    """

    key: Hashable
    epoch: int
    vote: Vote | None
    refusal: Refusal | None
    known_epoch: int
    standing: Standing | None


Message = VoteRequest | VoteAnswer
