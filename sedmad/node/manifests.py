"""Where matrices lie: the manifests that this node keeps as owner, guardian or holder.

An owner writes them; here they are checked against what is kept and promised, put on disk, and given to who asks. A
manifest is established once most of its guardians keep it; only then may it make anybody free bytes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import structlog
import trio
from google.protobuf.message import DecodeError

from sedmad import failpoints
from sedmad.core.membership.directory import Directory
from sedmad.core.membership.record import SignedRecord
from sedmad.errors import MatrixNotFound, NotPermitted, SedmadError, StaleManifest
from sedmad.net.calls import IncomingCall
from sedmad.net.identity import Identity
from sedmad.node.clock import wall_time_s
from sedmad.node.keeping import keep_record
from sedmad.node.manifest import Manifest, read_manifest, sign_manifest
from sedmad.node.membership import MembershipService
from sedmad.node.records import read_record
from sedmad.node.succession import begun_in, key_from_wire
from sedmad.store import manifests as manifest_table
from sedmad.store import promises as promise_table
from sedmad.store.database import Connection, Database
from sedmad.store.manifests import ManifestKey, Role, StoredManifest, StoredTombstone
from sedmad.wire import messages as wire

log = structlog.get_logger("sedmad.manifests")

Transaction = Callable[[Connection], None]

# A quarter of a KiB each. More names of one matrix are rare, and one keeps it from being freed until gossip tells the
# others.
NAMES_TOLD_MAX = 8


@dataclass(frozen=True, slots=True)
class KeptManifest:
    """A manifest on this node's disk, as its owner told it."""

    manifest: Manifest
    signed: wire.SignedManifest
    established: bool


class ManifestService:
    """Keeps and gives manifests; serves ManifestService of the contract.

    Args:
        applying: entered with a manifest, the put that it commits, and whether it is established, around the
            transaction that stores it; gives what belongs into that transaction, and does the rest once it is on disk.
        on_kept: called with each manifest once it is on disk, and again when it is established.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        database: Database,
        membership: MembershipService,
        stored: Iterable[StoredManifest],
        applying: Callable[[Manifest, bytes, bool], AbstractAsyncContextManager[Transaction]],
        on_kept: Callable[[Manifest], None] = lambda manifest: None,
    ) -> None:
        self._identity = identity
        self._database = database
        self._membership = membership
        self._applying = applying
        self._on_kept = on_kept
        self._kept: dict[ManifestKey, KeptManifest] = {}
        # Of matrices whose manifest is being written here, as many as there are tasks at it.
        self._writing: dict[ManifestKey, trio.Lock] = {}
        # Rows whose bits flipped; `keeping.mend_manifests` deals with them.
        self.damaged = [row.key for row in stored if not self.take_up(row)]

    def take_up(self, row: StoredManifest) -> bool:
        """Keep a manifest as it lies on disk; False where it is damaged."""
        try:
            signed = wire.SignedManifest.FromString(row.signed)
            manifest = read_manifest(signed)
        except (DecodeError, SedmadError) as error:
            log.error("manifest_damaged", digest=row.key.matrix_digest.hex()[:16], why=str(error))
            return False
        if (manifest.key, manifest.order) != (row.key, row.order):
            return False
        self._kept[row.key] = KeptManifest(manifest, signed, row.established)
        return True

    @property
    def own_peer_id(self) -> str:
        """This node."""
        return self._identity.peer_id

    def kept(self) -> list[Manifest]:
        """Return the manifests that this node keeps."""
        return [kept.manifest for kept in self._kept.values()]

    def get_kept(self, key: ManifestKey) -> Manifest | None:
        """Return the manifest of a key if this node keeps it."""
        kept = self._kept.get(key)
        return kept.manifest if kept else None

    def get(self, key: ManifestKey) -> KeptManifest | None:
        """Return what is kept of a key, with the owner's signature."""
        return self._kept.get(key)

    @asynccontextmanager
    async def writing(self, key: ManifestKey) -> AsyncIterator[None]:
        """Around everything that leads to a new manifest of a matrix of ours: one change comes after the other."""
        lock = self._writing.setdefault(key, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            statistics = lock.statistics()
            if not statistics.locked and not statistics.tasks_waiting:
                self._writing.pop(key, None)

    async def store_own(
        self,
        manifest: Manifest,
        *,
        put_id: bytes = b"",
        also: Transaction | None = None,
        established: bool = False,
    ) -> KeptManifest:
        """Sign a manifest of ours and put it on disk, in one transaction with `also`.

        Raises:
            StaleManifest: the matrix is somebody else's by now, or promised to somebody else.
        """
        signed = sign_manifest(manifest, self._identity)
        return await self.keep(signed, put_id=put_id, also=also, established=established)

    async def keep(
        self,
        signed: wire.SignedManifest,
        *,
        put_id: bytes = b"",
        also: Transaction | None = None,
        established: bool,
    ) -> KeptManifest:
        """Put a manifest on disk, in one transaction with `also` and with what it changes about the copies here.

        Raises:
            ProtocolViolation, CertificateInvalid: it is not its owner's word.
            StaleManifest: something newer is kept, or promised.
        """
        manifest = read_manifest(signed)
        self._require_descent(manifest, established)
        async with self._applying(manifest, put_id, established) as apply:

            def transaction(connection: Connection) -> None:
                self._write(connection, manifest, signed, established)
                apply(connection)
                if also is not None:
                    also(connection)

            await self._database.write(transaction)
            kept = self._note(KeptManifest(manifest, signed, established))
        self._on_kept(manifest)
        return kept

    async def establish(self, key: ManifestKey, order: tuple[int, int]) -> None:
        """Note that most guardians keep the manifest of this order, and free what it no longer names here."""
        kept = self._kept.get(key)
        if kept is not None and kept.manifest.order == order and not kept.established:
            await self.keep(kept.signed, established=True)

    # What members ask.

    async def store_manifest(
        self, request: wire.StoreManifestRequest, call: IncomingCall
    ) -> wire.StoreManifestResponse:
        """Keep a manifest that its owner tells; answer with the names that the matrix has, as far as known here."""
        manifest = read_manifest(request.manifest)
        if manifest.owner != call.remote:
            raise NotPermitted("only its owner tells a manifest", node=call.remote)
        claim = read_record(request.claim.SerializeToString()) if request.HasField("claim") else None
        also = None if claim is None else partial(keep_record, signed=claim)
        await self.keep(request.manifest, put_id=request.put_id, also=also, established=request.established)
        failpoints.reach("manifests.stored")
        if claim is not None:
            self._membership.hear(call.remote, claim)
        if request.established:
            return wire.StoreManifestResponse()
        names = names_of(self._membership.core.directory, manifest.key)
        return wire.StoreManifestResponse(names=[wire.SignedRecord.FromString(name.signed) for name in names])

    async def get_manifest(
        self, request: wire.GetManifestRequest, call: IncomingCall
    ) -> wire.GetManifestResponse:
        """Give the newest manifest that this node keeps of a matrix, its last one if it was removed."""
        key = key_from_wire(request.key)
        if kept := self._kept.get(key):
            return wire.GetManifestResponse(manifest=kept.signed, established=kept.established)
        if buried := await self.buried(key):
            return wire.GetManifestResponse(manifest=buried, established=True)
        raise MatrixNotFound("this node does not keep that manifest", hint="")

    async def buried(self, key: ManifestKey) -> wire.SignedManifest | None:
        """Return the last manifest of a matrix that was removed."""
        tombstone = await self._database.read(partial(manifest_table.latest_tombstone, key=key))
        return wire.SignedManifest.FromString(tombstone.signed) if tombstone else None

    def require_current(self, key: ManifestKey, order: tuple[int, int]) -> Manifest:
        """Return the kept manifest that a request speaks of.

        Raises:
            MatrixNotFound: this node holds nothing of it.
            StaleManifest: this node knows a newer one.
        """
        kept = self.get_kept(key)
        if kept is None:
            raise MatrixNotFound("this node holds nothing of that matrix", hint="")
        if kept.order > order:
            raise StaleManifest(
                "the matrix lies elsewhere now", why=f"{order} was asked for, {kept.order} is known"
            )
        return kept

    def _require_descent(self, manifest: Manifest, established: bool) -> None:
        """Refuse an owner that did not follow the one whose manifest is kept, unless that one ended the matrix.

        Where the end was missed here, an established manifest of the matrix that began again since shows it. What is
        in doubt here gives way to what was established without it.
        """
        kept = self.get(manifest.key)
        if kept is None or kept.manifest.removed or manifest.order <= kept.manifest.order:
            return
        owner, links = kept.manifest.owner, kept.manifest.successions
        began_again = begun_in(manifest.epoch, manifest.successions) > kept.manifest.epoch
        if (
            owner != manifest.owner
            and manifest.successions[: len(links)] != links
            and not (established and (began_again or not kept.established))
        ):
            raise StaleManifest(
                "a manifest does not follow the one that is kept", why=f"{owner} owns the matrix"
            )

    def _write(
        self, connection: Connection, manifest: Manifest, signed: wire.SignedManifest, established: bool
    ) -> None:
        if not established:
            _require_not_promised(connection, manifest)
        encoded = signed.SerializeToString()
        if manifest.removed and established:
            tombstone = StoredTombstone(manifest.key, manifest.epoch, manifest.seq, encoded, wall_time_s())
            manifest_table.bury(connection, tombstone)
            promise_table.forget(connection, manifest.key)
        else:
            stored = StoredManifest(
                manifest.key,
                manifest.epoch,
                manifest.seq,
                encoded,
                self._role(manifest),
                established,
            )
            manifest_table.put(connection, stored)

    def _role(self, manifest: Manifest) -> Role:
        own = self._identity.peer_id
        role = Role.OWNER if manifest.owner == own else Role.NONE
        if own in manifest.guardians:
            role |= Role.GUARDIAN
        if own in manifest.holders:
            role |= Role.HOLDER
        return role

    def _note(self, new: KeptManifest) -> KeptManifest:
        key = new.manifest.key
        before = self._kept.get(key)
        if before is not None and before.manifest.order == new.manifest.order and before.established:
            new = before
        if new.manifest.removed and new.established:
            self._kept.pop(key, None)
        else:
            self._kept[key] = new
        return new


def names_of(directory: Directory, key: ManifestKey) -> list[SignedRecord]:
    """Return the signed claims by which a matrix is reachable; not all where there are many."""
    claims = directory.naming(key.matrix_digest, key.first_owner)[:NAMES_TOLD_MAX]
    names = [directory.find(claim.name, key.first_owner) for claim in claims]
    return [name for name in names if name is not None]


def _require_not_promised(connection: Connection, manifest: Manifest) -> None:
    """Refuse what a guardian promised to refuse. What is established was so before the promise, or after all."""
    promised = promise_table.latest(connection, manifest.key)
    if promised is not None and (
        manifest.epoch < promised.epoch
        or (manifest.epoch == promised.epoch and manifest.owner != promised.candidate)
    ):
        raise StaleManifest(
            "a manifest was refused because the matrix is promised to another owner",
            why=f"epoch {promised.epoch} is promised to {promised.candidate}",
        )
