"""A matrix comes in: placed before a byte moves, spooled to disk, copied to its holders while it still streams, and
named once every copy is on disk, and the manifest with all holders and most guardians.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import structlog
import trio

from sedmad import failpoints
from sedmad.core.accuracy import Accuracy
from sedmad.core.membership.claim import Claim, check_name
from sedmad.core.partitioning import Partitioning
from sedmad.errors import (
    NameTaken,
    NodeUnreachable,
    SessionLost,
    UnsupportedDtype,
)
from sedmad.net.calls import IncomingCall
from sedmad.net.sessions import Sessions
from sedmad.node import scale
from sedmad.node.clock import monotonic_s
from sedmad.node.committing import CommittingService
from sedmad.node.holding import HoldingService
from sedmad.node.looking_up import LookUpService
from sedmad.node.manifest import ITEMSIZE, Manifest, kind_to_wire
from sedmad.node.membership import MembershipService
from sedmad.node.put import Put, disk_of
from sedmad.node.records import DATA_TYPES, DTYPES
from sedmad.node.releasing import ReleasingService
from sedmad.node.reserving import ReservingService, accuracy_of
from sedmad.node.spooling import hash_stream, spool, spool_room
from sedmad.store.blobs import BlobStore
from sedmad.store.holdings import Kind
from sedmad.store.spool import BlobWriter
from sedmad.wire import messages as wire

log = structlog.get_logger("sedmad.putting")

HOLD = "sedma.v1.HoldingService/HoldCopy"
# A partition waits behind all that are ahead (AHEAD_MAX) for its holder's two transfers: five hours at the slowest
# rate that sessions stand, 32 KiB/s. A holder that is gone ends its calls sooner.
HOLD_TIMEOUT_S = 6 * 3600.0
# Clients take a daemon for gone that says nothing for a minute; over a slow link a partition takes longer.
REPORT_S = 10.0
PROGRESS_STEP_BYTES = 4 << 20


class PuttingService:
    """Stores matrices of which this node becomes the owner."""

    def __init__(
        self,
        *,
        own_peer_id: str,
        blobs: BlobStore,
        sessions: Sessions,
        membership: MembershipService,
        lookups: LookUpService,
        holding: HoldingService,
        committing: CommittingService,
        releasing: ReleasingService,
        reserving: ReservingService,
        on_replaced: Callable[[Claim], None],
    ) -> None:
        self._own_peer_id = own_peer_id
        self._blobs = blobs
        self._sessions = sessions
        self._membership = membership
        self._lookups = lookups
        self._holding = holding
        self._committing = committing
        self._releasing = releasing
        self._reserving = reserving
        self._on_replaced = on_replaced
        # Names whose content is coming in, one for each call under way.
        self._names: set[str] = set()

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
            raise UnsupportedDtype(f"a matrix has values of {', '.join(DATA_TYPES)}", matrix=request.name)
        scale.check(request, dtype)
        accuracy = accuracy_of(request, dtype)
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
            with self._disk_of(self._own_peer_id, request.name):
                return await self._store(request, call, partitioning, dtype, accuracy)
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
        manifest = await self._lookups.look_up(taken, deadline=call.deadline)
        if taken.survive < request.survive:
            raise NameTaken(
                f"{request.name} is stored to survive the loss of {taken.survive} nodes, not {request.survive}",
                matrix=request.name,
                hint="Store it again with --replace.",
            )
        if manifest.accuracy != Accuracy(request.target_error, request.profile):
            raise NameTaken(
                f"{request.name} is stored with other accuracy: {manifest.accuracy}",
                matrix=request.name,
                hint="Store it again with --replace.",
            )
        await call.send(wire.PutMatrixResponse())
        digests = await hash_stream(call.chunks(), partitioning)
        if tuple(digests) != manifest.digests or request.scale != manifest.scale:
            raise error
        return taken, manifest, True

    async def _store(
        self,
        request: wire.PutMatrixRequest,
        call: IncomingCall,
        partitioning: Partitioning,
        dtype: str,
        accuracy: Accuracy,
    ) -> tuple[Claim, Manifest, bool]:
        self._membership.core.directory.require_room_for(request.name)
        put = await self._reserving.reserve(request, partitioning, dtype, accuracy, call)
        try:
            with spool_room(self._holding.ledger, put, self._own_peer_id) as places:
                async with trio.open_nursery() as nursery:
                    await call.send(self._progress(put))
                    nursery.start_soon(self._tell_progress, put, call)
                    digests = await self._copy(put, request, call, places)
                    failpoints.reach("putting.copied")
                    nursery.cancel_scope.cancel()
            # From here on it is stored or taken back, whether or not the client waits for the end.
            with trio.CancelScope(shield=True):
                claim, manifest = await self._committing.commit(put, digests)
        finally:
            if not put.committed:
                await self._releasing.release(put)
            # Its name may be another's now even where too few nodes could be told of it.
            if put.replaced is not None:
                self._on_replaced(put.replaced)
        return claim, manifest, False

    async def _copy(
        self, put: Put, request: wire.PutMatrixRequest, call: IncomingCall, places: int
    ) -> list[bytes]:
        """Spool, and have each partition copied as soon as it is on disk here; at most `places` wait for that."""
        ahead = trio.Semaphore(places)
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
                failpoints.reach("putting.spooled")
                nursery.start_soon(self._copy_partition, put, index, digest, ahead)

            def on_progress(received_bytes: int) -> None:
                if received_bytes // PROGRESS_STEP_BYTES > put.received_bytes // PROGRESS_STEP_BYTES:
                    put.changed.set()
                put.received_bytes = received_bytes

            with self._disk_of(self._own_peer_id, put.name):
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
            with self._disk_of(peer_id, put.name):
                await self._holding.hold(put.put_id, index, digest, kind)
        else:
            request = wire.HoldCopyRequest(
                put_id=put.put_id,
                partition_index=index,
                digest=digest,
                kind=kind_to_wire(kind),
                sources=[self._own_peer_id],
            )
            try:
                with self._disk_of(peer_id, put.name):
                    await self._sessions.call(peer_id, HOLD, request, deadline=monotonic_s() + HOLD_TIMEOUT_S)
            except (NodeUnreachable, SessionLost) as error:
                name = self._membership.name_of(peer_id)
                raise NodeUnreachable(
                    f"{put.name} was not stored",
                    why=f"{name} was to hold a part of it, and went away: {error.what}",
                    hint="Store it again: it goes to others as long as that node is away.",
                    node=name,
                    matrix=put.name,
                ) from error
        if kind is Kind.RESIDENT:
            put.compiling.discard(peer_id)
        put.safe_bytes += put.partitioning.size_bytes(index)
        put.changed.set()

    def _disk_of(self, peer_id: str, name: str) -> AbstractContextManager[None]:
        return disk_of(self._membership.name_of(peer_id), name)

    async def _tell_progress(self, put: Put, call: IncomingCall) -> None:
        while True:
            with trio.move_on_after(REPORT_S):
                await put.changed.wait()
            put.changed = trio.Event()
            await call.send(self._progress(put))

    def _progress(self, put: Put) -> wire.PutMatrixResponse:
        return wire.PutMatrixResponse(
            received_bytes=put.received_bytes,
            safe_bytes=put.safe_bytes,
            total_copy_bytes=put.total_copy_bytes,
            phase=self._phase(put),
        )

    def _phase(self, put: Put) -> str:
        names = ", ".join(sorted(map(self._membership.name_of, put.compiling)))
        return f"compiling on {names}" if names else ""
