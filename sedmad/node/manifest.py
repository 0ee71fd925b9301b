"""A manifest as the daemon uses it: where a matrix lies, signed by its owner."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

from google.protobuf.message import DecodeError

from sedmad.core.accuracy import EXACT, Accuracy
from sedmad.core.partitioning import Partitioning
from sedmad.errors import CertificateInvalid, ProtocolViolation, SedmadError, UsageError
from sedmad.net.identity import Identity, peer_id_of, verify
from sedmad.node import scale
from sedmad.node.records import DATA_TYPES, DTYPES
from sedmad.node.succession import Guardianship, check_successions, read_guardianship, sign_guardianship
from sedmad.store.digests import DIGEST_BYTES
from sedmad.store.holdings import Kind
from sedmad.store.manifests import ManifestKey
from sedmad.wire import messages as wire
from sedmad.wire.matrix_digest import matrix_digest

MANIFEST_DOMAIN = "sedma/v1/manifest"
ITEMSIZE = {"float16": 2, "float32": 4, "float64": 8, "int8": 1}
# How a matrix is cut is asked for with every product: as many matrices as are multiplied with at once, and more.
PARTITIONINGS_KEPT = 1024
_KINDS = {Kind.RESIDENT: wire.COPY_KIND_RESIDENT, Kind.STANDBY: wire.COPY_KIND_STANDBY}
KINDS: dict[int, Kind] = {number: kind for kind, number in _KINDS.items()}


def kind_to_wire(kind: Kind) -> wire.CopyKind.ValueType:
    return _KINDS[kind]


@dataclass(frozen=True, slots=True)
class Manifest:
    """Where the partitions of one matrix lie.

    Attributes:
        guardians_before: those of the last established manifest, where they are others; until this one is established,
            nothing is decided without most of them.
        copies_established: the last established manifest names all copies that this one names, and maybe more.
        digests: of each partition, 32 bytes.
        copies: of each partition, the kind of each holder's copy by peer id; the resident one first.
        successions: how the matrix came to its owner, one encoded link for each time that it was passed on.
        guardianship: the guardians, signed by themselves: what the next link begins with.
        scale: of int8, a factor for each row, little-endian float32; empty where there is none.
        accuracy: what is asked of products.
        encoded: the bytes that were signed, for the digest that the next manifest names.
    """

    key: ManifestKey
    owner: str
    guardians: tuple[str, ...]
    epoch: int
    seq: int
    dtype: str
    rows: int
    columns: int
    partition_rows: int
    survive: int
    digests: tuple[bytes, ...]
    copies: tuple[dict[str, Kind], ...]
    previous_digest: bytes = b""
    written_at_s: float = 0.0
    removed: bool = False
    guardians_before: tuple[str, ...] = ()
    copies_established: bool = False
    successions: tuple[bytes, ...] = ()
    guardianship: bytes = b""
    scale: bytes = b""
    accuracy: Accuracy = EXACT
    encoded: bytes = b""

    @property
    def order(self) -> tuple[int, int]:
        return (self.epoch, self.seq)

    @property
    def group_key(self) -> bytes:
        """What stands for the matrix in the table of holdings."""
        return group_key(self.key)

    @property
    def size_bytes(self) -> int:
        return self.rows * self.columns * ITEMSIZE[self.dtype]

    @property
    def holders(self) -> frozenset[str]:
        return frozenset(peer_id for copies in self.copies for peer_id in copies)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the signed bytes."""
        return hashlib.sha256(self.encoded).digest()

    @property
    def partitioning(self) -> Partitioning:
        """How the matrix is cut."""
        return _partitioning(self.rows, self.columns, ITEMSIZE[self.dtype])

    def rows_of(self, index: int) -> tuple[int, int]:
        """Return the first row of a partition and the row behind its last."""
        start = index * self.partition_rows
        return start, min(start + self.partition_rows, self.rows)

    def size_of(self, index: int) -> int:
        """Return the bytes of a partition."""
        start, stop = self.rows_of(index)
        return (stop - start) * self.columns * ITEMSIZE[self.dtype]

    def held_by(self, peer_id: str) -> dict[int, Kind]:
        """Return the partitions that a node has to hold, and how."""
        return {index: copies[peer_id] for index, copies in enumerate(self.copies) if peer_id in copies}


@lru_cache(maxsize=PARTITIONINGS_KEPT)
def _partitioning(rows: int, columns: int, itemsize: int) -> Partitioning:
    return Partitioning(rows, columns, itemsize)


def group_key(key: ManifestKey) -> bytes:
    """Return the bytes that stand for a matrix in the table of holdings."""
    return key.matrix_digest + key.first_owner.encode()


def key_of_group(group: bytes) -> ManifestKey:
    """Return the matrix that these bytes stand for; see `group_key`."""
    return ManifestKey(group[:DIGEST_BYTES], group[DIGEST_BYTES:].decode())


def sign_manifest(manifest: Manifest, identity: Identity) -> wire.SignedManifest:
    """Return the manifest as its owner tells it."""
    encoded = _to_wire(manifest).SerializeToString(deterministic=True)
    return wire.SignedManifest(
        manifest=encoded,
        signature=identity.sign(MANIFEST_DOMAIN, encoded),
        owner_public_key=identity.public_key,
        successions=[wire.Succession.FromString(link) for link in manifest.successions],
        guardianship=wire.SignedGuardianship.FromString(
            sign_guardianship(_guardianship_of(manifest), identity)
        ),
    )


def read_manifest(signed: wire.SignedManifest) -> Manifest:
    """Return what a signed manifest says, once its owner's signature holds.

    Raises:
        ProtocolViolation, CertificateInvalid: it is malformed, contradicts itself, or is not its owner's.
    """
    try:
        message = wire.Manifest.FromString(signed.manifest)
    except DecodeError as error:
        raise ProtocolViolation("a manifest is malformed", why=str(error)) from error
    try:
        owner = peer_id_of(signed.owner_public_key)
        if owner != message.owner or not verify(
            signed.owner_public_key, MANIFEST_DOMAIN, signed.manifest, signed.signature
        ):
            raise CertificateInvalid("a manifest is not signed by its owner", node=message.owner)
        manifest = _from_wire(message, signed)
        if read_guardianship(signed.guardianship) != _guardianship_of(manifest):
            raise ProtocolViolation("a manifest's guardians are not those that its owner signed", node=owner)
        check_successions(manifest.key, owner, manifest.epoch, signed.successions)
        return manifest
    except (IndexError, KeyError, UsageError) as error:
        raise ProtocolViolation("a manifest contradicts itself", why=repr(error)) from error


def _guardianship_of(manifest: Manifest) -> Guardianship:
    return Guardianship(
        manifest.key,
        manifest.epoch,
        manifest.seq,
        manifest.owner,
        manifest.guardians,
        manifest.guardians_before,
    )


def _to_wire(manifest: Manifest) -> wire.Manifest:
    holders = sorted(manifest.holders)
    places = {peer_id: place for place, peer_id in enumerate(holders)}
    return wire.Manifest(
        matrix_digest=manifest.key.matrix_digest,
        first_owner=manifest.key.first_owner,
        owner=manifest.owner,
        guardians=manifest.guardians,
        epoch=manifest.epoch,
        seq=manifest.seq,
        previous_digest=manifest.previous_digest,
        data_type=DATA_TYPES[manifest.dtype],
        rows=manifest.rows,
        columns=manifest.columns,
        partition_rows=manifest.partition_rows,
        survive=manifest.survive,
        partitions=[
            wire.Partition(
                digest=digest,
                copies=[
                    wire.Copy(holder=places[peer_id], kind=_KINDS[kind]) for peer_id, kind in copies.items()
                ],
            )
            for digest, copies in zip(manifest.digests, manifest.copies, strict=True)
        ],
        written_at_s=manifest.written_at_s,
        removed=manifest.removed,
        holders=holders,
        guardians_before=manifest.guardians_before,
        copies_established=manifest.copies_established,
        scale=manifest.scale,
        target_error=manifest.accuracy.target_error,
        profile=manifest.accuracy.profile,
    )


def _from_wire(message: wire.Manifest, signed: wire.SignedManifest) -> Manifest:
    dtype = DTYPES[message.data_type]
    try:
        partitioning = Partitioning(message.rows, message.columns, ITEMSIZE[dtype])
    except SedmadError as error:
        raise ProtocolViolation("a manifest describes no matrix", why=error.what) from error
    if partitioning.partition_rows != message.partition_rows or partitioning.count != len(message.partitions):
        raise ProtocolViolation("a manifest's partitions do not fit its shape")
    digests = tuple(partition.digest for partition in message.partitions)
    if not scale.fits(message.scale, dtype, message.rows):
        raise ProtocolViolation("a manifest's scale does not fit its matrix")
    content = matrix_digest(
        message.data_type,
        message.rows,
        message.columns,
        message.partition_rows,
        digests,
        message.scale,
        message.target_error,
        message.profile,
    )
    if message.matrix_digest != content or any(len(digest) != DIGEST_BYTES for digest in digests):
        raise ProtocolViolation("a manifest's partitions are not those of its matrix")
    copies = tuple(
        {message.holders[copy.holder]: KINDS[copy.kind] for copy in partition.copies}
        for partition in message.partitions
    )
    if not all(copies):
        raise ProtocolViolation("a manifest names no holder of a partition")
    return Manifest(
        key=ManifestKey(message.matrix_digest, message.first_owner),
        owner=message.owner,
        guardians=tuple(message.guardians),
        epoch=message.epoch,
        seq=message.seq,
        dtype=dtype,
        rows=message.rows,
        columns=message.columns,
        partition_rows=message.partition_rows,
        survive=message.survive,
        digests=digests,
        copies=copies,
        previous_digest=message.previous_digest,
        written_at_s=message.written_at_s,
        removed=message.removed,
        guardians_before=tuple(message.guardians_before),
        copies_established=message.copies_established,
        successions=tuple(link.SerializeToString() for link in signed.successions),
        guardianship=signed.guardianship.SerializeToString(),
        scale=message.scale,
        accuracy=Accuracy(message.target_error, message.profile),
        encoded=signed.manifest,
    )
