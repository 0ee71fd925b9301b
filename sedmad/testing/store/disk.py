"""What a simulated node has on disk, and the values that are kept there: manifests, copies, promises, names, bytes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace

from sedmad.core.membership import Claim, SignedRecord
from sedmad.core.ownership import Promise, Standing
from sedmad.core.partitioning import Partitioning
from sedmad.core.repair import Layout
from sedmad.errors import StaleManifest
from sedmad.sizes import MIB
from sedmad.testing.guardian import Line

# Partitions of 64 rows and 8 MiB each: as real ones are, and a matrix is as many of them as a test wants.
PARTITION_BYTES = 8 * MIB
COLUMNS = PARTITION_BYTES // (64 * 4)
# What every matrix's line of manifests begins with, written or not.
ROOT: Line = ((-1, -1, ""),)


@dataclass(frozen=True, slots=True)
class Key:
    """A matrix: its content, and the node that stored it first."""

    content: str
    first_owner: str

    @property
    def digest(self) -> bytes:
        """What a claim names it by: 32 bytes that it can be read from."""
        return self.content.encode().ljust(32, b".")

    @classmethod
    def of(cls, claim: Claim) -> Key:
        return cls(claim.matrix_digest.rstrip(b".").decode(), claim.first_owner)

    def __str__(self) -> str:
        return f"{self.content}@{self.first_owner}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """Where a matrix lies; the fields are those of the daemon's own. `line` is what it goes back to, for the ledger.

    A removed matrix whose end no majority was asked about, as it never was promised to anybody, is `retired`.
    """

    key: Key
    owner: str
    guardians: tuple[str, ...]
    epoch: int
    seq: int
    survive: int
    digests: tuple[str, ...]
    copies: tuple[Mapping[str, bool], ...]
    removed: bool = False
    retired: bool = False
    guardians_before: tuple[str, ...] = ()
    copies_established: bool = False
    successions: tuple[tuple[str, int], ...] = ()
    begun_in: int = 0
    line: Line = ROOT

    @property
    def order(self) -> tuple[int, int]:
        return self.epoch, self.seq

    @property
    def cut(self) -> Partitioning:
        return cut_into(len(self.digests))

    @property
    def holders(self) -> frozenset[str]:
        return frozenset(peer for copies in self.copies for peer in copies)

    @property
    def concerned(self) -> frozenset[str]:
        """The nodes that keep it."""
        return self.holders.union(self.guardians, self.guardians_before)

    def held_by(self, peer_id: str) -> dict[int, bool]:
        """Return the partitions that a node has to hold, and whether resident."""
        return {index: copies[peer_id] for index, copies in enumerate(self.copies) if peer_id in copies}

    def layout(self) -> Layout:
        return Layout(self.key.digest, self.cut, self.survive, self.owner, self.guardians, self.copies)

    def written(self) -> Manifest:
        """Return it with its own place at the end of its line; `line` is the one before's until then."""
        return replace(self, line=(*self.line, (self.epoch, self.seq, self.owner)))

    def __str__(self) -> str:
        end = " retired" if self.retired else " removed" if self.removed else ""
        copies = " ".join(
            ",".join(peer + "*" * resident for peer, resident in copies.items()) for copies in self.copies
        )
        return f"{self.key} {self.epoch}.{self.seq} of {self.owner}{end} [{copies}] by {','.join(self.guardians)}"


def cut_into(partitions: int) -> Partitioning:
    return Partitioning(64 * partitions, COLUMNS, 4)


def digests_of(content: str, partitions: int) -> tuple[str, ...]:
    """Return the digests of a content's partitions, which stand for their bytes as well."""
    return tuple(f"{content}/{index}" for index in range(partitions))


@dataclass(frozen=True, slots=True)
class Kept:
    """A manifest on disk."""

    manifest: Manifest
    established: bool

    def standing(self) -> Standing:
        manifest = self.manifest
        return Standing(
            manifest.key,
            manifest.owner,
            manifest.guardians,
            manifest.epoch,
            manifest.seq,
            manifest.guardians_before,
            self.established,
            manifest,
        )


@dataclass(frozen=True, slots=True)
class Holding:
    """A copy: of a matrix, or, by its id, of a put that is not a matrix yet."""

    group: Hashable
    index: int
    digest: str
    resident: bool

    @property
    def memory_bytes(self) -> int:
        return PARTITION_BYTES * self.resident


@dataclass(slots=True)
class Disk:
    """What survives a crash: each method is a transaction of the daemon's tables.

    Attributes:
        blobs: bytes by the digest that they should have; it stands for itself, so other bytes are others.
        puts: whom to tell that a put came to nothing, by its id.
        shrunk: copies or bytes went, since somebody last looked; `changed`: other copies are here than then.
    """

    kept: dict[Key, Kept] = field(default_factory=dict)
    tombstones: dict[Key, Manifest] = field(default_factory=dict)
    promised: dict[Key, Promise] = field(default_factory=dict)
    holdings: dict[tuple[Hashable, int], Holding] = field(default_factory=dict)
    records: dict[tuple[str, ...], SignedRecord] = field(default_factory=dict)
    puts: dict[str, frozenset[str]] = field(default_factory=dict)
    blobs: dict[str, str] = field(default_factory=dict)
    shrunk: bool = False
    changed: bool = False

    def keep(self, manifest: Manifest, *, established: bool) -> None:
        """Write a manifest down. Raises StaleManifest where something newer is kept, or promised."""
        key, order = manifest.key, manifest.order
        promised, kept, grave = self.promised.get(key), self.kept.get(key), self.tombstones.get(key)
        if promised is not None and not established:
            mine = manifest.epoch == promised.epoch and manifest.owner == promised.candidate
            if manifest.epoch <= promised.epoch and not mine:
                raise StaleManifest(f"epoch {promised.epoch} is promised to {promised.candidate}")
        if kept is not None and kept.manifest.order > order:
            raise StaleManifest(f"{kept.manifest.order} is kept")
        if grave is not None and grave.order > order:
            raise StaleManifest(f"it ended with {grave.order}")
        if manifest.removed and established:
            self.tombstones[key] = manifest
            self.kept.pop(key, None)
            self.promised.pop(key, None)
            return
        if kept is not None and kept.manifest.order == order and kept.manifest != manifest:
            raise StaleManifest(f"another manifest of order {order} is kept")
        if grave is not None and grave.order == order:
            raise StaleManifest(f"it ended with {order}")
        self.tombstones.pop(key, None)
        was_established = kept is not None and kept.manifest == manifest and kept.established
        self.kept[key] = Kept(manifest, established or was_established)

    def hold(self, holding: Holding) -> None:
        self.holdings[holding.group, holding.index] = holding
        self.changed = True

    def release(self, group: Hashable, index: int | None = None) -> None:
        """Drop one copy of a group, or all."""
        for place in [place for place in self.holdings if place[0] == group and index in (None, place[1])]:
            del self.holdings[place]
            self.shrunk = self.changed = True

    def begin(self, put_id: str, holders: frozenset[str]) -> None:
        self.puts[put_id] = holders

    def end(self, put_id: str) -> None:
        self.puts.pop(put_id, None)

    def put_bytes(self, digest: str, content: str) -> None:
        self.blobs[digest] = content

    def drop_bytes(self, digest: str) -> None:
        self.shrunk |= self.blobs.pop(digest, None) is not None

    def has_copy(self, key: Key, index: int, digest: str) -> bool:
        """Whether an intact copy of a matrix's partition is here."""
        return (key, index) in self.holdings and self.blobs.get(digest) == digest
