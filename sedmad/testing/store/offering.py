"""What every node offers to a plan, as node/offering.py gathers it."""

from __future__ import annotations

from sedmad.core.capacity import CapacityLedger
from sedmad.core.membership import Membership
from sedmad.core.offers import Offer


def gather_offers(membership: Membership, ledger: CapacityLedger) -> list[Offer]:
    """Return an offer of this node and of every other that is alive."""
    own = membership.advert
    rooms = [(own, ledger.memory.available_bytes, ledger.disk.available_bytes, 0.0)]
    for row in membership.peers():
        advert = row.advert
        if row.state == "alive":
            memory_bytes = max(0, advert.memory_pledged_bytes - advert.memory_used_bytes)
            disk_bytes = max(0, advert.disk_pledged_bytes - advert.disk_used_bytes)
            rooms.append((advert, memory_bytes, disk_bytes, row.rtt_s or 0.001))
    return [
        Offer(
            advert.peer_id,
            memory_bytes,
            disk_bytes,
            advert.compute_gflops,
            advert.memory_bandwidth_bytes_per_s,
            rtt_s,
            memory_pledged_bytes=advert.memory_pledged_bytes,
        )
        for advert, memory_bytes, disk_bytes, rtt_s in rooms
    ]
