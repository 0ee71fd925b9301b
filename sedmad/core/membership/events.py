"""What the membership core reports to its node, and the batch in which it hands everything over."""

from __future__ import annotations

from dataclasses import dataclass

from sedmad.core.membership.messages import Message
from sedmad.core.membership.record import SignedRecord


@dataclass(frozen=True, slots=True)
class PeerJoined:
    """A peer is known now that was not; from disk or unheard so far it starts out suspect."""

    peer_id: str
    signed: SignedRecord


@dataclass(frozen=True, slots=True)
class PeerSuspected:
    """Route around it: cheap and reversible. `by` is the peer that said so, or this node."""

    peer_id: str
    by: str


@dataclass(frozen=True, slots=True)
class PeerAlive:
    """A peer that was suspect or dead is alive."""

    peer_id: str


@dataclass(frozen=True, slots=True)
class PeerDead:
    """Restore what it held."""

    peer_id: str
    by: str


@dataclass(frozen=True, slots=True)
class PeerForgotten:
    """A dead peer is no longer listed."""

    peer_id: str


@dataclass(frozen=True, slots=True)
class AdvertChanged:
    """A known peer offers something else than before."""

    peer_id: str
    signed: SignedRecord


@dataclass(frozen=True, slots=True)
class ClaimChanged:
    """The directory took this claim over; ask the directory what its name stands for now."""

    name: str
    signed: SignedRecord


@dataclass(frozen=True, slots=True)
class ClaimRefused:
    """The directory is full: this name stays unknown here."""

    name: str


@dataclass(frozen=True, slots=True)
class ClockSkewed:
    """The peer's clock is ahead of this node's by `skew_s` (behind if negative)."""

    peer_id: str
    skew_s: float


@dataclass(frozen=True, slots=True)
class OwnAdvertSurpassed:
    """The mesh knows a newer advert of this node than it made: an old backup, or a second node with its key.

    `sequence` is that advert's.
    """

    sequence: int


Event = (
    PeerJoined
    | PeerSuspected
    | PeerAlive
    | PeerDead
    | PeerForgotten
    | AdvertChanged
    | ClaimChanged
    | ClaimRefused
    | ClockSkewed
    | OwnAdvertSurpassed
)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What to do now: messages to send, in order, as (peer id, message), and what happened."""

    messages: tuple[tuple[str, Message], ...]
    events: tuple[Event, ...]
