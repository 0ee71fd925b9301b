"""Owns what a node learns of its peers from their answers and adverts: the inputs of every prediction.

What is learned makes products faster or slower, never wrong: reported times are clamped, and any peer may be
forgotten.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from sedmad.core.prediction import SLOWNESS_MEMORY_S, WAIT_MEMORY_S, PeerEstimate, PeerState, Work

PEERS_MAX = 4096
"""Peers remembered: more than a node ever exchanges products with; about a kilobyte each."""

RTT_WEIGHT = 0.1
"""Weight of a new round-trip time: smooths a jitter of 30 % to 7 %."""

BANDWIDTH_WEIGHT = 0.2
"""Weight of a new bandwidth: fewer messages are large enough to measure it."""

BULK_BYTES = 256 * 1024
"""Messages of this size and more tell bandwidth, smaller ones tell round-trip time."""

_LONG_WAIT_MEMORY_S = 600.0
_LONG_SLOWNESS_MEMORY_S = 3600.0
_PRIOR_SAMPLES = 2.0  # the long-term slowness starts as if two answers had come at the advertised speed
_TIME_LIMIT_S = 3600.0  # longer than any deadline: what a peer reports beyond is nonsense
_SLOWNESS_LIMIT = math.log(64)  # one absurd answer must not outweigh a hundred plain ones
_UNKNOWN_RTT_S, _UNKNOWN_SECONDS_PER_BYTE = 0.1, 1e-7  # a middling home connection, until it is measured
_FASTEST_SECONDS_PER_BYTE = 1e-11  # 100 GB/s: faster than the memory the bytes come from
_UNKNOWN_GFLOPS, _UNKNOWN_MEMORY_BANDWIDTH = 10.0, 5e9  # a small machine, until its advert comes


@dataclass(slots=True)
class DecayingMean:
    """Mean of samples whose weight falls to 1/e within `memory_s`, at whatever intervals they come."""

    memory_s: float
    total: float = 0.0
    weight: float = 0.0
    updated_at: float = -math.inf

    def add(self, sample: float, now: float) -> None:
        kept = self._kept(now)
        self.total = self.total * kept + sample
        self.weight = self.weight * kept + 1.0
        self.updated_at = now

    def mean(self) -> float:
        """Return the mean; 0 without samples."""
        return self.total / self.weight if self.weight else 0.0

    def shrunk(self, prior_samples: float, now: float) -> float:
        """Return the mean drawn towards 0 as by so many samples of 0: strongly while little is known."""
        kept = self._kept(now)
        return self.total * kept / (self.weight * kept + prior_samples)

    def age_s(self, now: float) -> float:
        """Return the seconds since the last sample; infinite without one."""
        return max(0.0, now - self.updated_at)

    def _kept(self, now: float) -> float:
        return math.exp(-self.age_s(now) / self.memory_s)


@dataclass(slots=True)
class _Peer:
    first_seen: float
    name: str = ""
    own: bool = False
    state: PeerState = "alive"
    suspected_at: float = -math.inf
    rtt_s: float | None = None
    seconds_per_byte: float = _UNKNOWN_SECONDS_PER_BYTE
    gflops: float = _UNKNOWN_GFLOPS
    memory_bandwidth: float = _UNKNOWN_MEMORY_BANDWIDTH
    gossip_wait_s: float = 0.0
    gossip_at: float = -math.inf
    wait: DecayingMean = field(default_factory=lambda: DecayingMean(WAIT_MEMORY_S))
    wait_long: DecayingMean = field(default_factory=lambda: DecayingMean(_LONG_WAIT_MEMORY_S))
    slowness: DecayingMean = field(default_factory=lambda: DecayingMean(SLOWNESS_MEMORY_S))
    slowness_long: DecayingMean = field(default_factory=lambda: DecayingMean(_LONG_SLOWNESS_MEMORY_S))
    in_flight: int = 0
    memory_pressure: float = 0.0
    failures: int = 0


class Estimates:
    """What is known of at most 4096 peers; the one not heard of for longest is forgotten first."""

    def __init__(self, own_peer_id: str) -> None:
        self._own_peer_id = own_peer_id
        self._peers: OrderedDict[str, _Peer] = OrderedDict()

    def __len__(self) -> int:
        return len(self._peers)

    def advertised(
        self,
        peer_id: str,
        *,
        gflops: float,
        memory_bandwidth_bytes_per_s: float,
        wait_s: float,
        memory_pressure: float,
        now: float,
        name: str = "",
    ) -> None:
        """Take over what a peer says of itself in an advert."""
        peer = self._peer(peer_id, now)
        peer.name = name
        peer.gflops = max(0.0, gflops)
        peer.memory_bandwidth = max(0.0, memory_bandwidth_bytes_per_s)
        peer.gossip_wait_s, peer.gossip_at = _clamped(wait_s), now
        peer.memory_pressure = _clamped(memory_pressure)

    def state_changed(self, peer_id: str, state: PeerState, now: float) -> None:
        """Take over what membership says of a peer."""
        peer = self._peer(peer_id, now)
        peer.state = state
        if state == "suspect":
            peer.suspected_at = now

    def rtt_measured(self, peer_id: str, rtt_s: float, now: float) -> None:
        """Learn from a heartbeat. The first measurement counts in full."""
        peer = self._peer(peer_id, now)
        self._learn_rtt(peer, _clamped(rtt_s))

    def sent(self, peer_id: str, now: float) -> None:
        """Count a product sent; follow it with exactly one `observe` or `failed` or `withdrawn`."""
        self._peer(peer_id, now).in_flight += 1

    def observe(
        self,
        peer_id: str,
        work: Work,
        partitions: int,
        *,
        elapsed_s: float,
        wait_s: float,
        service_s: float,
        now: float,
        memory_pressure: float | None = None,
    ) -> None:
        """Learn from the answer to a product.

        Args:
            work: what was asked for each of `partitions` partitions.
            elapsed_s: from sending to the whole answer, measured here.
            wait_s: before it ran, as the peer reports it.
            service_s: while it ran, as the peer reports it.
            memory_pressure: share of the peer's memory pledge in use, if it came with the answer.
        """
        peer = self._peer(peer_id, now)
        self._settle(peer)
        wait_s, service_s = _clamped(wait_s), _clamped(service_s)
        peer.wait.add(wait_s, now)
        peer.wait_long.add(wait_s, now)
        expected_s = partitions * work.service_s(peer.gflops, peer.memory_bandwidth)
        slowness = math.log(max(service_s, 1e-6) / max(expected_s, 1e-6))
        slowness = min(max(slowness, -_SLOWNESS_LIMIT), _SLOWNESS_LIMIT)
        peer.slowness.add(slowness, now)
        peer.slowness_long.add(slowness, now)
        if memory_pressure is not None:
            peer.memory_pressure = _clamped(memory_pressure)
        if not peer.own:
            moved = work.shared_bytes + partitions * (work.sent_bytes + work.answer_bytes)
            self._learn_path(peer, moved, _clamped(elapsed_s - wait_s - service_s))

    def failed(self, peer_id: str, now: float) -> None:
        """Count a product that a peer did not answer, or answered with a failure of its own."""
        peer = self._peer(peer_id, now)
        self._settle(peer)
        peer.failures += 1

    def withdrawn(self, peer_id: str, now: float) -> None:
        """Count a product that is no longer waited for, through no fault of the peer's."""
        self._settle(self._peer(peer_id, now))

    def estimate(self, peer_id: str, now: float) -> PeerEstimate | None:
        """Return what is known of a peer, None if nothing is."""
        peer = self._peers.get(peer_id)
        if peer is None:
            return None
        return PeerEstimate(
            peer_id=peer_id,
            name=peer.name,
            own=peer.own,
            state=peer.state,
            rtt_s=_UNKNOWN_RTT_S if peer.rtt_s is None else peer.rtt_s,
            bandwidth_bytes_per_s=1 / max(peer.seconds_per_byte, _FASTEST_SECONDS_PER_BYTE),
            gflops=peer.gflops,
            memory_bandwidth_bytes_per_s=peer.memory_bandwidth,
            wait_feedback_s=peer.wait.mean(),
            wait_feedback_age_s=peer.wait.age_s(now),
            wait_gossip_s=peer.gossip_wait_s,
            wait_gossip_age_s=max(0.0, now - peer.gossip_at),
            wait_long_s=peer.wait_long.mean(),
            log_slowness=peer.slowness.mean(),
            slowness_age_s=peer.slowness.age_s(now),
            log_slowness_long=peer.slowness_long.shrunk(_PRIOR_SAMPLES, now),
            in_flight=peer.in_flight,
            memory_pressure=peer.memory_pressure,
            failures=peer.failures,
            uptime_s=max(0.0, now - peer.first_seen),
            suspected_age_s=max(0.0, now - peer.suspected_at),
        )

    def estimates(self, peer_ids: Iterable[str], now: float) -> dict[str, PeerEstimate]:
        """Return what is known of these peers; those of whom nothing is known are missing."""
        found = ((peer_id, self.estimate(peer_id, now)) for peer_id in peer_ids)
        return {peer_id: estimate for peer_id, estimate in found if estimate is not None}

    def forget(self, peer_id: str) -> None:
        """Forget a peer that left for good."""
        self._peers.pop(peer_id, None)

    def _peer(self, peer_id: str, now: float) -> _Peer:
        peer = self._peers.get(peer_id)
        if peer is None:
            peer = self._peers[peer_id] = _Peer(first_seen=now, own=peer_id == self._own_peer_id)
            if len(self._peers) > PEERS_MAX:
                self._peers.popitem(last=False)
        else:
            self._peers.move_to_end(peer_id)
        return peer

    @staticmethod
    def _settle(peer: _Peer) -> None:
        peer.in_flight = max(0, peer.in_flight - 1)  # a peer forgotten in between starts again at 0

    @classmethod
    def _learn_path(cls, peer: _Peer, moved_bytes: int, path_s: float) -> None:
        """Learn from an answer's time on the way: bandwidth if it was large, else round-trip time."""
        if moved_bytes < BULK_BYTES:
            cls._learn_rtt(peer, max(0.0, path_s - moved_bytes * peer.seconds_per_byte))
        else:
            # Means of seconds per byte: one answer that seems to take no time must not count as infinite
            # speed.
            measured = max(0.0, path_s - (peer.rtt_s or 0.0)) / moved_bytes
            peer.seconds_per_byte += BANDWIDTH_WEIGHT * (measured - peer.seconds_per_byte)

    @staticmethod
    def _learn_rtt(peer: _Peer, rtt_s: float) -> None:
        peer.rtt_s = rtt_s if peer.rtt_s is None else peer.rtt_s + RTT_WEIGHT * (rtt_s - peer.rtt_s)


def _clamped(value: float) -> float:
    # In this order a NaN from a peer becomes 0.
    return min(max(0.0, value), _TIME_LIMIT_S)
