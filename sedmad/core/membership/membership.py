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
from sedmad.core.membership.failure_detector import FailureDetector
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
from sedmad.core.membership.settings import LAN, MembershipSettings
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
        publication = Publication(advert, settings, sign, wall_offset_s, now)
        self._knowledge = Knowledge(publication, settings, size_of, self._awareness, self._events.append, now)
        self._telling = self._knowledge.telling
        self._detector = FailureDetector(self._knowledge, settings, self._awareness, rng)
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
            rows.append(PeerRow(peer_id, member.advert, member.state, self._detector.rtt_s(peer_id)))
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
            self._detector.reach(peer_id, now)
            self._next_timeout = self._earliest()

    def link_down(self, peer_id: str, now: float) -> None:
        """The session to this peer is lost: suspect it, for this node alone, and find out."""
        if self._knowledge.roster.get(peer_id) is not None:
            self._detector.link_lost(peer_id, now)
            self._next_timeout = self._earliest()

    def receive(self, sender: str, message: Message, now: float) -> None:
        """Take in a message; records in it are verified, and `sender` is who the session says it is."""
        self._notice_sleep(now)
        self._detector.heard(sender, now, probed_us=isinstance(message, Probe))
        match message:
            case Probe():
                findings = self._absorb(sender, message, now)
                self._detector.answer(sender, message, now, introduce=findings.accused)
            case ProbeAnswer():
                self._introduce_if(self._absorb(sender, message, now).accused, sender, now)
                self._detector.answered(sender, message, now)
            case IndirectProbe():
                self._detector.run_errand(sender, message, now)
            case IndirectAnswer():
                self._detector.hear_helper(message, now)
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
        self._detector.handle_timeout(now)
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
            if self._detector.hears(peer_id, now):
                self._detector.reach(peer_id, now)  # it lives: let it hear of its death, and refute
        if findings.met:
            self._telling.send_if_room(sender, self._knowledge.index.digests(), now)
        if repair and findings.learned:
            self._compare_at = min(self._compare_at, now + self._settings.anti_entropy_busy_interval_s)

    def _look_around(self, now: float) -> None:
        """Choose neighbours anew, after somebody came or went."""
        roster = self._knowledge.roster
        self._neighbours = self._view.neighbours(self.peer_id, roster.present())
        self._detector.watch(self._neighbours, self._view.neighbours(self.peer_id, roster.dead()), now)
        self._telling.spreading.drop_known_by_all(self._neighbours)

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
            self._detector.start_over(now)
            self._next_timeout = now

    def _earliest(self) -> float | None:
        deadlines = (
            self._knowledge.publication.due_at,
            self._compare_at,
            self._detector.next_timeout(),
            self._knowledge.roster.next_timeout(),
            self._telling.next_timeout(),
        )
        return min(deadline for deadline in deadlines if deadline is not None)
