"""Owns what resident copies of one matrix take of the devices of nodes: cells, memory and time, for each profile.

Arithmetic is exact on a node whose profile is not among the needs: such a copy takes what its bytes take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sedmad.core.offers import Offer


@dataclass(frozen=True, slots=True)
class DeviceNeed:
    """What a whole partition is expected to take on devices of one profile.

    Attributes:
        cells: of crossbar arrays, allocated.
        memory_bytes: of what simulates them, beyond the partition's own bytes.
        slowdown: how much longer its products take than exact ones.
    """

    cells: int = 0
    memory_bytes: int = 0
    slowdown: float = 1.0


_EXACT = DeviceNeed()


@dataclass(frozen=True, slots=True)
class DeviceNeeds:
    """What one matrix needs.

    Attributes:
        profile: what resident copies have to be on; empty: any, arithmetic that is exact included.
        by_profile: as far as the planning node knows the profiles; others' nodes decide for themselves.
    """

    profile: str = ""
    by_profile: Mapping[str, DeviceNeed] = field(default_factory=dict)

    def of(self, offer: Offer) -> DeviceNeed:
        """Return what a partition takes there."""
        return self.by_profile.get(offer.device_profile, _EXACT)

    def allow(self, offer: Offer) -> bool:
        """Return whether resident copies may be there."""
        return not self.profile or offer.device_profile == self.profile

    def memory_bytes(self, offer: Offer, size_bytes: int) -> int:
        """Return the memory that a resident partition of `size_bytes` takes there."""
        return size_bytes + self.of(offer).memory_bytes

    def room(self, offer: Offer, size_bytes: int) -> int:
        """Return how many resident partitions of `size_bytes` memory and cells have room for there."""
        if not self.allow(offer):
            return 0
        room = max(0, offer.memory_available_bytes) // self.memory_bytes(offer, size_bytes)
        cells = self.of(offer).cells
        return min(room, max(0, offer.cells_available) // cells) if cells else room


NO_DEVICES = DeviceNeeds()
