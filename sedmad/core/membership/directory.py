"""The directory of names: what a set of claims means, alike on every node.

For each name the directory keeps the greatest claim of each author, and of these the four greatest. That is a
pure function of the set of claims heard: the order of arrival, repetition and the way they came make no
difference. The greatest claim wins the name. A smaller one that nobody knowingly replaced is a conflict (two
sides of a split wrote the same name); it stays reachable as `name@author`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from sedmad.core.membership.claim import (
    MAX_ANCESTORS,
    MAX_COUNTER,
    TOMBSTONE_LIFETIME_S,
    Claim,
    short_id,
)
from sedmad.core.membership.record import SignedRecord
from sedmad.errors import InsufficientCapacity

MAX_NAMES = (
    65_536  # about 40 MiB of claims; a joining node hears all of them in minutes under the byte budget
)
MAX_AUTHORS_PER_NAME = 4  # sides of a split that wrote one name; the smallest claim of a fifth is forgotten
PEER_PREFIX_CHARACTERS = 16  # Ed25519 peer ids share their first 8


@dataclass(frozen=True, slots=True)
class Accepted:
    """The directory took a claim over; `evicted` made room for it at the same name."""

    evicted: tuple[SignedRecord, ...]


class Directory:
    """Names and what they stand for.

    >>> directory = Directory()
    >>> claim = directory.next_version(Claim("w", 0, bytes(32), first_owner="a", owner="a"))
    >>> directory.accept(SignedRecord(claim, b"signed")) is not None
    True
    >>> directory.get("w") is claim, claim.version
    (True, 1)
    """

    def __init__(self, names_maximum: int = MAX_NAMES) -> None:
        self._names: dict[str, tuple[SignedRecord, ...]] = {}  # greatest claim first
        # By matrix; at most MAX_AUTHORS_PER_NAME entries a name.
        self._names_of: dict[tuple[bytes, str], set[str]] = {}
        self._names_maximum = names_maximum
        self._clock = 0

    def __len__(self) -> int:
        """Number of names, tombstones included."""
        return len(self._names)

    def accept(self, signed: SignedRecord) -> Accepted | None:
        """Take a claim in; return None when it changes nothing: known, outdated, or one name too many."""
        claim = _claim(signed)
        heads = self._names.get(claim.name)
        if not self.has_room_for(claim.name):
            return None
        self._clock = max(self._clock, claim.clock)
        known = {_claim(head).first_owner: head for head in heads or ()}
        rival = known.get(claim.first_owner)
        if rival is not None and _rank(rival) >= _rank(signed):
            return None
        known[claim.first_owner] = signed
        ranked = sorted(known.values(), key=_rank, reverse=True)
        kept, evicted = ranked[:MAX_AUTHORS_PER_NAME], ranked[MAX_AUTHORS_PER_NAME:]
        if signed in evicted:
            return None
        self._index(claim.name, tuple(kept))
        return Accepted(evicted=tuple(evicted))

    def has_room_for(self, name: str) -> bool:
        """Say whether `name` is known already or can be added."""
        return name in self._names or len(self._names) < self._names_maximum

    def require_room_for(self, name: str) -> None:
        """Raise InsufficientCapacity when `name` would be one name too many."""
        if not self.has_room_for(name):
            raise InsufficientCapacity(
                f"the mesh has no room for the name {name!r}",
                why=f"It knows {self._names_maximum} names, removed ones of the last 90 days included.",
                hint="Remove names that are no longer used, or reuse one with --replace.",
                matrix=name,
            )

    def next_version(self, claim: Claim) -> Claim:
        """Return `claim` as the next version of its name: version, clock and ancestors are filled in.

        Raises:
            InsufficientCapacity: the name is new and the directory is full.
        """
        self.require_room_for(claim.name)
        clock = min(self._clock + 1, MAX_COUNTER)
        heads = self._names.get(claim.name)
        if heads is None:
            return replace(claim, version=1, clock=clock, ancestors=())
        winner = _claim(heads[0])
        ancestors = dict(winner.ancestors)
        ancestors[short_id(winner.first_owner)] = winner.version
        ancestors.pop(short_id(claim.first_owner), None)  # an author's own earlier versions go without saying
        latest = sorted(ancestors.items(), key=lambda item: item[1], reverse=True)[:MAX_ANCESTORS]
        return replace(claim, version=winner.version + 1, clock=clock, ancestors=tuple(sorted(latest)))

    def get(self, name: str) -> Claim | None:
        """Return the claim that `name` or `name@author` stands for; None if there is none or it was removed.

        After `@` any beginning of a peer id does that fits one claim only: of its author's, which no two claims of a
        name share, or of its owner's, who may have taken over several.
        """
        name, _, peer_id = name.partition("@")
        heads = self._names.get(name, ())
        if not peer_id:
            winner = _claim(heads[0]) if heads else None
            return None if winner is None or winner.removed else winner
        standing = list(_standing(heads))
        authored = [claim for claim in standing if claim.first_owner.startswith(peer_id)]
        matches = authored or [claim for claim in standing if claim.owner.startswith(peer_id)]
        return matches[0] if len(matches) == 1 else None

    def entries(self) -> Iterator[tuple[str, Claim]]:
        """Yield (name, claim) of everything reachable, in the order of names; conflicts as `name@author`."""
        for name in sorted(self._names):
            heads = self._names[name]
            winner = _claim(heads[0])
            for claim in _standing(heads):
                yield (
                    (name if claim is winner else f"{name}@{claim.first_owner[:PEER_PREFIX_CHARACTERS]}"),
                    claim,
                )

    def naming(self, matrix_digest: bytes, first_owner: str) -> list[Claim]:
        """Return the claims by which a matrix is reachable."""
        return [
            claim
            for name in sorted(self._names_of.get((matrix_digest, first_owner), ()))
            for claim in _standing(self._names[name])
            if (claim.matrix_digest, claim.first_owner) == (matrix_digest, first_owner)
        ]

    def promised_survive(self, matrix_digest: bytes, first_owner: str) -> int:
        """Return the loss of how many nodes a matrix is to survive: the most that one of its names promises."""
        return max((claim.survive for claim in self.naming(matrix_digest, first_owner)), default=0)

    def replaced(self, name: str) -> list[Claim]:
        """Return the claims of a name that are history: not removed, and a greater one was made knowing them."""
        claims = [_claim(head) for head in self._names.get(name, ())]
        return [
            claim
            for place, claim in enumerate(claims)
            if not claim.removed and any(greater.replaces(claim) for greater in claims[:place])
        ]

    def find(self, name: str, author: str) -> SignedRecord | None:
        """Return the signed claim of one author to a name, whatever its standing."""
        return next((head for head in self._names.get(name, ()) if _claim(head).first_owner == author), None)

    def records(self) -> Iterator[SignedRecord]:
        """Yield every claim kept, tombstones and history included."""
        for heads in self._names.values():
            yield from heads

    def drop_old_tombstones(self, wall_time_s: float) -> list[SignedRecord]:
        """Forget names removed over 90 days before the Unix time `wall_time_s`; return their claims."""
        horizon_s = wall_time_s - TOMBSTONE_LIFETIME_S
        dropped: list[SignedRecord] = []
        for name, heads in list(self._names.items()):
            claims = [_claim(head) for head in heads]
            if claims[0].removed and claims[0].wall_time_s < horizon_s and not any(_standing(heads)):
                dropped.extend(self._names[name])
                self._index(name, ())
        return dropped

    def _index(self, name: str, heads: tuple[SignedRecord, ...]) -> None:
        for head in self._names.pop(name, ()):
            matrix = _matrix(head)
            names = self._names_of.get(matrix, set())
            names.discard(name)
            if not names:
                self._names_of.pop(matrix, None)
        for head in heads:
            self._names_of.setdefault(_matrix(head), set()).add(name)
        if heads:
            self._names[name] = heads


def _standing(heads: tuple[SignedRecord, ...]) -> Iterator[Claim]:
    """Yield the winner and the conflicts of one name, without what was replaced or removed."""
    claims = [_claim(head) for head in heads]
    for place, claim in enumerate(claims):
        if not claim.removed and not any(greater.replaces(claim) for greater in claims[:place]):
            yield claim


def _matrix(signed: SignedRecord) -> tuple[bytes, str]:
    claim = _claim(signed)
    return claim.matrix_digest, claim.first_owner


def _claim(signed: SignedRecord) -> Claim:
    assert isinstance(signed.record, Claim)
    return signed.record


def _rank(signed: SignedRecord) -> tuple[object, ...]:
    # The signed bytes settle what the fields leave open, so that no two different records ever tie.
    return (*_claim(signed).order, signed.signed)
