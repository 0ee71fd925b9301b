"""A matrix comes in: placed before a byte moves, spooled to disk, copied to its holders while it still streams, and
named once every copy is on disk, and the manifest with all holders and most guardians.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import structlog
import trio

from sedmad.core.membership.claim import Claim, check_name, short_id
from sedmad.core.membership.record import SignedRecord
from sedmad.core.offers import Offer, guardians
from sedmad.core.partitioning import Partitioning
from sedmad.core.placement import Need, Placement, place
from sedmad.errors import InsufficientCapacity, NameTaken, NotEnoughPeers, SedmadError, UnsupportedDtype
from sedmad.net.calls import IncomingCall
from sedmad.net.identity import Identity
from sedmad.net.sessions import Sessions
from sedmad.node.clock import monotonic_s, wall_time_s
from sedmad.node.holding import PUT_ID_BYTES, HoldingService
from sedmad.node.keeping import keep_record
from sedmad.node.manifest import ITEMSIZE, Manifest, kind_to_wire
from sedmad.node.manifests import ManifestService
from sedmad.node.membership import MembershipService
from sedmad.node.offering import gather_offers
from sedmad.node.records import DATA_TYPES, DTYPES, sign_record
from sedmad.node.spooling import hash_stream, spool
from sedmad.store import manifests as manifest_table
from sedmad.store import puts as put_table
from sedmad.store.blobs import BlobStore
from sedmad.store.database import Connection, Database
from sedmad.store.holdings import Kind
from sedmad.store.manifests import ManifestKey
from sedmad.store.puts import StoredPut
from sedmad.store.spool import BlobWriter
from sedmad.wire import messages as wire
from sedmad.wire.matrix_digest import matrix_digest

log = structlog.get_logger("sedmad.putting")

RESERVE = "sedma.v1.HoldingService/ReserveCopies"
HOLD = "sedma.v1.HoldingService/HoldCopy"
RELEASE = "sedma.v1.HoldingService/ReleasePut"
# A refusal tells what really is free there; the next plan knows it.
PLANS_MAX = 3
RESERVE_TIMEOUT_S = 5.0
# A partition waits behind others for its holder's two transfers.
HOLD_TIMEOUT_S = 600.0
MANIFEST_TIMEOUT_S = 10.0
RELEASE_TIMEOUT_S = 5.0
CLEAR_UP_S = 5.0
PROGRESS_STEP_BYTES = 4 << 20
SURVIVE_MAX = 8


@dataclass(slots=True)
class _Put:
    """One put under way, at its owner."""

    put_id: bytes
    name: str
    partitioning: Partitioning
    dtype: str
    survive: int
    placement: Placement
    safe_bytes: int = 0
    received_bytes: int = 0
    changed: trio.Event = field(default_factory=trio.Event)

    @property
    def total_copy_bytes(self) -> int:
        return (self.survive + 1) * self.partitioning.total_bytes

    def copies_of(self, index: int) -> dict[str, Kind]:
        """Return the kind of each holder's copy, the resident one first."""
        partition = self.placement.partitions[index]
        return {partition.resident: Kind.RESIDENT} | dict.fromkeys(partition.standbys, Kind.STANDBY)

    def remote_holders(self, own_peer_id: str) -> list[str]:
        return sorted(self.placement.needs().keys() - {own_peer_id})


class PuttingService:
    """Stores matrices of which this node becomes the owner."""

    def __init__(
        self,
        *,
        identity: Identity,
        database: Database,
        blobs: BlobStore,
        sessions: Sessions,
        membership: MembershipService,
        manifests: ManifestService,
        holding: HoldingService,
        on_replaced: Callable[[Claim], None],
        retire: Callable[[Claim], Awaitable[object]],
    ) -> None:
        self._identity = identity
        self._own_peer_id = identity.peer_id
        self._database = database
        self._blobs = blobs
        self._sessions = sessions
        self._membership = membership
        self._manifests = manifests
        self._holding = holding
        self._on_replaced = on_replaced
        self._retire = retire
        self._names: set[str] = set()

    async def clear_up(self, abandoned: Iterable[StoredPut]) -> None:
        """Have puts that a crash of this node cut short given up by their holders, as these come into reach."""
        for put in abandoned:
            holders = set(put.intent.decode().split())
            while holders:
                for peer_id in sorted(holders):
                    if self._sessions.attached(peer_id) and await self._tell_release(peer_id, put.put_id):
                        holders.discard(peer_id)
                if holders:
                    await trio.sleep(CLEAR_UP_S)
            await self._database.write(partial(put_table.end, put_id=put.put_id))

    async def put(self, request: wire.PutMatrixRequest, call: IncomingCall) -> tuple[Claim, Manifest, bool]:
        """Store what a client streams; return its claim, its manifest, and whether it was there already.

        Raises:
            NameTaken: another matrix has the name.
            InsufficientCapacity, NotEnoughPeers: the mesh cannot hold it; no byte has moved.
            NonFiniteValues, ProtocolViolation: the values are not what was announced; nothing is kept.
        """
        check_name(request.name)
        dtype = DTYPES.get(request.data_type)
        if dtype is None:
            raise UnsupportedDtype("a matrix has float32 or float64 values", matrix=request.name)
        partitioning = Partitioning(request.rows, request.columns, ITEMSIZE[dtype])
        if request.name in self._names:
            raise NameTaken(
                "the same name is being stored right now", matrix=request.name, hint="Wait for it to end."
            )
        self._names.add(request.name)
        try:
            taken = self._membership.core.directory.get(request.name)
            if taken is not None and not request.replace:
                return await self._compare(request, call, taken, partitioning, dtype)
            return await self._store(request, call, taken, partitioning, dtype)
        finally:
            self._names.discard(request.name)

    async def _compare(
        self,
        request: wire.PutMatrixRequest,
        call: IncomingCall,
        taken: Claim,
        partitioning: Partitioning,
        dtype: str,
    ) -> tuple[Claim, Manifest, bool]:
        """The name is taken: that is fine if the content is the same, and nothing is stored again."""
        why = f"version {taken.version}: {taken.rows} x {taken.columns} {taken.dtype}"
        error = NameTaken(f"another matrix is stored as {request.name}", why=why, matrix=request.name)
        if (taken.rows, taken.columns, taken.dtype) != (request.rows, request.columns, dtype):
            raise error
        manifest = await self._manifests.look_up(taken, deadline=call.deadline)
        if manifest.survive < request.survive:
            raise NameTaken(
                f"{request.name} is stored to survive the loss of {manifest.survive} nodes, not {request.survive}",
                matrix=request.name,
                hint="Store it again with --replace.",
            )
        await call.send(wire.PutMatrixResponse())
        digests = await hash_stream(call.chunks(), partitioning)
        if tuple(digests) != manifest.digests:
            raise error
        return taken, manifest, True

    async def _store(
        self,
        request: wire.PutMatrixRequest,
        call: IncomingCall,
        replaced: Claim | None,
        partitioning: Partitioning,
        dtype: str,
    ) -> tuple[Claim, Manifest, bool]:
        self._membership.core.directory.require_room_for(request.name)
        put = await self._reserve(request, partitioning, dtype)
        committed = False
        try:
            async with trio.open_nursery() as nursery:
                await call.send(self._progress(put))
                nursery.start_soon(self._tell_progress, put, call)
                digests = await self._copy(put, request, call)
                nursery.cancel_scope.cancel()
            claim, manifest = await self._commit(put, digests)
            committed = True
        finally:
            if not committed:
                with trio.CancelScope(shield=True, deadline=monotonic_s() + RELEASE_TIMEOUT_S):
                    await self._abandon(put)
        if replaced is not None:
            self._on_replaced(replaced)
        return claim, manifest, False

    async def _reserve(self, request: wire.PutMatrixRequest, partitioning: Partitioning, dtype: str) -> _Put:
        """Plan, and have every holder set its room aside; plan again where one refuses."""
        survive = request.survive
        if survive > SURVIVE_MAX:
            raise NotEnoughPeers(
                f"a matrix survives the loss of at most {SURVIVE_MAX} nodes", matrix=request.name
            )
        refused: dict[str, InsufficientCapacity] = {}
        for _ in range(PLANS_MAX):
            offers = [offer for offer in self._offers() if offer.peer_id not in refused]
            try:
                placement = place(partitioning, survive, offers, request.name.encode())
            except (InsufficientCapacity, NotEnoughPeers) as error:
                error.matrix = request.name
                if refused:
                    told = "; ".join(str(refusal.why or refusal.what) for refusal in refused.values())
                    error.why = f"{error.why}\n{told}"
                raise
            put = _Put(
                secrets.token_bytes(PUT_ID_BYTES), request.name, partitioning, dtype, survive, placement
            )
            await self._database.write(
                partial(
                    put_table.begin,
                    put=StoredPut(
                        put.put_id, " ".join(put.remote_holders(self._own_peer_id)).encode(), wall_time_s()
                    ),
                )
            )
            failures = await self._reserve_everywhere(put, request.data_type)
            if not failures:
                return put
            refused |= failures
            await self._abandon(put)
        raise next(iter(refused.values()))

    async def _reserve_everywhere(self, put: _Put, data_type: int) -> dict[str, InsufficientCapacity]:
        failures: dict[str, InsufficientCapacity] = {}

        async def reserve(peer_id: str, need: Need) -> None:
            request = wire.ReserveCopiesRequest(
                put_id=put.put_id,
                resident_bytes=need.memory_bytes,
                disk_bytes=need.disk_bytes,
                rows=put.partitioning.rows,
                columns=put.partitioning.columns,
                data_type=data_type,  # type: ignore[arg-type]
            )
            try:
                if peer_id == self._own_peer_id:
                    self._holding.reserve(request, peer_id)
                else:
                    deadline = monotonic_s() + RESERVE_TIMEOUT_S
                    await self._sessions.call(peer_id, RESERVE, request, deadline=deadline)
            except SedmadError as error:
                name = self._membership.name_of(peer_id)
                failures[peer_id] = InsufficientCapacity(
                    f"{name} has no room for {put.name}", why=f"{name}: {error.why or error.what}", node=name
                )

        async with trio.open_nursery() as nursery:
            for peer_id, need in put.placement.needs().items():
                nursery.start_soon(reserve, peer_id, need)
        return failures

    async def _copy(self, put: _Put, request: wire.PutMatrixRequest, call: IncomingCall) -> list[bytes]:
        """Spool, and have each partition copied as soon as it is on disk here."""
        async with trio.open_nursery() as nursery:

            async def keep(index: int, writer: BlobWriter) -> None:
                digest = writer.digest
                await self._holding.need(digest)
                try:
                    await writer.commit()
                except BaseException:
                    self._holding.need_no_more(digest)
                    raise
                nursery.start_soon(self._copy_partition, put, index, digest)

            def on_progress(received_bytes: int) -> None:
                if received_bytes // PROGRESS_STEP_BYTES > put.received_bytes // PROGRESS_STEP_BYTES:
                    put.changed.set()
                put.received_bytes = received_bytes

            return await spool(
                call.chunks(),
                put.partitioning,
                put.dtype,
                self._blobs,
                name=put.name,
                allow_nonfinite=request.allow_nonfinite,
                keep=keep,
                on_progress=on_progress,
            )

    async def _copy_partition(self, put: _Put, index: int, digest: bytes) -> None:
        try:
            async with trio.open_nursery() as nursery:
                for peer_id, kind in put.copies_of(index).items():
                    nursery.start_soon(self._hold, put, index, digest, peer_id, kind)
        finally:
            # Its holders have it: the spooled bytes go, unless this node is one of them.
            self._holding.need_no_more(digest)

    async def _hold(self, put: _Put, index: int, digest: bytes, peer_id: str, kind: Kind) -> None:
        if peer_id == self._own_peer_id:
            await self._holding.hold(put.put_id, index, digest, kind)
        else:
            request = wire.HoldCopyRequest(
                put_id=put.put_id,
                partition_index=index,
                digest=digest,
                kind=kind_to_wire(kind),
                sources=[self._own_peer_id],
            )
            await self._sessions.call(peer_id, HOLD, request, deadline=monotonic_s() + HOLD_TIMEOUT_S)
        put.safe_bytes += put.partitioning.size_bytes(index)
        put.changed.set()

    async def _commit(self, put: _Put, digests: list[bytes]) -> tuple[Claim, Manifest]:
        """Write the manifest here, on the guardians and the holders, then the name."""
        partitioning = put.partitioning
        data_type = DATA_TYPES[put.dtype]
        content = matrix_digest(
            data_type, partitioning.rows, partitioning.columns, partitioning.partition_rows, digests
        )
        key = ManifestKey(content, self._own_peer_id)
        before = self._manifests.get_kept(key)
        chosen = guardians(self._own_peer_id, self._offers())
        manifest = Manifest(
            key=key,
            owner=self._own_peer_id,
            guardians=chosen,
            epoch=before.epoch if before else 0,
            seq=before.seq + 1 if before else await self._first_seq(key),
            dtype=put.dtype,
            rows=partitioning.rows,
            columns=partitioning.columns,
            partition_rows=partitioning.partition_rows,
            survive=put.survive,
            digests=tuple(digests),
            copies=tuple(put.copies_of(index) for index in range(partitioning.count)),
            previous_digest=before.digest if before else b"",
            written_at_s=wall_time_s(),
        )
        also, afterwards = self._holding.on_manifest(manifest, put.put_id)

        def transaction(connection: Connection) -> None:
            also(connection)
            put_table.end(connection, put.put_id)
            keep_record(connection, signed_claim)

        claim = self._claim(put.name, manifest)
        signed_claim = SignedRecord(claim, sign_record(claim, self._identity))
        manifest, signed = await self._manifests.store_own(manifest, transaction)
        afterwards()
        others = (set(chosen) | manifest.holders) - {self._own_peer_id}
        stored = await self._manifests.tell(
            signed,
            others,
            put_id=put.put_id,
            claim=signed_claim.signed,
            deadline=monotonic_s() + MANIFEST_TIMEOUT_S,
        )
        stored.add(self._own_peer_id)
        self._membership.publish_claim(claim)
        if manifest.holders - stored or len(stored & set(chosen)) < len(chosen) // 2 + 1:
            await self._retire(claim)
            names = ", ".join(sorted(self._membership.name_of(peer_id) for peer_id in others - stored))
            raise NotEnoughPeers(
                f"{put.name} could not be made safe",
                why=f"no answer came from {names}; all holders and most guardians have to keep its manifest",
                matrix=put.name,
                hint="Store it again.",
            )
        return claim, manifest

    def _offers(self) -> list[Offer]:
        return gather_offers(self._membership, self._holding.ledger)

    async def _first_seq(self, key: ManifestKey) -> int:
        """Return 1, or what comes after the matrix's last removal."""
        buried = await self._database.read(partial(manifest_table.latest_tombstone, key=key))
        return buried.seq + 1 if buried else 1

    def _claim(self, name: str, manifest: Manifest) -> Claim:
        claim = Claim(
            name=name,
            version=0,
            matrix_digest=manifest.key.matrix_digest,
            first_owner=manifest.key.first_owner,
            owner=manifest.owner,
            epoch=manifest.epoch,
            seq=manifest.seq,
            guardians=tuple(short_id(peer_id) for peer_id in manifest.guardians),
            rows=manifest.rows,
            columns=manifest.columns,
            dtype=manifest.dtype,
            survive=manifest.survive,
            wall_time_s=wall_time_s(),
        )
        return self._membership.core.directory.next_version(claim)

    async def _abandon(self, put: _Put) -> None:
        """Have everybody give up what the put had; those that cannot be told ask when they start again."""
        async with trio.open_nursery() as nursery:
            for peer_id in put.remote_holders(self._own_peer_id):
                nursery.start_soon(self._tell_release, peer_id, put.put_id)
        await self._holding.release(put.put_id)
        await self._database.write(partial(put_table.end, put_id=put.put_id))

    async def _tell_release(self, peer_id: str, put_id: bytes) -> bool:
        try:
            deadline = monotonic_s() + RELEASE_TIMEOUT_S
            await self._sessions.call(
                peer_id, RELEASE, wire.ReleasePutRequest(put_id=put_id), deadline=deadline
            )
        except SedmadError as error:
            log.warning("put_not_released", peer=peer_id, why=str(error))
            return False
        return True

    async def _tell_progress(self, put: _Put, call: IncomingCall) -> None:
        while True:
            await put.changed.wait()
            put.changed = trio.Event()
            await call.send(self._progress(put))

    def _progress(self, put: _Put) -> wire.PutMatrixResponse:
        return wire.PutMatrixResponse(
            received_bytes=put.received_bytes,
            safe_bytes=put.safe_bytes,
            total_copy_bytes=put.total_copy_bytes,
        )
