"""A matrix comes in: placed before a byte moves, spooled to disk, copied to its holders while it still streams, and
named once every copy is on disk, and the manifest with all holders and most guardians.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from sedmad.core.membership.claim import Claim, check_name
from sedmad.core.partitioning import Partitioning
from sedmad.core.placement import Need, place
from sedmad.errors import InsufficientCapacity, NameTaken, NotEnoughPeers, SedmadError, UnsupportedDtype
from sedmad.net.calls import IncomingCall
from sedmad.net.sessions import Sessions
from sedmad.node.clock import monotonic_s, wall_time_s
from sedmad.node.committing import CommittingService
from sedmad.node.holding import PUT_ID_BYTES, HoldingService
from sedmad.node.manifest import ITEMSIZE, Manifest, kind_to_wire
from sedmad.node.manifests import ManifestService
from sedmad.node.membership import MembershipService
from sedmad.node.offering import gather_offers
from sedmad.node.put import Put
from sedmad.node.records import DTYPES
from sedmad.node.spooling import hash_stream, spool
from sedmad.store import puts as put_table
from sedmad.store.blobs import BlobStore
from sedmad.store.database import Database
from sedmad.store.holdings import Kind
from sedmad.store.puts import StoredPut
from sedmad.store.spool import BlobWriter
from sedmad.wire import messages as wire

if TYPE_CHECKING:
    # libp2p brings stubs that hide trio's own types, this one among them.
    from trio_typing import TaskStatus

log = structlog.get_logger("sedmad.putting")

RESERVE = "sedma.v1.HoldingService/ReserveCopies"
HOLD = "sedma.v1.HoldingService/HoldCopy"
RELEASE = "sedma.v1.HoldingService/ReleasePut"
# A refusal tells what really is free there; the next plan knows it.
PLANS_MAX = 3
RESERVE_TIMEOUT_S = 5.0
# A partition waits behind others for its holder's two transfers.
HOLD_TIMEOUT_S = 600.0
RELEASE_TIMEOUT_S = 5.0
CLEAR_UP_S = 5.0
PROGRESS_STEP_BYTES = 4 << 20
# Partitions spooled here that their holders do not have yet, 512 MiB as a rule: enough to keep several holders busy,
# and a bound on what a client that is faster than they are takes of this disk.
AHEAD_MAX = 64
SURVIVE_MAX = 8


class PuttingService:
    """Stores matrices of which this node becomes the owner."""

    def __init__(
        self,
        *,
        own_peer_id: str,
        database: Database,
        blobs: BlobStore,
        sessions: Sessions,
        membership: MembershipService,
        manifests: ManifestService,
        holding: HoldingService,
        committing: CommittingService,
        on_replaced: Callable[[Claim], None],
    ) -> None:
        self._own_peer_id = own_peer_id
        self._database = database
        self._blobs = blobs
        self._sessions = sessions
        self._membership = membership
        self._manifests = manifests
        self._holding = holding
        self._committing = committing
        self._on_replaced = on_replaced
        # Names whose content is coming in, one for each call under way.
        self._names: set[str] = set()
        self._nursery: trio.Nursery | None = None

    async def run(
        self, abandoned: Iterable[StoredPut], task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Have puts that were cut short given up by their holders, as these come into reach, until cancelled.

        Args:
            abandoned: those that the end of this node's earlier life cut short.
        """
        async with trio.open_nursery() as nursery:
            for put in abandoned:
                nursery.start_soon(self._clear_up, put.put_id, frozenset(put.intent.decode().split()))
            self._nursery = nursery
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

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
            return await self._store(request, call, partitioning, dtype)
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
        partitioning: Partitioning,
        dtype: str,
    ) -> tuple[Claim, Manifest, bool]:
        self._membership.core.directory.require_room_for(request.name)
        put = await self._reserve(request, partitioning, dtype)
        try:
            async with trio.open_nursery() as nursery:
                await call.send(self._progress(put))
                nursery.start_soon(self._tell_progress, put, call)
                digests = await self._copy(put, request, call)
                nursery.cancel_scope.cancel()
            # From here on it is stored or taken back, whether or not the client waits for the end.
            with trio.CancelScope(shield=True):
                claim, manifest = await self._committing.commit(put, digests)
        finally:
            if not put.committed:
                await self._abandon(put)
        if put.replaced is not None:
            self._on_replaced(put.replaced)
        return claim, manifest, False

    async def _reserve(self, request: wire.PutMatrixRequest, partitioning: Partitioning, dtype: str) -> Put:
        """Plan, and have every holder set its room aside; plan again where one refuses."""
        survive = request.survive
        if survive > SURVIVE_MAX:
            raise NotEnoughPeers(
                f"a matrix survives the loss of at most {SURVIVE_MAX} nodes", matrix=request.name
            )
        refused: dict[str, InsufficientCapacity] = {}
        for _ in range(PLANS_MAX):
            offers = gather_offers(self._membership, self._holding.ledger)
            offers = [offer for offer in offers if offer.peer_id not in refused]
            try:
                placement = place(partitioning, survive, offers, request.name.encode())
            except (InsufficientCapacity, NotEnoughPeers) as error:
                error.matrix = request.name
                if refused:
                    told = "; ".join(str(refusal.why or refusal.what) for refusal in refused.values())
                    error.why = f"{error.why}\n{told}"
                raise
            put = Put(
                put_id=secrets.token_bytes(PUT_ID_BYTES),
                name=request.name,
                partitioning=partitioning,
                dtype=dtype,
                survive=survive,
                replace=request.replace,
                placement=placement,
            )
            reserved = False
            try:
                await self._database.write(partial(put_table.begin, put=self._intent(put)))
                failures = await self._reserve_everywhere(put, request.data_type)
                reserved = not failures
            finally:
                if not reserved:
                    await self._abandon(put)
            if reserved:
                return put
            refused |= failures
        raise next(iter(refused.values()))

    async def _reserve_everywhere(self, put: Put, data_type: int) -> dict[str, InsufficientCapacity]:
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

    async def _copy(self, put: Put, request: wire.PutMatrixRequest, call: IncomingCall) -> list[bytes]:
        """Spool, and have each partition copied as soon as it is on disk here."""
        ahead = trio.Semaphore(AHEAD_MAX)
        async with trio.open_nursery() as nursery:

            async def keep(index: int, writer: BlobWriter) -> None:
                digest = writer.digest
                await ahead.acquire()
                await self._holding.need(digest)
                try:
                    await writer.commit()
                except BaseException:
                    self._holding.need_no_more(digest)
                    raise
                nursery.start_soon(self._copy_partition, put, index, digest, ahead)

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

    async def _copy_partition(self, put: Put, index: int, digest: bytes, ahead: trio.Semaphore) -> None:
        try:
            async with trio.open_nursery() as nursery:
                for peer_id, kind in put.copies_of(index).items():
                    nursery.start_soon(self._hold, put, index, digest, peer_id, kind)
        finally:
            # Its holders have it: the spooled bytes go, unless this node is one of them.
            self._holding.need_no_more(digest)
            ahead.release()

    async def _hold(self, put: Put, index: int, digest: bytes, peer_id: str, kind: Kind) -> None:
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

    def _intent(self, put: Put) -> StoredPut:
        holders = " ".join(sorted(put.holders - {self._own_peer_id}))
        return StoredPut(put.put_id, holders.encode(), wall_time_s())

    async def _abandon(self, put: Put) -> None:
        """Give up what the put had: here and where it can be told at once, elsewhere as soon as it can be."""
        with trio.CancelScope(shield=True):
            await self._holding.release(put.put_id)
            untold = await self._tell_release(put.put_id, put.holders - {self._own_peer_id})
            if not untold:
                await self._database.write(partial(put_table.end, put_id=put.put_id))
            elif self._nursery is not None:
                self._nursery.start_soon(self._clear_up, put.put_id, untold)

    async def _clear_up(self, put_id: bytes, holders: frozenset[str]) -> None:
        while holders := await self._tell_release(put_id, holders):  # noqa: ASYNC110 - nothing tells of their return
            await trio.sleep(CLEAR_UP_S)
        try:
            await self._database.write(partial(put_table.end, put_id=put_id))
        except SedmadError as error:
            # It is found again at the next start, and told again.
            log.error("put_not_ended", why=str(error))

    async def _tell_release(self, put_id: bytes, holders: Iterable[str]) -> frozenset[str]:
        """Tell holders at once to give up what a put had; return those that could not be told."""
        untold: set[str] = set()

        async def tell_one(peer_id: str) -> None:
            request = wire.ReleasePutRequest(put_id=put_id)
            try:
                await self._sessions.call(
                    peer_id, RELEASE, request, deadline=monotonic_s() + RELEASE_TIMEOUT_S
                )
            except SedmadError as error:
                log.debug("put_not_released", peer=peer_id, why=str(error))
                untold.add(peer_id)

        async with trio.open_nursery() as nursery:
            for peer_id in holders:
                nursery.start_soon(tell_one, peer_id)
        return frozenset(untold)

    async def _tell_progress(self, put: Put, call: IncomingCall) -> None:
        while True:
            await put.changed.wait()
            put.changed = trio.Event()
            await call.send(self._progress(put))

    def _progress(self, put: Put) -> wire.PutMatrixResponse:
        return wire.PutMatrixResponse(
            received_bytes=put.received_bytes,
            safe_bytes=put.safe_bytes,
            total_copy_bytes=put.total_copy_bytes,
        )
