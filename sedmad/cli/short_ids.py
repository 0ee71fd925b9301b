"""Peer ids as people can bear them: the shortest beginnings that tell the known ones apart."""

from __future__ import annotations

from collections.abc import Iterable

# Every id of an Ed25519 key begins with the eight characters 12D3KooW.
CHARACTERS_MIN = 12


def short_ids(peer_ids: Iterable[str]) -> dict[str, str]:
    """Return a beginning for each id, all of one length, at least 12 characters, unique among them."""
    known = set(peer_ids)
    length = CHARACTERS_MIN
    while len({peer_id[:length] for peer_id in known}) < len(known):
        length += 1
    return {peer_id: peer_id[:length] for peer_id in known}
