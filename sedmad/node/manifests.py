"""Where matrices lie: the manifests that this node keeps as owner, guardian or holder, and those it asks others for.

Owners write; guardians and holders keep; everybody else asks a guardian and remembers the answer for a while.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import structlog
import trio

from sedmad.core.membership.claim import Claim, short_id
from sedmad.errors import (
    HoldersUnreachable,
    MatrixNotFound,
    NotPermitted,
    SedmadError,
    StaleManifest,
)
from sedmad.net.calls import IncomingCall
from sedmad.net.identity import Identity
from sedmad.net.sessions import Sessions
from sedmad.node.clock import monotonic_s, wall_time_s
from sedmad.node.keeping import keep_record
from sedmad.node.manifest import Manifest, key_from_wire, key_to_wire, read_manifest, sign_manifest
from sedmad.node.membership import MembershipService
from sedmad.node.records import read_record
from sedmad.node.replies import read_reply
from sedmad.store import manifests as manifest_table
from sedmad.store.database import Connection, Database
from sedmad.store.manifests import ManifestKey, Role, StoredManifest, StoredTombstone
from sedmad.wire import messages as wire

log = structlog.get_logger("sedmad.manifests")

STORE_MANIFEST = "sedma.v1.ManifestService/StoreManifest"
GET_MANIFEST = "sedma.v1.ManifestService/GetManifest"
# Manifests of matrices that this node only multiplies with; 50 bytes a partition each.
CACHED_MAX = 1024
ASK_TIMEOUT_S = 3.0

Transaction = Callable[[Connection], None]


class ManifestService:
    """Keeps, gives, and looks up manifests; serves ManifestService of the contract.

    Args:
        applying: entered with a manifest and the put that it commits, around the transaction that stores it; gives
            what belongs into that transaction, and does the rest once it is on disk.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        database: Database,
        sessions: Sessions,
        membership: MembershipService,
        stored: Iterable[StoredManifest],
        applying: Callable[[Manifest, bytes], AbstractAsyncContextManager[Transaction]],
    ) -> None:
        self._identity = identity
        self._database = database
        self._sessions = sessions
        self._membership = membership
        self._applying = applying
        self._signed: dict[ManifestKey, wire.SignedManifest] = {}
        self._kept: dict[ManifestKey, Manifest] = {}
        self._cached: OrderedDict[ManifestKey, Manifest] = OrderedDict()
        # Of matrices whose manifest is being written here, as many as there are tasks at it.
        self._writing: dict[ManifestKey, trio.Lock] = {}
        for manifest in stored:
            signed = wire.SignedManifest.FromString(manifest.signed)
            self._kept[manifest.key] = read_manifest(signed)
            self._signed[manifest.key] = signed

    def kept(self) -> list[Manifest]:
        """Return the manifests that this node keeps."""
        return list(self._kept.values())

    def get_kept(self, key: ManifestKey) -> Manifest | None:
        """Return the manifest of a key if this node keeps it."""
        return self._kept.get(key)

    def known(self, key: ManifestKey) -> Manifest | None:
        """Return the newest manifest of a key that is kept or remembered here."""
        found = [
            manifest for manifest in (self._kept.get(key), self._cached.get(key)) if manifest is not None
        ]
        return max(found, key=lambda manifest: manifest.order, default=None)

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

    async def look_up(self, claim: Claim, *, deadline: float, after: Manifest | None = None) -> Manifest:
        """Return the manifest behind a name, from here or from its guardians.

        Args:
            after: one that a holder called stale; only a newer one helps.

        Raises:
            MatrixNotFound: its owner does not keep it any more; the news has not come here yet.
            HoldersUnreachable: nobody who keeps it answers.
        """
        key = ManifestKey(claim.matrix_digest, claim.first_owner)
        known = self.known(key)
        wanted = (claim.epoch, claim.seq)
        if after is not None and after.key == key:
            wanted = max(wanted, (after.epoch, after.seq + 1))
        if known is not None and known.order >= wanted:
            return known
        # Guardians first; where they are gone, holders keep it too, and in a small mesh anybody may be one.
        guardians = set(claim.guardians)
        rows = [row for row in self._membership.peers() if row.state != "dead"]
        rows.sort(
            key=lambda row: (short_id(row.peer_id) not in guardians, row.state != "alive", row.rtt_s or 1.0)
        )
        asked = []
        for row in rows:
            if self._sessions.attached(row.peer_id) is None:
                continue
            asked.append(row.advert.name)
            try:
                manifest = await self._ask(row.peer_id, key, deadline)
            except SedmadError as error:
                log.debug("manifest_not_found", peer=row.peer_id, why=error.what)
                if isinstance(error, MatrixNotFound) and row.peer_id == claim.owner:
                    raise MatrixNotFound(f"{claim.name} was removed", matrix=claim.name) from error
                continue
            if manifest.order >= wanted:
                return manifest
        if known is not None:
            return known
        raise HoldersUnreachable(
            f"nobody who answers knows where {claim.name} lies",
            why=f"asked: {', '.join(asked) or 'nobody is connected'}",
            matrix=claim.name,
        )

    async def _ask(self, peer_id: str, key: ManifestKey, deadline: float) -> Manifest:
        encoded = await self._sessions.call(
            peer_id,
            GET_MANIFEST,
            wire.GetManifestRequest(key=key_to_wire(key)),
            deadline=min(deadline, monotonic_s() + ASK_TIMEOUT_S),
        )
        manifest = read_manifest(read_reply(wire.GetManifestResponse, encoded, peer_id).manifest)
        if manifest.key != key:
            raise NotPermitted("a peer answered with another manifest", node=peer_id)
        self._remember(manifest)
        return manifest

    def _remember(self, manifest: Manifest) -> None:
        kept = self._cached.get(manifest.key)
        if kept is None or kept.order < manifest.order:
            self._cached[manifest.key] = manifest
            self._cached.move_to_end(manifest.key)
            if len(self._cached) > CACHED_MAX:
                self._cached.popitem(last=False)

    async def store_own(
        self, manifest: Manifest, *, put_id: bytes = b"", also: Transaction | None = None
    ) -> tuple[Manifest, wire.SignedManifest]:
        """Sign a manifest of ours and put it on disk, in one transaction with `also`."""
        signed = sign_manifest(manifest, self._identity)
        manifest = read_manifest(signed)
        await self._store(manifest, signed, Role.OWNER, put_id, also)
        return manifest, signed

    def signed(self, key: ManifestKey) -> wire.SignedManifest:
        """Return a kept manifest as its owner told it."""
        return self._signed[key]

    async def tell(
        self,
        signed: wire.SignedManifest,
        peers: Iterable[str],
        *,
        deadline: float,
        put_id: bytes = b"",
        claim: bytes = b"",
    ) -> set[str]:
        """Give a manifest, and the name that goes with it, to peers at once; return those that have it on disk."""
        stored: set[str] = set()

        async def tell_one(peer_id: str) -> None:
            request = wire.StoreManifestRequest(manifest=signed, put_id=put_id)
            if claim:
                request.claim.ParseFromString(claim)
            try:
                await self._sessions.call(peer_id, STORE_MANIFEST, request, deadline=deadline)
            except SedmadError as error:
                log.warning("manifest_not_told", peer=peer_id, why=str(error))
            else:
                stored.add(peer_id)

        async with trio.open_nursery() as nursery:
            for peer_id in peers:
                nursery.start_soon(tell_one, peer_id)
        return stored

    async def store_manifest(
        self, request: wire.StoreManifestRequest, call: IncomingCall
    ) -> wire.StoreManifestResponse:
        """Keep a manifest that its owner tells."""
        manifest = read_manifest(request.manifest)
        if manifest.owner != call.remote:
            raise NotPermitted("only its owner tells a manifest", node=call.remote)
        own = self._membership.core.peer_id
        role = Role.GUARDIAN if own in manifest.guardians else Role.NONE
        if own in manifest.holders:
            role |= Role.HOLDER
        claim = read_record(request.claim.SerializeToString()) if request.HasField("claim") else None
        also = None if claim is None else partial(keep_record, signed=claim)
        await self._store(manifest, request.manifest, role, request.put_id, also)
        if claim is not None:
            self._membership.hear(call.remote, claim)
        return wire.StoreManifestResponse()

    async def _store(
        self,
        manifest: Manifest,
        signed: wire.SignedManifest,
        role: Role,
        put_id: bytes,
        also: Transaction | None,
    ) -> None:
        async with self._applying(manifest, put_id) as apply:

            def transaction(connection: Connection) -> None:
                self._write(connection, manifest, signed, role)
                apply(connection)
                if also is not None:
                    also(connection)

            await self._database.write(transaction)
            self._keep(manifest, signed)

    async def get_manifest(
        self, request: wire.GetManifestRequest, call: IncomingCall
    ) -> wire.GetManifestResponse:
        """Give a manifest that this node keeps."""
        signed = self._signed.get(key_from_wire(request.key))
        if signed is None:
            raise MatrixNotFound("this node does not keep that manifest", hint="")
        return wire.GetManifestResponse(manifest=signed)

    def require_current(self, key: ManifestKey, order: tuple[int, int]) -> Manifest:
        """Return the kept manifest that a request speaks of.

        Raises:
            MatrixNotFound: this node holds nothing of it.
            StaleManifest: this node knows a newer one.
        """
        kept = self._kept.get(key)
        if kept is None:
            raise MatrixNotFound("this node holds nothing of that matrix", hint="")
        if kept.order > order:
            raise StaleManifest(
                "the matrix lies elsewhere now", why=f"{order} was asked for, {kept.order} is known"
            )
        return kept

    def _write(
        self, connection: Connection, manifest: Manifest, signed: wire.SignedManifest, role: Role
    ) -> None:
        encoded = signed.SerializeToString()
        if manifest.removed:
            manifest_table.bury(
                connection,
                StoredTombstone(manifest.key, manifest.epoch, manifest.seq, encoded, wall_time_s()),
            )
        else:
            stored = StoredManifest(manifest.key, manifest.epoch, manifest.seq, encoded, role)
            manifest_table.put(connection, stored)

    def _keep(self, manifest: Manifest, signed: wire.SignedManifest) -> None:
        self._cached.pop(manifest.key, None)
        if manifest.removed:
            self._kept.pop(manifest.key, None)
            self._signed.pop(manifest.key, None)
        else:
            self._kept[manifest.key] = manifest
            self._signed[manifest.key] = signed
