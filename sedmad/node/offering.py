"""What every node offers to a plan, as this node knows it: adverts, round-trip times, and its own ledger."""

from __future__ import annotations

from sedmad.core.capacity import CapacityLedger
from sedmad.core.membership.advert import Advert
from sedmad.core.offers import Offer
from sedmad.node.membership import MembershipService

# Before it was measured: a LAN's, so that a new node is neither shunned nor preferred.
RTT_UNKNOWN_S = 0.001
# What one session carries (noise + yamux on one core), until paths are measured.
LINK_BANDWIDTH_BYTES_PER_S = 80e6


def gather_offers(membership: MembershipService, ledger: CapacityLedger) -> list[Offer]:
    """Return an offer of this node and of every other that is alive and ready."""
    own = membership.core.advert
    offers = [
        _offer(own, ledger.memory.available_bytes, ledger.disk.available_bytes, rtt_s=0.0, link=float("inf"))
    ]
    for row in membership.peers():
        advert = row.advert
        if row.state == "alive" and advert.state == "ready":
            memory_bytes = max(0, advert.memory_pledged_bytes - advert.memory_used_bytes)
            disk_bytes = max(0, advert.disk_pledged_bytes - advert.disk_used_bytes)
            rtt_s = RTT_UNKNOWN_S if row.rtt_s is None else row.rtt_s
            offers.append(
                _offer(advert, memory_bytes, disk_bytes, rtt_s=rtt_s, link=LINK_BANDWIDTH_BYTES_PER_S)
            )
    return offers


def _offer(advert: Advert, memory_bytes: int, disk_bytes: int, *, rtt_s: float, link: float) -> Offer:
    return Offer(
        peer_id=advert.peer_id,
        memory_available_bytes=memory_bytes,
        disk_available_bytes=disk_bytes,
        gflops=advert.compute_gflops,
        memory_bandwidth_bytes_per_s=advert.memory_bandwidth_bytes_per_s,
        rtt_s=rtt_s,
        link_bandwidth_bytes_per_s=link,
        queue_s=advert.queue_s,
        memory_pledged_bytes=advert.memory_pledged_bytes,
        memory_short_bytes=advert.memory_short_bytes,
        labels=dict(advert.labels),
        draining=advert.state == "draining",
        name=advert.name,
        device_profile=advert.device_profile or "ideal",
        cells_available=max(0, advert.cells_pledged - advert.cells_used),
    )
