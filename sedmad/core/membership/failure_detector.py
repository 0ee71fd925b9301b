"""The conversation that finds out who is there: probes, answers, and the help of others.

`heartbeat.py` says when to probe whom; this module speaks, and draws the conclusions: an answer vouches for a
peer, a failure accuses it.
"""

from __future__ import annotations

import random

from sedmad.core.membership.awareness import Awareness
from sedmad.core.membership.heartbeat import SILENT_INTERVALS, Contact, Failure, Heartbeats, Pace
from sedmad.core.membership.knowledge import Knowledge
from sedmad.core.membership.messages import IndirectAnswer, IndirectProbe, Probe, ProbeAnswer
from sedmad.core.membership.record import SignedRecord
from sedmad.core.membership.rumour import Rumour
from sedmad.core.membership.settings import MembershipSettings
from sedmad.core.membership.spreading import News


class FailureDetector:
    def __init__(
        self, knowledge: Knowledge, settings: MembershipSettings, awareness: Awareness, rng: random.Random
    ) -> None:
        self._knowledge = knowledge
        self._telling = knowledge.telling
        self._settings = settings
        self._awareness = awareness
        self._rng = rng
        self._heartbeats = Heartbeats(knowledge.own_id, settings, awareness, rng)
        self._neighbours: frozenset[str] = frozenset()

    def watch(self, neighbours: frozenset[str], dead: frozenset[str], now: float) -> None:
        """Probe `neighbours` all the time and `dead` now and then, and nobody else."""
        self._neighbours = neighbours
        self._heartbeats.watch(neighbours, dead, now)

    def reach(self, peer_id: str, now: float) -> None:
        """Probe this peer at once, member or not."""
        self._heartbeats.reach(peer_id, now)

    def link_lost(self, peer_id: str, now: float) -> None:
        """Suspect a peer, for this node alone, and find out with the help of others."""
        self._knowledge.roster.doubt(peer_id)
        self._heartbeats.link_lost(peer_id, now)

    def heard(self, peer_id: str, now: float, *, probed_us: bool) -> None:
        """Something came from this peer, so it is there."""
        self._heartbeats.heard(peer_id, now, probed_us=probed_us)
        self._knowledge.roster.vouch(peer_id)

    def hears(self, peer_id: str, now: float) -> bool:
        """Say whether this peer itself was heard of late."""
        contact = self._heartbeats.get(peer_id)
        silence_s = SILENT_INTERVALS * self._settings.probe_interval_s
        return contact is not None and now - contact.heard_at <= silence_s

    def rtt_s(self, peer_id: str) -> float | None:
        """Return the smoothed round-trip time to a peer, None until it was measured."""
        contact = self._heartbeats.get(peer_id)
        return contact.rtt_s if contact is not None else None

    def answer(self, sender: str, probe: Probe, now: float, *, introduce: bool) -> None:
        """Answer a probe, with news; `introduce` has this node's own advert told again."""
        if probe.rtt_s is not None:
            self._heartbeats.told_rtt(sender, probe.rtt_s)
        records, rumours = self._news_for(sender, now, introduce=introduce)
        self._telling.send(sender, ProbeAnswer(probe.probe_id, records, rumours), now)

    def answered(self, sender: str, answer: ProbeAnswer, now: float) -> None:
        """Take in the answer to a probe of our own, or to one made for somebody else."""
        errand = self._heartbeats.finish_errand(sender, answer.probe_id)
        if errand is not None:
            word = IndirectAnswer(errand.probe_id, errand.target, reached=True)
            self._telling.send(errand.requester, word, now)
        elif self._heartbeats.answered(sender, answer.probe_id, now, directly=True):
            self._awareness.improve()

    def run_errand(self, sender: str, request: IndirectProbe, now: float) -> None:
        """Probe a member for somebody else."""
        if self._knowledge.roster.get(request.target) is None:
            return
        probe_id = self._heartbeats.run_errand(sender, request.probe_id, request.target, now)
        if probe_id is not None:
            self._telling.send(request.target, Probe(probe_id), now)

    def hear_helper(self, answer: IndirectAnswer, now: float) -> None:
        """Take in what a helper found out."""
        if not answer.reached:
            self._heartbeats.helper_refused(answer.target, answer.probe_id)
        elif self._heartbeats.answered(answer.target, answer.probe_id, now, directly=False):
            self._awareness.improve()
            self._knowledge.roster.vouch(answer.target)

    def start_over(self, now: float) -> None:
        """Drop everything under way without blaming anybody."""
        self._heartbeats.start_over(now)

    def next_timeout(self) -> float | None:
        return self._heartbeats.next_timeout()

    def handle_timeout(self, now: float) -> None:
        for errand in self._heartbeats.failed_errands(now):
            word = IndirectAnswer(errand.probe_id, errand.target, reached=False)
            self._telling.send(errand.requester, word, now)
        for failure in self._heartbeats.failures(now):
            self._blame(failure, now)
        for contact in self._heartbeats.due(now):
            self._probe(contact, now)
        for contact, probe_id in self._heartbeats.late(now):
            self._ask_helpers(contact, probe_id, now)

    def _probe(self, contact: Contact, now: float) -> None:
        records, rumours = self._news_for(contact.peer_id, now, introduce=contact.pace is not Pace.NEIGHBOUR)
        probe_id = self._heartbeats.begin(contact, now)
        if not self._telling.send(contact.peer_id, Probe(probe_id, records, rumours, contact.rtt_s), now):
            self._heartbeats.postpone(contact, now)

    def _ask_helpers(self, contact: Contact, probe_id: int, now: float) -> None:
        roster = self._knowledge.roster
        alive = [
            peer_id
            for peer_id in sorted(self._neighbours - {contact.peer_id})
            if (member := roster.get(peer_id)) is not None and member.state == "alive"
        ]
        helpers = self._rng.sample(alive, min(self._settings.indirect_probes, len(alive)))
        request = IndirectProbe(probe_id, contact.peer_id)
        asked = [helper for helper in helpers if self._telling.send(helper, request, now)]
        self._heartbeats.asked_helpers(contact, len(asked))

    def _blame(self, failure: Failure, now: float) -> None:
        """A probe failed. Where helpers did not answer either, the fault may be ours."""
        if failure.pace is not Pace.NEIGHBOUR:
            return
        self._awareness.worsen(failure.doubtful_helpers if failure.helpers else 1)
        member = self._knowledge.roster.get(failure.peer_id)
        if member is not None:
            own_id = self._knowledge.own_id
            self._knowledge.accuse(Rumour("suspect", failure.peer_id, member.advert.sequence, own_id), now)

    def _news_for(
        self, peer_id: str, now: float, *, introduce: bool
    ) -> tuple[tuple[SignedRecord, ...], tuple[Rumour, ...]]:
        """Return what to tell a peer; one that is suspect or dead hears that first, so that it can refute."""
        first: list[News] = []
        last_word = self._knowledge.roster.last_word(peer_id)
        if last_word is not None:
            first.append(last_word)
        if introduce or last_word is not None or self._knowledge.roster.get(peer_id) is None:
            first.append(self._knowledge.publication.signed)
        return self._telling.news_for(peer_id, len(self._neighbours) + 1, now, first)
