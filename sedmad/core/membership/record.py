"""Signed records: what stays true beyond a message, where it belongs, and how two are told apart."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sedmad.core.membership.advert import Advert
from sedmad.core.membership.claim import Claim

Record = Advert | Claim

# ("advert", peer id) or ("claim", name, author): the place that a newer record of the same kind takes over.
Locator = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SignedRecord:
    """A record with the bytes that carry it over the wire, signature included.

    The bytes are forwarded as they came, so that every node can check them against their author's key.
    Whoever hands a signed record to a core has checked the signature and that `record` is what `signed` says.
    """

    record: Record
    signed: bytes

    @property
    def locator(self) -> Locator:
        if isinstance(self.record, Advert):
            return ("advert", self.record.peer_id)
        return ("claim", self.record.name, self.record.first_owner)

    @property
    def stamp(self) -> int:
        """64 bits that change with the content; equal on every node that holds the same bytes."""
        return int.from_bytes(hashlib.blake2b(self.signed, digest_size=8).digest(), "big")


def locator_key(locator: Locator) -> int:
    """Return the 64 bits under which a record is listed in inventories."""
    # The separator cannot occur in a peer id or a printable name.
    return int.from_bytes(hashlib.blake2b("\0".join(locator).encode(), digest_size=8).digest(), "big")
