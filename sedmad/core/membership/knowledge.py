"""All that a node knows and passes on: its own advert, the roster, the directory, and the index over them.

Takes in records and rumours, decides what is new, queues it to be told on. Knows nothing of probes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sedmad.core.membership.advert import Advert
from sedmad.core.membership.anti_entropy import RecordIndex
from sedmad.core.membership.awareness import Awareness
from sedmad.core.membership.claim import Claim
from sedmad.core.membership.directory import Directory
from sedmad.core.membership.events import ClaimChanged, ClaimRefused, ClockSkewed, Event, OwnAdvertSurpassed
from sedmad.core.membership.messages import Gossip
from sedmad.core.membership.publication import Publication
from sedmad.core.membership.record import Locator, SignedRecord
from sedmad.core.membership.roster import Roster, Verdict
from sedmad.core.membership.rumour import Rumour
from sedmad.core.membership.settings import MembershipSettings
from sedmad.core.membership.spreading import Urgency
from sedmad.core.membership.telling import SizeOf, Telling
from sedmad.errors import LocalError, StaleManifest


@dataclass(slots=True)
class Findings:
    """What one message brought, as far as others than this module act on it."""

    presence_changed: bool = False  # somebody joined, returned or died
    met: bool = False  # its sender is back or new: it may know much that we do not
    learned: bool = False
    accused: bool = False  # the sender holds this node for suspect or dead, and needs its newest advert
    disputed: list[str] = field(default_factory=list)  # held for dead by the sender


class Knowledge:
    def __init__(
        self,
        publication: Publication,
        settings: MembershipSettings,
        size_of: SizeOf,
        awareness: Awareness,
        report: Callable[[Event], None],
        now: float,
    ) -> None:
        self._settings = settings
        self._awareness = awareness
        self._report = report
        self._skewed: set[str] = set()  # members whose clock was complained about
        self.publication = publication
        self.own_id = publication.advert.peer_id
        self.roster = Roster(self.own_id, settings, report)
        self.directory = Directory()
        self.index = RecordIndex()
        self.telling = Telling(settings, size_of, self.find, now)
        self.index.put(publication.signed)
        self.telling.spread(publication.signed, Urgency.ROUTINE, (), now)

    def restore(self, known: Iterable[SignedRecord]) -> None:
        """Take in records of an earlier life. They are not told on: whoever lacks them will ask."""
        for signed in known:
            if isinstance(signed.record, Claim):
                if self.directory.accept(signed) is not None:
                    self.index.put(signed)
            elif (
                signed.record.peer_id != self.own_id
                and self.roster.accept(signed, unheard=True) is Verdict.JOINED
            ):
                self.index.put(signed)

    def find(self, locator: Locator) -> SignedRecord | None:
        """Return the record at a place, as far as it should be told."""
        if locator[0] == "claim":
            return self.directory.find(locator[1], locator[2])
        if locator[1] == self.own_id:
            return self.publication.signed
        member = self.roster.get(locator[1])
        return member.signed if member is not None and member.state != "dead" else None

    def publish_advert(self, now: float) -> None:
        """Make and tell the next advert of this node."""
        refuting = self.publication.refuting
        signed = self.publication.publish(now)
        self.index.put(signed)
        self.telling.spread(signed, Urgency.RUMOUR if refuting else Urgency.ROUTINE, (), now)

    def publish_claim(self, signed: SignedRecord, now: float) -> None:
        """Take in and tell a claim of this node."""
        claim = signed.record
        assert isinstance(claim, Claim)
        if claim.owner != self.own_id:
            raise LocalError("a node published another node's claim", node=claim.owner, matrix=claim.name)
        self.directory.require_room_for(claim.name)
        if self.directory.find(claim.name, claim.first_owner) == signed:
            return
        if not self._take_claim(signed, (), now, tell=True):
            raise StaleManifest(
                f"the claim of {claim.name!r} is outdated",
                why=f"The mesh knows a newer one than version {claim.version}, seq {claim.seq}.",
                matrix=claim.name,
            )

    def drop_old_tombstones(self, wall_time_s: float) -> None:
        for signed in self.directory.drop_old_tombstones(wall_time_s):
            self.index.drop(signed.locator)

    def absorb(
        self,
        sender: str,
        records: Iterable[SignedRecord],
        rumours: Iterable[Rumour],
        now: float,
        *,
        repair: bool = False,
    ) -> Findings:
        """Take in what a peer told; records come first, so that rumours speak of adverts that are known."""
        findings = Findings()
        for signed in records:
            if isinstance(signed.record, Advert):
                self._take_advert(sender, signed, signed.record, findings, now)
            elif not self.directory.has_room_for(signed.record.name):
                self._report(ClaimRefused(signed.record.name))
            elif self._take_claim(signed, (sender, signed.record.owner), now, tell=not repair):
                findings.learned = True
            else:
                self.telling.spreading.heard_from(sender, signed)
        for rumour in rumours:
            self._take_rumour(sender, rumour, findings, now)
        return findings

    def accuse(self, rumour: Rumour, now: float, heard_from: str | None = None) -> None:
        """Hold a peer for suspect and tell others, the advert that is meant included."""
        member = self.roster.get(rumour.peer_id)
        if member is not None and self.roster.accuse(rumour, now):
            knowing = {rumour.by, heard_from or self.own_id}
            self.telling.spread(member.signed, Urgency.RUMOUR, {rumour.peer_id, *knowing}, now)
            self.telling.spread(rumour, Urgency.RUMOUR, knowing, now)

    def bury(self, rumour: Rumour, now: float, heard_from: str | None = None) -> bool:
        """Hold a peer for dead and tell others; True if that is news."""
        if not self.roster.bury(rumour, now):
            return False
        self.index.drop(("advert", rumour.peer_id))
        self.telling.cancel(rumour.peer_id)
        self.telling.spread(rumour, Urgency.RUMOUR, {rumour.by, heard_from or self.own_id}, now)
        return True

    def forget(self, now: float) -> bool:
        """Stop listing those who are dead for long; True if there were any."""
        before = len(self.roster)
        self.roster.forget(now)
        self._skewed = {peer_id for peer_id in self._skewed if self.roster.get(peer_id) is not None}
        return len(self.roster) < before

    def _take_claim(self, signed: SignedRecord, known_by: tuple[str, ...], now: float, *, tell: bool) -> bool:
        assert isinstance(signed.record, Claim)
        accepted = self.directory.accept(signed)
        if accepted is None:
            return False
        for evicted in accepted.evicted:
            self.index.drop(evicted.locator)
        self.index.put(signed)
        self._report(ClaimChanged(signed.record.name, signed))
        if tell:
            self.telling.spread(signed, Urgency.NAME, known_by, now)
        return True

    def _take_advert(
        self, sender: str, signed: SignedRecord, advert: Advert, findings: Findings, now: float
    ) -> None:
        if advert.peer_id == self.own_id:
            own_sequence = self.publication.advert.sequence
            if advert.sequence > own_sequence and self.publication.surpassed(advert.sequence, now):
                self._report(OwnAdvertSurpassed(advert.sequence))
            return
        verdict = self.roster.accept(signed)
        if verdict is Verdict.KNOWN:
            self.telling.spreading.heard_from(sender, signed)
        elif verdict is Verdict.BURIED:
            last_word = self.roster.last_word(advert.peer_id)
            if last_word is not None and sender != advert.peer_id:
                self.telling.send_if_room(sender, Gossip(rumours=(last_word,)), now)
        elif verdict in _URGENCY:
            findings.learned = True
            arrived = verdict in (Verdict.JOINED, Verdict.RETURNED)
            findings.presence_changed |= arrived
            findings.met |= arrived and sender == advert.peer_id
            self.index.put(signed)
            self.telling.spreading.settle(advert.peer_id, advert.sequence)
            self.telling.spread(signed, _URGENCY[verdict], (sender, advert.peer_id), now)
            if sender == advert.peer_id:
                self._compare_clocks(advert, now)

    def _take_rumour(self, sender: str, rumour: Rumour, findings: Findings, now: float) -> None:
        if rumour.peer_id == self.own_id:
            findings.accused = True
            if rumour.sequence == self.publication.advert.sequence:
                self._awareness.worsen()
            # A node that lost its disk counts from the beginning again, and hears of an advert that it cannot remember.
            if self.publication.refute(rumour.sequence, now):
                self._report(OwnAdvertSurpassed(rumour.sequence))
            return
        member = self.roster.get(rumour.peer_id)
        if member is None or rumour.by == self.own_id:
            return
        if rumour.sequence < member.advert.sequence:
            if member.state != "dead":
                self.telling.promise(sender, [member.signed.locator], now)
        elif rumour.kind == "suspect":
            self.accuse(rumour, now, heard_from=sender)
        elif self.bury(rumour, now, heard_from=sender):
            findings.learned = True
            findings.presence_changed = True
            findings.disputed.append(rumour.peer_id)

    def _compare_clocks(self, advert: Advert, now: float) -> None:
        skew_s = advert.wall_time_s - (now + self.publication.wall_offset_s)
        warned = advert.peer_id in self._skewed
        if abs(skew_s) > self._settings.clock_skew_warning_s and not warned:
            self._skewed.add(advert.peer_id)
            self._report(ClockSkewed(advert.peer_id, skew_s))
        elif abs(skew_s) < self._settings.clock_skew_warning_s / 2:
            self._skewed.discard(advert.peer_id)


_URGENCY = {
    Verdict.JOINED: Urgency.NAME,
    Verdict.RETURNED: Urgency.NAME,
    Verdict.REFUTED: Urgency.RUMOUR,
    Verdict.NEWER: Urgency.ROUTINE,
}
