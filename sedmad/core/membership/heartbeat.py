"""Whom to probe when, and what became of it.

One probe a second per pair: the node with the lower peer id asks, the other answers. Each side learns from
the same round trip that the other is there; a side that does not hear its prober for two intervals probes by
itself. Owns contacts and their timing, and the probes made on behalf of others; what a failure means is
decided elsewhere.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, auto

from sedmad.core.membership.awareness import Awareness
from sedmad.core.membership.settings import MembershipSettings

RTT_WEIGHT = 0.125  # of a new measurement (RFC 6298)
SILENT_INTERVALS = 2  # after which the answering side probes by itself
MAX_STRANGERS = (
    64  # addresses a node is told to try at once: bootstrap nodes, sessions not yet matched by an advert
)
STRANGER_ATTEMPTS = 10
MAX_ERRANDS = 64  # 3 helpers for each of some 20 failing pairs at once; more are left unanswered
PROBE_ID_BITS = 48  # random, so that an answer meant for a node's former life fits nothing


class Pace(Enum):
    """How a contact is probed."""

    NEIGHBOUR = auto()
    DEAD = auto()  # now and then: it may be back, or on the other side of a split
    STRANGER = auto()  # no advert known: a few times, then given up


@dataclass(slots=True)
class _Probe:
    probe_id: int
    sent_at: float
    indirect_at: float
    fail_at: float
    helpers: int = 0
    refusals: int = 0  # helpers that said they did not reach it either


@dataclass(slots=True)
class Contact:
    peer_id: str
    leads: bool
    pace: Pace
    due_at: float
    probe: _Probe | None = None
    rtt_s: float | None = None
    heard_at: float = float("-inf")
    attempts: int = 0
    link_lost: bool = False

    def next_timeout(self) -> float:
        return self.due_at if self.probe is None else min(self.probe.indirect_at, self.probe.fail_at)


@dataclass(frozen=True, slots=True)
class Errand:
    """A probe made for somebody else."""

    requester: str
    probe_id: int
    target: str
    give_up_at: float


@dataclass(frozen=True, slots=True)
class Failure:
    """A probe that nobody could get through; `doubtful_helpers` of those asked did not report at all."""

    peer_id: str
    pace: Pace
    helpers: int
    doubtful_helpers: int


class Heartbeats:
    def __init__(
        self, own_id: str, settings: MembershipSettings, awareness: Awareness, rng: random.Random
    ) -> None:
        self._own_id = own_id
        self._settings = settings
        self._awareness = awareness
        self._rng = rng
        self._contacts: dict[str, Contact] = {}
        self._errands: dict[int, Errand] = {}

    def get(self, peer_id: str) -> Contact | None:
        return self._contacts.get(peer_id)

    def watch(self, neighbours: Collection[str], dead: Collection[str], now: float) -> None:
        """Probe these from now on; contacts named in neither, strangers aside, are dropped."""
        # Sorted, as the order of sets differs from run to run, and a seed must replay.
        paces = dict.fromkeys(sorted(dead), Pace.DEAD) | dict.fromkeys(sorted(neighbours), Pace.NEIGHBOUR)
        for peer_id, contact in list(self._contacts.items()):
            if peer_id not in paces and contact.pace is not Pace.STRANGER:
                del self._contacts[peer_id]
        for peer_id, pace in paces.items():
            existing = self._contacts.get(peer_id)
            if existing is None:
                # Spread over the interval, so that a node does not probe everybody in the same instant.
                first_due_at = now + self._rng.random() * self._interval_s(pace)
                self._contacts[peer_id] = Contact(peer_id, self._own_id < peer_id, pace, first_due_at)
            elif existing.pace is not pace:
                existing.pace = pace
                existing.due_at = min(existing.due_at, now + self._interval_s(pace))

    def reach(self, peer_id: str, now: float) -> None:
        """Probe this peer at once; a stranger is tried a few times."""
        contact = self._contacts.get(peer_id)
        if contact is not None:
            contact.due_at = now
            contact.attempts = 0
            # One that is under way went out while there was no link, or with the last one.
            contact.probe = None
        elif sum(known.pace is Pace.STRANGER for known in self._contacts.values()) < MAX_STRANGERS:
            self._contacts[peer_id] = Contact(peer_id, self._own_id < peer_id, Pace.STRANGER, now)

    def due(self, now: float) -> list[Contact]:
        """Return the contacts to probe now. Strangers that never answered are dropped."""
        due = [
            contact for contact in self._contacts.values() if contact.probe is None and contact.due_at <= now
        ]
        for contact in due:
            if contact.pace is Pace.STRANGER and contact.attempts >= STRANGER_ATTEMPTS:
                del self._contacts[contact.peer_id]
        return [contact for contact in due if contact.peer_id in self._contacts]

    def begin(self, contact: Contact, now: float) -> int:
        """Note that a probe goes out; return its id."""
        probe_id = self._rng.getrandbits(PROBE_ID_BITS)
        timeout_s = 0.0 if contact.link_lost else self._awareness.stretch(self._settings.probe_timeout_s)
        give_up_s = self._awareness.stretch(self._settings.probe_interval_s)
        contact.probe = _Probe(probe_id, now, now + timeout_s, now + give_up_s)
        contact.due_at = now + self._interval_s(contact.pace)
        contact.attempts += 1
        return probe_id

    def postpone(self, contact: Contact, now: float) -> None:
        """The byte budget had no room for the probe: try again soon, and blame nobody."""
        contact.probe = None
        contact.due_at = now + self._settings.gossip_interval_s

    def heard(self, peer_id: str, now: float, *, probed_us: bool = False) -> None:
        """Something came from the peer itself. If it was its probe, ours can wait."""
        contact = self._contacts.get(peer_id)
        if contact is None:
            return
        contact.heard_at = now
        contact.link_lost = False
        if probed_us and not contact.leads:
            silence_s = self._awareness.stretch(SILENT_INTERVALS * self._settings.probe_interval_s)
            contact.due_at = max(contact.due_at, now + silence_s)

    def answered(self, peer_id: str, probe_id: int, now: float, *, directly: bool) -> bool:
        """Match an answer to its probe; False for answers that come late, twice, or unasked."""
        contact = self._contacts.get(peer_id)
        if contact is None or contact.probe is None or contact.probe.probe_id != probe_id:
            return False
        if directly:
            sample_s = now - contact.probe.sent_at
            smoothed_s = sample_s if contact.rtt_s is None else contact.rtt_s
            contact.rtt_s = smoothed_s + RTT_WEIGHT * (sample_s - smoothed_s)
        contact.probe = None
        contact.attempts = 0
        return True

    def told_rtt(self, peer_id: str, rtt_s: float) -> None:
        """The prober shares what it measured; our own measurements, if we have any of late, are as good."""
        contact = self._contacts.get(peer_id)
        if contact is not None and 0.0 <= rtt_s < float("inf"):
            contact.rtt_s = rtt_s

    def asked_helpers(self, contact: Contact, helpers: int) -> None:
        if contact.probe is not None:
            contact.probe.helpers = helpers

    def helper_refused(self, target: str, probe_id: int) -> None:
        """A helper works, but did not reach the target either."""
        contact = self._contacts.get(target)
        if contact is not None and contact.probe is not None and contact.probe.probe_id == probe_id:
            contact.probe.refusals += 1

    def link_lost(self, peer_id: str, now: float) -> None:
        """The direct link is gone: probe at once, and ask helpers without waiting for a time-out."""
        self.reach(peer_id, now)
        contact = self._contacts.get(peer_id)
        if contact is not None:
            contact.link_lost = True

    def late(self, now: float) -> list[tuple[Contact, int]]:
        """Return (contact, probe id) of probes that others should try now. Each is returned once."""
        late = []
        for contact in self._contacts.values():
            probe = contact.probe
            if probe is not None and probe.indirect_at <= now < probe.fail_at:
                probe.indirect_at = float("inf")
                if contact.pace is Pace.NEIGHBOUR:
                    late.append((contact, probe.probe_id))
        return late

    def failures(self, now: float) -> list[Failure]:
        """Return the probes whose time is over, each once."""
        failures = []
        for contact in self._contacts.values():
            probe = contact.probe
            if probe is not None and probe.fail_at <= now:
                contact.probe = None
                doubtful = max(0, probe.helpers - probe.refusals)
                failures.append(Failure(contact.peer_id, contact.pace, probe.helpers, doubtful))
        return failures

    def run_errand(self, requester: str, probe_id: int, target: str, now: float) -> int | None:
        """Take on a probe for somebody else; return its id, or None when there are too many."""
        if len(self._errands) >= MAX_ERRANDS:
            return None
        own_probe_id = self._rng.getrandbits(PROBE_ID_BITS)
        give_up_at = (
            now + self._settings.probe_timeout_s * 0.8
        )  # the requester waits half an interval for our word
        self._errands[own_probe_id] = Errand(requester, probe_id, target, give_up_at)
        return own_probe_id

    def finish_errand(self, target: str, own_probe_id: int) -> Errand | None:
        errand = self._errands.get(own_probe_id)
        return self._errands.pop(own_probe_id) if errand is not None and errand.target == target else None

    def failed_errands(self, now: float) -> list[Errand]:
        failed = [own_id for own_id, errand in self._errands.items() if errand.give_up_at <= now]
        return [self._errands.pop(own_id) for own_id in failed]

    def start_over(self, now: float) -> None:
        """Drop everything under way without blaming anybody: this node was asleep."""
        self._errands.clear()
        for contact in self._contacts.values():
            contact.probe = None
            contact.due_at = now + self._rng.random() * self._settings.probe_timeout_s

    def next_timeout(self) -> float | None:
        deadlines = [contact.next_timeout() for contact in self._contacts.values()]
        deadlines += [errand.give_up_at for errand in self._errands.values()]
        return min(deadlines, default=None)

    def _interval_s(self, pace: Pace) -> float:
        if pace is Pace.DEAD:
            return self._settings.dead_probe_interval_s
        return self._settings.probe_interval_s
