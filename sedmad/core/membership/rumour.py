"""What nodes say about others: that one is suspected, or dead.

A rumour is not signed: it travels between members only, over authenticated sessions, and does no lasting
harm, for the peer it speaks of refutes it with a newer advert, which is signed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Rumour:
    """`by` holds `peer_id` for suspect or dead, as of its advert `sequence`.

    It counts only against exactly that advert: an older sequence is refuted already, and of a newer one the
    hearer waits to see the advert first, so that an invented sequence cannot outrun the peer's own.
    """

    kind: Literal["suspect", "dead"]
    peer_id: str
    sequence: int
    by: str
