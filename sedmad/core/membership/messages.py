"""What membership cores say to each other.

A pair of nodes exchanges one Probe and one ProbeAnswer a second; both carry news. Everything else is the
exception: IndirectProbe when an answer is missing, Gossip when news should not wait for the next probe or was
asked for, and Digests and Inventory, which find what two nodes do not have in common.
"""

from __future__ import annotations

from dataclasses import dataclass

from sedmad.core.membership.record import SignedRecord
from sedmad.core.membership.rumour import Rumour


@dataclass(frozen=True, slots=True)
class Probe:
    """Are you there? `rtt_s` tells the other side what the prober last measured, as only the prober can."""

    probe_id: int
    records: tuple[SignedRecord, ...] = ()
    rumours: tuple[Rumour, ...] = ()
    rtt_s: float | None = None


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """I am."""

    probe_id: int
    records: tuple[SignedRecord, ...] = ()
    rumours: tuple[Rumour, ...] = ()


@dataclass(frozen=True, slots=True)
class IndirectProbe:
    """Please probe `target` for me: it does not answer me."""

    probe_id: int
    target: str


@dataclass(frozen=True, slots=True)
class IndirectAnswer:
    """`target` answered me in time, or did not. Saying 'no' tells the asker that its own network works."""

    probe_id: int
    target: str
    reached: bool


@dataclass(frozen=True, slots=True)
class Gossip:
    """News. `wanted` asks for records by the keys of an inventory.

    `repair` marks records that one peer asked for: their claims are not told on, for others find them the
    same way.
    """

    records: tuple[SignedRecord, ...] = ()
    rumours: tuple[Rumour, ...] = ()
    wanted: tuple[int, ...] = ()
    repair: bool = False


@dataclass(frozen=True, slots=True)
class Digests:
    """One 64-bit digest per bucket over all that the sender knows; their number is a power of two."""

    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Inventory:
    """All that the sender has in some buckets: (key, stamp) of each record."""

    bucket_count: int
    buckets: tuple[int, ...]
    items: tuple[tuple[int, int], ...]


Message = Probe | ProbeAnswer | IndirectProbe | IndirectAnswer | Gossip | Digests | Inventory
