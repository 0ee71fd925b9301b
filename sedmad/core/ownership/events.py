"""What the ownership core reports to its node, and the batch in which it hands everything over."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum

from sedmad.core.ownership.messages import Message
from sedmad.core.ownership.standing import Standing, Vote


class Ending(Enum):
    """Why an election ended without a winner here."""

    TIMED_OUT = "no majority answered in time"
    REFUSED = "too many refuse"
    PROMISED = "a later epoch is promised to another"
    VOTED = "this node voted for another"
    OWNER_RETURNED = "the owner answers again"
    SURPASSED = "a newer manifest has another owner, or other guardians"
    FORGOTTEN = "the matrix is gone"


@dataclass(frozen=True, slots=True)
class Won:
    """This node may own the matrix: write `standing.succeeded_by(self, epoch)`, with the votes as proof.

    Nothing is owned before that is on disk; where it cannot be stored the election is repeated by itself.
    """

    key: Hashable
    epoch: int
    standing: Standing
    votes: tuple[Vote, ...]


@dataclass(frozen=True, slots=True)
class Lost:
    """An election of this node ended without success; if it is still needed, the next one comes by itself."""

    key: Hashable
    epoch: int
    ending: Ending


@dataclass(frozen=True, slots=True)
class Deposed:
    """This node owned the matrix and does not any more: `standing` says who does. Plan nothing for it."""

    key: Hashable
    standing: Standing


@dataclass(frozen=True, slots=True)
class Surpassed:
    """A guardian keeps a newer manifest than this node: keep it too, if `accepts` lets it."""

    key: Hashable
    standing: Standing


@dataclass(frozen=True, slots=True)
class Behind:
    """A guardian lacks the manifest that makes it one: offer it this one, and it can vote next time."""

    key: Hashable
    guardian: str
    standing: Standing


Event = Won | Lost | Deposed | Surpassed | Behind


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What to do now, in this order.

    Attributes:
        votes: promises to be on disk before anything else of this batch is done. The transaction asks
            `may_promise`; where that refuses, the messages and the `Won` that carry the vote are dropped.
        messages: to send, as (peer id, message).
        events: what happened.
    """

    votes: tuple[Vote, ...]
    messages: tuple[tuple[str, Message], ...]
    events: tuple[Event, ...]
