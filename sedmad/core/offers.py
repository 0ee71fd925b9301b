"""Owns what a node offers to a plan, and which of many nodes a plan considers."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

RENDEZVOUS_CANDIDATES = 64
"""Candidates by hash: enough to choose well among, and the same ones for whoever plans the matrix again."""

NEAREST_CANDIDATES = 32
"""Candidates by round-trip time, since a near node is worth more than any hash can know."""

GUARDIAN_COUNTS = (5, 3, 1)
"""Odd, so that a majority survives as many losses as possible; five outlive two."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One node as the planning node sees it, whose own `rtt_s` is 0 and whose own link is infinite."""

    peer_id: str
    memory_available_bytes: int
    disk_available_bytes: int
    gflops: float
    """Measured with one thread."""
    memory_bandwidth_bytes_per_s: float
    rtt_s: float = 0.0
    link_bandwidth_bytes_per_s: float = math.inf
    queue_s: float = 0.0
    """How long a product waits there before it runs."""
    memory_pledged_bytes: int = 0
    """0 if unknown: then fullness does not count against the node."""
    memory_short_bytes: int = 0
    """Resident copies that manifests give the node, and that its pledge has no room for now."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """`zone` names what fails together: copies go to different ones where possible."""
    draining: bool = False
    """The node is about to leave and takes nothing new."""
    name: str = ""
    """For messages; the peer id where it is empty."""
    device_profile: str = "ideal"
    """What computes there; `ideal` is exact arithmetic."""
    cells_available: int = 0
    """Cells of its crossbar arrays that hold nothing yet."""

    @property
    def zone(self) -> str:
        return self.labels.get("zone", "")


def candidates(offers: Sequence[Offer], matrix_id: bytes) -> list[Offer]:
    """Return the offers that a plan considers, at most 96, sorted by peer id.

    They are the first 64 by weighted rendezvous hash (Schindelhauer and Schomaker, Weighted Distributed Hash
    Tables, 2005) and the 32 nearest. The weight is the memory available rounded down to a power of two: small
    changes of it should not change the choice.
    """
    chosen = set(range(len(offers)))
    if len(offers) > RENDEZVOUS_CANDIDATES + NEAREST_CANDIDATES:
        by_hash = sorted(chosen, key=lambda index: _rendezvous_score(offers[index], matrix_id), reverse=True)
        by_distance = sorted(chosen, key=lambda index: (offers[index].rtt_s, offers[index].peer_id))
        chosen = {*by_hash[:RENDEZVOUS_CANDIDATES], *by_distance[:NEAREST_CANDIDATES]}
    return sorted((offers[index] for index in chosen), key=lambda offer: offer.peer_id)


def guardians(owner: str, offers: Sequence[Offer]) -> tuple[str, ...]:
    """Return the peer ids of a matrix's guardians: 1, 3 or 5, the most that fit, the owner first.

    The others are the nearest nodes that are not about to leave, of different zones where possible.
    """
    near = sorted(
        (offer for offer in offers if offer.peer_id != owner and not offer.draining),
        key=lambda offer: (offer.rtt_s, offer.peer_id),
    )
    count = next(count for count in GUARDIAN_COUNTS if count <= len(near) + 1)
    zones = {offer.zone for offer in offers if offer.peer_id == owner and offer.zone}
    chosen: list[Offer] = []
    while len(chosen) < count - 1:
        best = next((offer for offer in near if offer.zone not in zones), near[0])
        near.remove(best)
        chosen.append(best)
        if best.zone:
            zones.add(best.zone)
    return (owner, *(offer.peer_id for offer in chosen))


def _rendezvous_score(offer: Offer, matrix_id: bytes) -> tuple[float, str]:
    """Return the score of one node for one matrix, larger is better; the peer id settles equal ones."""
    available = offer.memory_available_bytes
    weight = 0 if available < 1 else 1 << (available.bit_length() - 1)
    digest = hashlib.blake2b(offer.peer_id.encode(), key=matrix_id[:64], digest_size=8).digest()
    uniform = (int.from_bytes(digest, "big") + 0.5) / 2**64
    return weight / -math.log(uniform), offer.peer_id
