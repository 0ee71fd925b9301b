"""Who is a member, and what is believed of each: alive, suspect or dead.

What is believed of a peer only ever moves up: to a newer advert, and within one advert from alive over suspect
to dead. So nodes that know the same adverts and heard the same rumours of them believe the same, in whatever
order they heard them. The exception is what a node saw with its own eyes (a lost link, an answer): that it
believes by itself, and takes back by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal

from sedmad.core.membership.advert import Advert
from sedmad.core.membership.events import (
    AdvertChanged,
    Event,
    PeerAlive,
    PeerDead,
    PeerForgotten,
    PeerJoined,
    PeerSuspected,
)
from sedmad.core.membership.record import SignedRecord
from sedmad.core.membership.rumour import Rumour
from sedmad.core.membership.settings import MembershipSettings
from sedmad.core.membership.suspicion import SuspicionTimer

PeerState = Literal["alive", "suspect", "dead"]

MAX_MEMBERS = 4096  # at ~3 KiB each; larger meshes need the bounded overlay first
MAX_GRAVES = 4096  # as many as could have been members


class Verdict(Enum):
    """What became of an advert."""

    JOINED = auto()
    RETURNED = auto()  # it was dead, or had not been heard since this node started
    REFUTED = auto()  # it was suspect
    NEWER = auto()
    KNOWN = auto()
    OLDER = auto()
    BURIED = auto()  # its peer is dead as of this advert or a later one
    REFUSED = auto()  # one member too many


@dataclass(slots=True)
class Member:
    signed: SignedRecord
    state: PeerState
    timer: SuspicionTimer | None = None  # None while only this node doubts it, without a failed probe
    forget_at: float = 0.0

    @property
    def advert(self) -> Advert:
        assert isinstance(self.signed.record, Advert)
        return self.signed.record


class Roster:
    """The members but this node itself. Adverts in it are verified: a peer without one is no member.

    Args:
        report: called with every event, in order.
    """

    def __init__(self, own_id: str, settings: MembershipSettings, report: Callable[[Event], None]) -> None:
        self._own_id = own_id
        self._settings = settings
        self._report = report
        self._members: dict[str, Member] = {}
        # Forgotten dead, with their last sequence: a peer that has not forgotten them yet must not bring them
        # back.
        self._graves: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[tuple[str, Member]]:
        return iter(self._members.items())

    def get(self, peer_id: str) -> Member | None:
        return self._members.get(peer_id)

    def present(self) -> list[str]:
        """Those not dead."""
        return [peer_id for peer_id, member in self._members.items() if member.state != "dead"]

    def dead(self) -> list[str]:
        return [peer_id for peer_id, member in self._members.items() if member.state == "dead"]

    def accept(self, signed: SignedRecord, *, unheard: bool = False) -> Verdict:
        """Take an advert in. `unheard` marks one from disk: its peer is suspect until it is heard of."""
        advert = signed.record
        assert isinstance(advert, Advert)
        member = self._members.get(advert.peer_id)
        if member is None:
            return self._admit(advert, signed, unheard=unheard)
        if advert.sequence < member.advert.sequence:
            return Verdict.BURIED if member.state == "dead" else Verdict.OLDER
        if advert.sequence == member.advert.sequence:
            if member.state == "dead":
                return Verdict.BURIED
            if signed.signed <= member.signed.signed:
                return Verdict.KNOWN
            # Two adverts of one sequence come of a node that lost count. All nodes settle on the same one.
            member.signed = signed
            self._report(AdvertChanged(advert.peer_id, signed))
            return Verdict.NEWER
        verdict = Verdict.NEWER
        if member.state != "alive":
            verdict = Verdict.RETURNED if member.timer is None else Verdict.REFUTED
            self._report(PeerAlive(advert.peer_id))
        member.signed, member.state, member.timer = signed, "alive", None
        self._report(AdvertChanged(advert.peer_id, signed))
        return verdict

    def doubt(self, peer_id: str) -> None:
        """Suspect a peer for a reason of this node's own, such as a lost link; nobody is told."""
        member = self._members.get(peer_id)
        if member is not None and member.state == "alive":
            member.state = "suspect"
            self._report(PeerSuspected(peer_id, self._own_id))

    def vouch(self, peer_id: str) -> None:
        """The peer itself was heard: what only this node held against it is void."""
        member = self._members.get(peer_id)
        if member is None or member.state != "suspect":
            return
        if member.timer is None or member.timer.accusers == {self._own_id}:
            member.state, member.timer = "alive", None
            self._report(PeerAlive(peer_id))

    def accuse(self, rumour: Rumour, now: float) -> bool:
        """Count a suspicion against the advert it names; True if it is news that others should hear too."""
        member = self._members.get(rumour.peer_id)
        if member is None or member.state == "dead" or rumour.sequence != member.advert.sequence:
            return False
        if member.timer is not None:
            return member.timer.confirm(rumour.by)
        members = len(self.present()) + 1
        member.timer = SuspicionTimer(
            rumour.by,
            needed=self._settings.confirmations_needed(members),
            minimum_s=self._settings.suspicion_minimum_s(members),
            maximum_s=self._settings.suspicion_maximum_s(members),
            now=now,
        )
        if member.state == "alive":
            member.state = "suspect"
            self._report(PeerSuspected(rumour.peer_id, rumour.by))
        return True

    def bury(self, rumour: Rumour, now: float) -> bool:
        """Believe a death as of the advert it names; True if it is news."""
        member = self._members.get(rumour.peer_id)
        if member is None or member.state == "dead" or rumour.sequence != member.advert.sequence:
            return False
        member.state, member.timer = "dead", None
        member.forget_at = now + self._settings.forget_dead_after_s
        self._report(PeerDead(rumour.peer_id, rumour.by))
        return True

    def last_word(self, peer_id: str) -> Rumour | None:
        """Return what is held against a peer, for telling somebody who may not know; None if it is alive."""
        member = self._members.get(peer_id)
        if member is None:
            grave = self._graves.get(peer_id)
            return None if grave is None else Rumour("dead", peer_id, grave, self._own_id)
        if member.state == "dead":
            return Rumour("dead", peer_id, member.advert.sequence, self._own_id)
        if member.timer is not None:
            return Rumour("suspect", peer_id, member.advert.sequence, min(member.timer.accusers))
        return None

    def overdue(self, now: float) -> list[Rumour]:
        """Return the deaths of suspects that had their time to refute."""
        return [
            Rumour("dead", peer_id, member.advert.sequence, self._own_id)
            for peer_id, member in self._members.items()
            if member.timer is not None and member.timer.deadline <= now
        ]

    def forget(self, now: float) -> None:
        """Stop listing those who are dead for long."""
        for peer_id in self.dead():
            if self._members[peer_id].forget_at <= now:
                self._forget(peer_id)

    def extend_suspicions(self, seconds: float) -> None:
        """Give suspects back the time in which this node was not running."""
        for member in self._members.values():
            if member.timer is not None:
                member.timer.extend(seconds)

    def next_timeout(self) -> float | None:
        earliest: float | None = None
        for member in self._members.values():
            if member.timer is not None:
                deadline = member.timer.deadline
            elif member.state == "dead":
                deadline = member.forget_at
            else:
                continue
            earliest = deadline if earliest is None else min(earliest, deadline)
        return earliest

    def _admit(self, advert: Advert, signed: SignedRecord, *, unheard: bool) -> Verdict:
        if advert.sequence <= self._graves.get(advert.peer_id, -1):
            return Verdict.BURIED
        if len(self._members) >= MAX_MEMBERS:
            dead = self.dead()
            if not dead:
                return Verdict.REFUSED
            self._forget(min(dead, key=lambda peer_id: self._members[peer_id].forget_at))
        self._graves.pop(advert.peer_id, None)
        self._members[advert.peer_id] = Member(signed, "suspect" if unheard else "alive")
        self._report(PeerJoined(advert.peer_id, signed))
        return Verdict.JOINED

    def _forget(self, peer_id: str) -> None:
        member = self._members.pop(peer_id)
        if len(self._graves) >= MAX_GRAVES:
            del self._graves[next(iter(self._graves))]
        self._graves[peer_id] = member.advert.sequence
        self._report(PeerForgotten(peer_id))
