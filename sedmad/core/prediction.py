"""Owns the prediction of when a node answers: T = rtt + x/bw + wait + service + y/bw + memory and failure
penalties.

Pure arithmetic over what is known of a peer; `sedmad.core.estimates` learns that, `sedmad.core.routing` uses
it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from sedmad.core.partitioning import Partitioning

PeerState = Literal["alive", "suspect", "dead", "unreachable"]
"""`suspect`: a probe was missed, it may only be slow; `unreachable`: alive to others, without a path from
here."""

WAIT_MEMORY_S = 5.0
"""Queues change within seconds: after this long, a wait reported with an answer counts 1/e."""

GOSSIP_MEMORY_S = 10.0
"""Gossip is older when it arrives and averages more: it fades more slowly."""

SLOWNESS_MEMORY_S = 30.0
"""How slow a node is against what it advertised changes with what else runs there: half minutes."""

MEMORY_PRESSURE_FROM = 0.8
"""A pledge that is fuller than this is avoided: later matrices need room to be placed well."""

MEMORY_PRESSURE_S = 0.5
"""Seconds added to a prediction per unit of fullness above that."""

FAILURE_COST_S = 1.0
"""What a failed product costs: the time until it is noticed and repeated elsewhere."""

FAILURE_EXPOSURE_S = 3.0
"""How much of a node's uptime one product is exposed to, time-out included."""

_PRIOR_FAILURES, _PRIOR_UPTIME_S = 0.5, 900.0  # as of a node that failed once in half an hour
_SUSPICION_MEMORY_S, _SUSPICION_PENALTY = 20.0, 0.5  # who was suspected moments ago may well be again
_SLOWEST = 1e-9  # a speed of zero makes a node the last choice, not an error


def memory_penalty_s(fullness: float) -> float:
    """Return the seconds by which a node is put back for this share of its memory pledge in use."""
    return MEMORY_PRESSURE_S * max(0.0, fullness - MEMORY_PRESSURE_FROM)


@dataclass(frozen=True, slots=True)
class Work:
    """What one product asks of the holder of one partition."""

    flops: float
    weight_bytes: int
    shared_bytes: int
    """Bytes of X sent once to a holder, however many partitions it answers for."""
    sent_bytes: int
    """Bytes of X sent for each partition."""
    answer_bytes: int
    """Bytes of Y that come back for each partition."""

    @classmethod
    def of(cls, partitioning: Partitioning, columns: int, *, transposed: bool = False) -> Work:
        """Return the work of `columns` columns on a whole partition; transposed ones answer in float64."""
        rows, itemsize = partitioning.partition_rows, partitioning.panel_itemsize
        across = columns * partitioning.columns
        return cls(
            flops=2.0 * rows * across,
            weight_bytes=partitioning.size_bytes(0),
            shared_bytes=0 if transposed else across * itemsize,
            sent_bytes=columns * rows * itemsize if transposed else 0,
            answer_bytes=across * 8 if transposed else columns * rows * itemsize,
        )

    def service_s(self, gflops: float, memory_bandwidth_bytes_per_s: float) -> float:
        """Return the seconds of arithmetic or of reading memory, whichever takes longer."""
        return max(
            self.flops / max(gflops * 1e9, _SLOWEST),
            self.weight_bytes / max(memory_bandwidth_bytes_per_s, _SLOWEST),
        )


@dataclass(frozen=True, slots=True)
class Prediction:
    """When a node answers for n partitions: `fixed_s` once and `partition_s` for each."""

    fixed_s: float
    partition_s: float

    def seconds(self, partitions: int) -> float:
        return self.fixed_s + partitions * self.partition_s


@dataclass(frozen=True, slots=True)
class PeerEstimate:
    """What is known of one peer now. Ages are in seconds, infinite where there is nothing to be old."""

    peer_id: str
    name: str = ""
    own: bool = False
    """The asking node itself: no path, no transfer, no risk."""
    state: PeerState = "alive"
    rtt_s: float = 0.0
    bandwidth_bytes_per_s: float = math.inf
    gflops: float = 1.0
    memory_bandwidth_bytes_per_s: float = 1e9
    wait_feedback_s: float = 0.0
    wait_feedback_age_s: float = math.inf
    wait_gossip_s: float = 0.0
    wait_gossip_age_s: float = math.inf
    wait_long_s: float = 0.0
    log_slowness: float = 0.0
    """Mean of log(measured service / service by the advertised speeds) of late."""
    slowness_age_s: float = math.inf
    log_slowness_long: float = 0.0
    in_flight: int = 0
    """Products sent there by this node and not answered yet."""
    memory_pressure: float = 0.0
    """Share of the memory pledge in use."""
    failures: int = 0
    uptime_s: float = 0.0
    """How long `failures` were counted."""
    suspected_age_s: float = math.inf

    @property
    def wait_s(self) -> float:
        """Expected wait: old feedback fades to gossip, old gossip to the long-term mean, never to zero."""
        fresh = math.exp(-self.wait_feedback_age_s / WAIT_MEMORY_S)
        heard = math.exp(-self.wait_gossip_age_s / GOSSIP_MEMORY_S)
        background = heard * self.wait_gossip_s + (1 - heard) * self.wait_long_s
        return fresh * self.wait_feedback_s + (1 - fresh) * background

    @property
    def slowness(self) -> float:
        """Expected service time divided by what the advertised speeds promise."""
        fresh = math.exp(-self.slowness_age_s / SLOWNESS_MEMORY_S)
        return math.exp(fresh * self.log_slowness + (1 - fresh) * self.log_slowness_long)

    @property
    def failure_probability(self) -> float:
        """Probability that one product fails there: a Gamma prior over failures, more after a suspicion."""
        rate = (self.failures + _PRIOR_FAILURES) / (self.uptime_s + _PRIOR_UPTIME_S)
        suspected = _SUSPICION_PENALTY if self.suspected_age_s < _SUSPICION_MEMORY_S else 0.0
        return min(1.0, FAILURE_EXPOSURE_S * rate + suspected)

    def predict(self, work: Work) -> Prediction:
        """Return when this peer would answer `work` per partition, behind what it was already sent."""
        service_s = work.service_s(self.gflops, self.memory_bandwidth_bytes_per_s) * self.slowness
        partition_s = service_s * (1 + self.in_flight)
        fixed_s = self.wait_s + memory_penalty_s(self.memory_pressure)
        if self.own:
            return Prediction(fixed_s, partition_s)
        bandwidth = max(self.bandwidth_bytes_per_s, _SLOWEST)
        return Prediction(
            fixed_s + self.rtt_s + work.shared_bytes / bandwidth + FAILURE_COST_S * self.failure_probability,
            partition_s + (work.sent_bytes + work.answer_bytes) / bandwidth,
        )
