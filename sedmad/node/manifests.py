"""Where matrices lie: the manifests that this node keeps as owner, guardian or holder, and those it asks others for.

Owners write; guardians and holders keep; everybody else asks a guardian and remembers the answer for a while.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

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
        on_stored: called inside the transaction that stores another owner's manifest, with the put that it commits;
            it returns what to do when the transaction is on disk.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        database: Database,
        sessions: Sessions,
        membership: MembershipService,
        stored: Iterable[StoredManifest],
        on_stored: Callable[[Manifest, bytes], tuple[Transaction, Callable[[], object]]],
    ) -> None:
        self._identity = identity
        self._database = database
        self._sessions = sessions
        self._membership = membership
        self._on_stored = on_stored
        self._signed: dict[ManifestKey, wire.SignedManifest] = {}
        self._kept: dict[ManifestKey, Manifest] = {}
        self._cached: OrderedDict[ManifestKey, Manifest] = OrderedDict()
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
        """Return the manifest of a key if it is kept or remembered here."""
        return self._kept.get(key) or self._cached.get(key)

    async def look_up(self, claim: Claim, *, deadline: float) -> Manifest:
        """Return the manifest behind a name, from here or from its guardians.

        Raises:
            HoldersUnreachable: nobody who keeps it answers.
        """
        key = ManifestKey(claim.matrix_digest, claim.first_owner)
        known = self.known(key)
        if known is not None and known.order >= (claim.epoch, claim.seq):
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
                continue
            if manifest.order >= (claim.epoch, claim.seq):
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
        manifest = read_manifest(wire.GetManifestResponse.FromString(encoded).manifest)
        if manifest.key != key:
            raise NotPermitted("a peer answered with another manifest", node=peer_id)
        self._remember(manifest)
        return manifest

    def forget(self, key: ManifestKey) -> None:
        """Drop a remembered manifest that a holder called stale."""
        self._cached.pop(key, None)

    def _remember(self, manifest: Manifest) -> None:
        kept = self._cached.get(manifest.key)
        if kept is None or kept.order < manifest.order:
            self._cached[manifest.key] = manifest
            self._cached.move_to_end(manifest.key)
            if len(self._cached) > CACHED_MAX:
                self._cached.popitem(last=False)

    async def store_own(self, manifest: Manifest, also: Transaction) -> tuple[Manifest, wire.SignedManifest]:
        """Sign a manifest of ours and put it on disk, in one transaction with `also`."""
        signed = sign_manifest(manifest, self._identity)
        manifest = read_manifest(signed)

        def transaction(connection: Connection) -> None:
            self._write(connection, manifest, signed, Role.OWNER)
            also(connection)

        await self._database.write(transaction)
        self._keep(manifest, signed)
        return manifest, signed

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
        also, afterwards = self._on_stored(manifest, request.put_id)

        def transaction(connection: Connection) -> None:
            self._write(connection, manifest, request.manifest, role)
            also(connection)
            if claim is not None:
                keep_record(connection, claim)

        await self._database.write(transaction)
        self._keep(manifest, request.manifest)
        afterwards()
        if claim is not None:
            self._membership.hear(call.remote, claim)
        return wire.StoreManifestResponse()

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
