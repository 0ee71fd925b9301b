"""A name's claim: which matrix a name stands for, and who owns it.

Owns the claim, its bounds and its place in the order of claims. What a set of claims means is
`directory.py`'s affair.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

from sedmad.errors import UsageError

MAX_NAME_BYTES = 128  # a signed claim stays near 400 bytes, so that a hundred fit into one gossip message
MAX_GUARDIANS = 5
MAX_ANCESTORS = (
    8  # authors that one name has passed through; a ninth forgets the first, which may show as a conflict
)
SHORT_ID_BYTES = 8
TOMBSTONE_LIFETIME_S = 90 * 86_400.0  # nodes away for longer reconcile what they hold before they serve
MAX_COUNTER = (1 << 63) - 1

Order = tuple[int, int, str, int, int, bool, str, bytes, float]


def short_id(peer_id: str) -> bytes:
    """Return the 8 bytes that stand for a peer inside a claim (SHA-256, cut)."""
    return hashlib.sha256(peer_id.encode()).digest()[:SHORT_ID_BYTES]


@dataclass(frozen=True, slots=True)
class Claim:
    """A signed statement: under `name`, version `version` is this matrix.

    A version is made by one node, its author (`first_owner`), which fixes `version`, `clock` and `ancestors`.
    Ownership may pass on later under a higher `epoch`, and every new manifest raises `seq`; author, version
    and clock stay.

    Attributes:
        matrix_digest: 32 bytes; with `first_owner` the key of the matrix's manifest.
        clock: logical (Lamport) time of the version: one more than the greatest its author had seen.
        guardians: short ids of the nodes that keep the manifest.
        ancestors: (short id of an author, version): everything that this version knowingly replaced.
        removed: a tombstone. It keeps version and clock and raises `seq`, so that it takes its own claim's
            place only.
        wall_time_s: Unix time of the statement; tombstones are dropped `TOMBSTONE_LIFETIME_S` later.
        authorship: the author's signature over what it fixed, which a later owner hands on.

    Raises:
        UsageError: a field is out of bounds. For a claim that a peer sent, the caller blames the peer.
    """

    name: str
    version: int
    matrix_digest: bytes
    first_owner: str
    owner: str
    epoch: int = 0
    seq: int = 0
    clock: int = 0
    guardians: tuple[bytes, ...] = ()
    ancestors: tuple[tuple[bytes, int], ...] = ()
    removed: bool = False
    rows: int = 0
    columns: int = 0
    dtype: str = ""
    survive: int = 0
    wall_time_s: float = 0.0
    authorship: bytes = field(default=b"", compare=False)

    def __post_init__(self) -> None:
        check_name(self.name)
        counters = (self.version, self.epoch, self.seq, self.clock, self.rows, self.columns)
        _require(
            all(0 <= counter <= MAX_COUNTER for counter in counters),
            self,
            "a counter is no unsigned 63-bit number",
        )
        _require(len(self.matrix_digest) == 32, self, "its matrix digest is not 32 bytes")
        _require(
            0 < len(self.owner) <= 128 and 0 < len(self.first_owner) <= 128,
            self,
            "an owner is empty or too long",
        )
        _require(len(self.guardians) <= MAX_GUARDIANS, self, f"it has over {MAX_GUARDIANS} guardians")
        _require(len(self.ancestors) <= MAX_ANCESTORS, self, f"it has over {MAX_ANCESTORS} ancestors")
        short_ids = (*self.guardians, *(author for author, _ in self.ancestors))
        _require(all(len(short) == SHORT_ID_BYTES for short in short_ids), self, "a short id is not 8 bytes")
        _require(len(self.dtype) <= 16, self, "its dtype is too long")
        _require(len(self.authorship) <= 64, self, "its author's signature is too long")

    @property
    def order(self) -> Order:
        """Place in the one order that decides alike everywhere: the greatest claim of a name wins.

        Version and clock first, then the author: what its author or a later owner says about the same version
        (epoch, seq, removal) moves a claim among its own earlier statements, never past somebody else's.
        """
        return (
            self.version,
            self.clock,
            self.first_owner,
            self.epoch,
            self.seq,
            self.removed,
            self.owner,
            self.matrix_digest,
            self.wall_time_s,
        )

    def replaces(self, other: Claim) -> bool:
        """Say whether this claim was made knowing `other`, so that `other` is history and no conflict."""
        if other.first_owner == self.first_owner:
            return self.order > other.order
        author = short_id(other.first_owner)
        return self.order > other.order and any(
            author == ancestor and other.version <= version for ancestor, version in self.ancestors
        )

    def tombstone(self, wall_time_s: float) -> Claim:
        """Return the statement by which its owner removes this claim."""
        return replace(self, removed=True, seq=self.seq + 1, wall_time_s=wall_time_s)


def check_name(name: str) -> None:
    """Raise UsageError unless `name` can name a matrix: 1 to 128 bytes, printable, without `@`."""
    why = ""
    if not 0 < len(name.encode()) <= MAX_NAME_BYTES:
        why = f"A name has 1 to {MAX_NAME_BYTES} bytes; this one has {len(name.encode())}."
    elif not name.isprintable() or name != name.strip():
        why = "It contains characters that cannot be printed, or begins or ends with a space."
    elif "@" in name:
        why = "`@` separates a name from its owner where two nodes claimed the same name."
    if why:
        raise UsageError(
            f"{name[:MAX_NAME_BYTES]!r} cannot name a matrix", why=why, hint="Choose another name."
        )


def _require(condition: bool, claim: Claim, why: str) -> None:
    if not condition:
        raise UsageError(f"the claim of the name {claim.name!r} is not valid", why=why, matrix=claim.name)
