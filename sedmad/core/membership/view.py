"""Whom a node probes and tells."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Protocol

FULL_VIEW_NODES = 32  # up to here everybody probes everybody: 31 frames a second each way, about 4 KiB/s


class View(Protocol):
    """Chooses a node's neighbours, from its arguments only, so that nodes can tell each other's choice."""

    def neighbours(self, own_id: str, peers: Collection[str]) -> frozenset[str]:
        """Return those of `peers` whom `own_id` probes and tells."""
        ...


class FullView:
    """Everybody, up to 32 peers; beyond that the 32 of highest rendezvous score.

    The score of a pair is the same from both ends, so most choices are mutual, and a peer that nobody watches
    has a probability of about exp(-32). This keeps larger meshes bounded and correct; an overlay made for
    them, with few neighbours and assigned monitors, takes this class's place there.
    """

    def neighbours(self, own_id: str, peers: Collection[str]) -> frozenset[str]:
        if len(peers) <= FULL_VIEW_NODES:
            return frozenset(peers)
        ranked = sorted(peers, key=lambda peer: _pair_score(own_id, peer), reverse=True)
        return frozenset(ranked[:FULL_VIEW_NODES])


def _pair_score(one: str, other: str) -> bytes:
    pair = f"{min(one, other)}\0{max(one, other)}"
    return hashlib.blake2b(pair.encode(), digest_size=8).digest()
