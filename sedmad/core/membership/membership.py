"""The membership core: who is there, what they offer, and which names exist.

Ties the parts of this package together and owns the order of things: take in what came, let time pass, hand
out what to send. It never reads a clock, verifies no signature (its node does, before), does no I/O. It is
driven like every core:

    membership.receive(sender, message, now)      # or link_up, update_advert, publish_claim, ...
    membership.handle_timeout(now)                # when next_timeout() has come
    outgoing = membership.collect()               # after each of these: send the messages, act on the events
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sedmad.core.membership.advert import Advert
from sedmad.core.membership.awareness import Awareness
from sedmad.core.membership.claim import Claim
from sedmad.core.membership.directory import Directory
from sedmad.core.membership.events import Event, Outgoing
from sedmad.core.membership.heartbeat import SILENT_INTERVALS, Contact, Failure, Heartbeats, Pace
from sedmad.core.membership.knowledge import Findings, Knowledge
from sedmad.core.membership.messages import (
    Digests,
    Gossip,
    IndirectAnswer,
    IndirectProbe,
    Inventory,
    Message,
    Probe,
    ProbeAnswer,
)
from sedmad.core.membership.publication import Publication
from sedmad.core.membership.record import Record, SignedRecord
from sedmad.core.membership.roster import PeerState
from sedmad.core.membership.rumour import Rumour
from sedmad.core.membership.settings import LAN, MembershipSettings
from sedmad.core.membership.spreading import News
from sedmad.core.membership.telling import SizeOf
from sedmad.core.membership.view import FullView, View


@dataclass(frozen=True, slots=True)
class PeerRow:
    """What is known of one other member; `rtt_s` is None until it was measured."""

    peer_id: str
    advert: Advert
    state: PeerState
    rtt_s: float | None


class Membership:
    """One node's part in the mesh.

    Args:
        advert: what this node offers; its `sequence` is `first_sequence(boot_counter)`.
        sign: makes the bytes that carry a record of this node.
        size_of: bytes that a message, a record or a rumour takes on the wire.
        known: records of an earlier life, as `known_records` gave them. Their peers are suspect until heard
            of.
        wall_offset_s: Unix time minus `now`; tell of changes through `set_wall_offset`.
    """

    def __init__(
        self,
        advert: Advert,
        *,
        sign: Callable[[Record], bytes],
        size_of: SizeOf,
        rng: random.Random,
        now: float,
        settings: MembershipSettings = LAN,
        view: View | None = None,
        known: Iterable[SignedRecord] = (),
        wall_offset_s: float = 0.0,
    ) -> None:
        self.peer_id = advert.peer_id
        self._settings = settings
        self._sign = sign
        self._rng = rng
        self._view = view or FullView()
        self._events: list[Event] = []
        self._awareness = Awareness(settings.awareness_maximum)
        self._heartbeats = Heartbeats(self.peer_id, settings, self._awareness, rng)
        publication = Publication(advert, settings, sign, wall_offset_s, now)
        self._knowledge = Knowledge(publication, settings, size_of, self._awareness, self._events.append, now)
        self._telling = self._knowledge.telling
        self._neighbours: frozenset[str] = frozenset()
        self._compare_at = now + settings.anti_entropy_interval_s * rng.random()
        self._knowledge.restore(known)
        self._look_around(now)
        self._next_timeout = self._earliest()

    @property
    def advert(self) -> Advert:
        """What this node last said about itself."""
        return self._knowledge.publication.advert

    @property
    def directory(self) -> Directory:
        """The names of the mesh; to be read only."""
        return self._knowledge.directory

    def peers(self) -> list[PeerRow]:
        """Return every other member by peer id; the dead stay for `forget_dead_after_s`."""
        rows = []
        for peer_id, member in sorted(self._knowledge.roster, key=lambda item: item[0]):
            contact = self._heartbeats.get(peer_id)
            rows.append(PeerRow(peer_id, member.advert, member.state, contact.rtt_s if contact else None))
        return rows

    def known_records(self) -> list[SignedRecord]:
        """Return what to keep on disk for the next start: adverts of members not dead, and all claims."""
        adverts = [member.signed for _, member in self._knowledge.roster if member.state != "dead"]
        return [*adverts, *self.directory.records()]

    def update_advert(self, changes: dict[str, Any], now: float) -> None:
        """Change what this node offers; what matters to others is told at once, the rest by and by."""
        self._knowledge.publication.update(changes, now)
        self._next_timeout = self._earliest()

    def set_wall_offset(self, wall_offset_s: float) -> None:
        """Tell what Unix time minus `now` is at present."""
        self._knowledge.publication.wall_offset_s = wall_offset_s

    def publish_claim(self, claim: Claim, now: float) -> None:
        """Sign and tell a claim whose owner this node is; `directory.next_version` makes one in order.

        Raises:
            InsufficientCapacity: the name is new and the directory is full.
            StaleManifest: the mesh knows a newer claim of the same author.
        """
        self._knowledge.publish_claim(SignedRecord(claim, self._sign(claim)), now)
        self._next_timeout = self._earliest()

    def drop_old_tombstones(self, wall_time_s: float) -> None:
        """Forget names removed over 90 days before this Unix time."""
        self._knowledge.drop_old_tombstones(wall_time_s)

    def link_up(self, peer_id: str, now: float) -> None:
        """A session to this peer stands: probe it at once, whether it is a member yet or not."""
        if peer_id != self.peer_id:
            self._heartbeats.reach(peer_id, now)
            self._next_timeout = self._earliest()

    def link_down(self, peer_id: str, now: float) -> None:
        """The session to this peer is lost: suspect it, for this node alone, and find out."""
        if self._knowledge.roster.get(peer_id) is not None:
            self._knowledge.roster.doubt(peer_id)
            self._heartbeats.link_lost(peer_id, now)
            self._next_timeout = self._earliest()

    def receive(self, sender: str, message: Message, now: float) -> None:
        """Take in a message; records in it are verified, and `sender` is who the session says it is."""
        self._notice_sleep(now)
        self._heartbeats.heard(sender, now, probed_us=isinstance(message, Probe))
        self._knowledge.roster.vouch(sender)
        match message:
            case Probe():
                findings = self._absorb(sender, message, now)
                if message.rtt_s is not None:
                    self._heartbeats.told_rtt(sender, message.rtt_s)
                records, rumours = self._news_for(sender, now, introduce=findings.accused)
                self._telling.send(sender, ProbeAnswer(message.probe_id, records, rumours), now)
            case ProbeAnswer():
                self._introduce_if(self._absorb(sender, message, now).accused, sender, now)
                self._answered(sender, message.probe_id, now)
            case IndirectProbe():
                self._run_errand(sender, message, now)
            case IndirectAnswer():
                self._hear_helper(message, now)
            case Gossip():
                findings = self._absorb(sender, message, now, repair=message.repair)
                self._introduce_if(findings.accused, sender, now)
                wanted = [self._knowledge.index.locate(key) for key in message.wanted]
                self._telling.promise(sender, [locator for locator in wanted if locator is not None], now)
            case Digests():
                inventory = self._knowledge.index.differing(message, self._rng)
                if inventory is not None:
                    self._telling.send_if_room(sender, inventory, now)
            case Inventory():
                offered, wanted_keys = self._knowledge.index.compare(message)
                self._telling.promise(sender, offered, now)
                if wanted_keys:
                    self._telling.send_if_room(sender, Gossip(wanted=tuple(wanted_keys)), now)
        self._next_timeout = self._earliest()

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` is to be called next."""
        return self._next_timeout

    def handle_timeout(self, now: float) -> None:
        """Do what is due."""
        self._notice_sleep(now)
        if self._knowledge.publication.due_at <= now:
            self._knowledge.publish_advert(now)
        for errand in self._heartbeats.failed_errands(now):
            answer = IndirectAnswer(errand.probe_id, errand.target, reached=False)
            self._telling.send(errand.requester, answer, now)
        for failure in self._heartbeats.failures(now):
            self._blame(failure, now)
        for contact in self._heartbeats.due(now):
            self._probe(contact, now)
        for contact, probe_id in self._heartbeats.late(now):
            self._ask_helpers(contact, probe_id, now)
        deaths = [
            rumour for rumour in self._knowledge.roster.overdue(now) if self._knowledge.bury(rumour, now)
        ]
        if self._knowledge.forget(now) or deaths:
            self._look_around(now)
        if self._compare_at <= now:
            self._compare(now)
        self._telling.push(self._neighbours, self._rng, now)
        self._next_timeout = self._earliest()

    def collect(self) -> Outgoing:
        """Hand over what is to be sent and what happened since the last call."""
        events = tuple(self._events)
        self._events.clear()
        return Outgoing(self._telling.collect(), events)

    def _absorb(
        self, sender: str, message: Probe | ProbeAnswer | Gossip, now: float, repair: bool = False
    ) -> Findings:
        findings = self._knowledge.absorb(sender, message.records, message.rumours, now, repair=repair)
        self._act_on(findings, sender, now, repair)
        publication = self._knowledge.publication
        if publication.refuting and publication.due_at <= now:
            self._knowledge.publish_advert(now)  # here already, so that the answer carries it
        return findings

    def _introduce_if(self, needed: bool, peer_id: str, now: float) -> None:
        if needed:
            self._telling.promise(peer_id, [self._knowledge.publication.signed.locator], now)

    def _act_on(self, findings: Findings, sender: str, now: float, repair: bool) -> None:
        if findings.presence_changed:
            self._look_around(now)
        for peer_id in findings.disputed:
            if self._hears(peer_id, now):
                self._heartbeats.reach(peer_id, now)  # it lives: let it hear of its death, and refute
        if findings.met:
            self._telling.send_if_room(sender, self._knowledge.index.digests(), now)
        if repair and findings.learned:
            self._compare_at = min(self._compare_at, now + self._settings.anti_entropy_busy_interval_s)

    def _look_around(self, now: float) -> None:
        """Choose neighbours anew, after somebody came or went."""
        roster = self._knowledge.roster
        self._neighbours = self._view.neighbours(self.peer_id, roster.present())
        self._heartbeats.watch(self._neighbours, self._view.neighbours(self.peer_id, roster.dead()), now)
        self._telling.spreading.drop_known_by_all(self._neighbours)

    def _news_for(
        self, peer_id: str, now: float, *, introduce: bool = False
    ) -> tuple[tuple[SignedRecord, ...], tuple[Rumour, ...]]:
        """Return what to tell a peer; one that is suspect or dead hears that first, so that it can refute."""
        first: list[News] = []
        last_word = self._knowledge.roster.last_word(peer_id)
        if last_word is not None:
            first.append(last_word)
        if introduce or last_word is not None or self._knowledge.roster.get(peer_id) is None:
            first.append(self._knowledge.publication.signed)
        return self._telling.news_for(peer_id, len(self._neighbours) + 1, now, first)

    def _probe(self, contact: Contact, now: float) -> None:
        records, rumours = self._news_for(contact.peer_id, now, introduce=contact.pace is not Pace.NEIGHBOUR)
        probe_id = self._heartbeats.begin(contact, now)
        if not self._telling.send(contact.peer_id, Probe(probe_id, records, rumours, contact.rtt_s), now):
            self._heartbeats.postpone(contact, now)

    def _answered(self, sender: str, probe_id: int, now: float) -> None:
        errand = self._heartbeats.finish_errand(sender, probe_id)
        if errand is not None:
            answer = IndirectAnswer(errand.probe_id, errand.target, reached=True)
            self._telling.send(errand.requester, answer, now)
        elif self._heartbeats.answered(sender, probe_id, now, directly=True):
            self._awareness.improve()

    def _ask_helpers(self, contact: Contact, probe_id: int, now: float) -> None:
        roster = self._knowledge.roster
        alive = [
            peer_id
            for peer_id in sorted(self._neighbours - {contact.peer_id})
            if (member := roster.get(peer_id)) is not None and member.state == "alive"
        ]
        helpers = self._rng.sample(alive, min(self._settings.indirect_probes, len(alive)))
        request = IndirectProbe(probe_id, contact.peer_id)
        asked = sum(self._telling.send(helper, request, now) for helper in helpers)
        self._heartbeats.asked_helpers(contact, asked)

    def _run_errand(self, sender: str, request: IndirectProbe, now: float) -> None:
        if request.target != self.peer_id and self._knowledge.roster.get(request.target) is not None:
            probe_id = self._heartbeats.run_errand(sender, request.probe_id, request.target, now)
            if probe_id is not None:
                self._telling.send(request.target, Probe(probe_id), now)

    def _hear_helper(self, answer: IndirectAnswer, now: float) -> None:
        if not answer.reached:
            self._heartbeats.helper_refused(answer.target, answer.probe_id)
        elif self._heartbeats.answered(answer.target, answer.probe_id, now, directly=False):
            self._awareness.improve()
            self._knowledge.roster.vouch(answer.target)

    def _blame(self, failure: Failure, now: float) -> None:
        """A probe failed. Where helpers did not answer either, the fault may be ours."""
        if failure.pace is Pace.NEIGHBOUR:
            self._awareness.worsen(failure.doubtful_helpers if failure.helpers else 1)
            member = self._knowledge.roster.get(failure.peer_id)
            if member is not None:
                rumour = Rumour("suspect", failure.peer_id, member.advert.sequence, self.peer_id)
                self._knowledge.accuse(rumour, now)

    def _bury_the_dead(self, now: float) -> None:
        died = False
        for rumour in self._knowledge.roster.overdue(now):
            if self._hears(rumour.peer_id, now):
                # Others suspect it and its refutation got lost, but who talks to us is not dead.
                self._knowledge.roster.reprieve(rumour.peer_id, self._settings.probe_interval_s)
            else:
                died |= self._knowledge.bury(rumour, now)
        if self._knowledge.forget(now) or died:
            self._look_around(now)

    def _hears(self, peer_id: str, now: float) -> bool:
        """Say whether this peer itself was heard of late."""
        contact = self._heartbeats.get(peer_id)
        return (
            contact is not None
            and now - contact.heard_at <= SILENT_INTERVALS * self._settings.probe_interval_s
        )

    def _compare(self, now: float) -> None:
        """Ask one neighbour what we do not have in common."""
        self._compare_at = now + self._settings.anti_entropy_interval_s
        if self._neighbours:
            peer_id = self._rng.choice(sorted(self._neighbours))
            self._telling.send_if_room(peer_id, self._knowledge.index.digests(), now)

    def _notice_sleep(self, now: float) -> None:
        """Blame nobody for the time in which this node itself was stopped, swapped out or starved."""
        if self._next_timeout is not None and now - self._next_timeout > self._settings.probe_interval_s:
            slept_s = now - self._next_timeout
            self._awareness.worsen()
            self._knowledge.roster.extend_suspicions(slept_s)
            self._heartbeats.start_over(now)
            self._next_timeout = now

    def _earliest(self) -> float | None:
        deadlines = (
            self._knowledge.publication.due_at,
            self._compare_at,
            self._heartbeats.next_timeout(),
            self._knowledge.roster.next_timeout(),
            self._telling.next_timeout(),
        )
        return min(deadline for deadline in deadlines if deadline is not None)
