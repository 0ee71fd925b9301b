"""A matrix comes in: placed before a byte moves, spooled to disk, copied to its holders while it still streams, and
named once every copy is on disk, and the manifest with all holders and most guardians.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Container

import structlog
import trio

from sedmad import failpoints
from sedmad.core.accuracy import Accuracy
from sedmad.core.device_needs import DeviceNeeds
from sedmad.core.membership.claim import Claim, check_name
from sedmad.core.partitioning import Partitioning
from sedmad.core.placement import Need, Placement, place_on_devices
from sedmad.errors import (
    InsufficientCapacity,
    NameTaken,
    NodeUnreachable,
    NotEnoughPeers,
    SedmadError,
    SessionLost,
    UnsupportedDtype,
    UsageError,
)
from sedmad.net.calls import IncomingCall
from sedmad.net.sessions import Sessions
from sedmad.node import scale
from sedmad.node.clock import monotonic_s
from sedmad.node.committing import CommittingService
from sedmad.node.expecting import Expectations
from sedmad.node.holding import PUT_ID_BYTES, HoldingService
from sedmad.node.looking_up import LookUpService
from sedmad.node.manifest import ITEMSIZE, Manifest, kind_to_wire
from sedmad.node.membership import MembershipService
from sedmad.node.offering import gather_offers
from sedmad.node.put import Put
from sedmad.node.records import DATA_TYPES, DTYPES
from sedmad.node.releasing import ReleasingService
from sedmad.node.replies import read_reply
from sedmad.node.spooling import hash_stream, spool, spool_room
from sedmad.store.blobs import BlobStore
from sedmad.store.holdings import Kind
from sedmad.store.spool import BlobWriter
from sedmad.wire import messages as wire

log = structlog.get_logger("sedmad.putting")

RESERVE = "sedma.v1.HoldingService/ReserveCopies"
HOLD = "sedma.v1.HoldingService/HoldCopy"
# A refusal tells what really is free there; the next plan knows it.
PLANS_MAX = 3
RESERVE_TIMEOUT_S = 5.0
# A node whose connection was cut is suspected, and back within a second; within ten where it is cut again and again.
SUSPECTS_S = 10.0
SUSPECTS_STEP_S = 0.1
# A partition waits behind all that are ahead (AHEAD_MAX) for its holder's two transfers: five hours at the slowest
# rate that sessions stand, 32 KiB/s. A holder that is gone ends its calls sooner.
HOLD_TIMEOUT_S = 6 * 3600.0
# Clients take a daemon for gone that says nothing for a minute; over a slow link a partition takes longer.
REPORT_S = 10.0
PROGRESS_STEP_BYTES = 4 << 20
SURVIVE_MAX = 8


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
        expectations: Expectations,
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
        self._expectations = expectations
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
        put = await self._reserve(request, partitioning, dtype, accuracy)
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

    async def _reserve(
        self, request: wire.PutMatrixRequest, partitioning: Partitioning, dtype: str, accuracy: Accuracy
    ) -> Put:
        """Plan, and have every holder set its room aside; plan again where one refuses."""
        survive = request.survive
        if survive > SURVIVE_MAX:
            raise NotEnoughPeers(
                f"a matrix survives the loss of at most {SURVIVE_MAX} nodes", matrix=request.name
            )
        refused: dict[str, InsufficientCapacity] = {}
        for _ in range(PLANS_MAX):
            try:
                placement, devices = await self._place(
                    partitioning, survive, request.name, refused, accuracy
                )
            except (InsufficientCapacity, NotEnoughPeers) as error:
                error.matrix = request.name
                if refused:
                    told = "; ".join(str(refusal.why or refusal.what) for refusal in refused.values())
                    if isinstance(error, NotEnoughPeers):
                        # There would be enough nodes; it is room that they lack.
                        refusal = next(iter(refused.values()))
                        refusal.matrix, refusal.why = request.name, told
                        raise refusal from error
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
                scale=request.scale,
                accuracy=accuracy,
                devices=devices,
            )
            reserved = False
            try:
                await self._releasing.intend(put)
                failpoints.reach("putting.intended")
                failures = await self._reserve_everywhere(put, request.data_type)
                reserved = not failures
            finally:
                if not reserved:
                    await self._releasing.release(put)
            if reserved:
                failpoints.reach("putting.reserved")
                return put
            refused |= failures
        raise next(iter(refused.values()))

    async def _place(
        self,
        partitioning: Partitioning,
        survive: int,
        name: str,
        refused: Container[str],
        accuracy: Accuracy,
    ) -> tuple[Placement, DeviceNeeds]:
        """Plan with the living, but those who refused. Where they cannot hold it, wait for the suspects' sake.

        Where cells are short and no profile was demanded, nodes compute exactly what their arrays do not hold.
        """
        until = monotonic_s() + SUSPECTS_S
        while True:
            offers = gather_offers(self._membership, self._holding.ledger)
            offers = [offer for offer in offers if offer.peer_id not in refused]
            devices = await self._expectations.needs(accuracy, partitioning, offers)
            try:
                return place_on_devices(partitioning, survive, offers, name.encode(), devices)
            except (InsufficientCapacity, NotEnoughPeers):
                suspects = [row for row in self._membership.peers() if row.state == "suspect"]
                if not suspects or monotonic_s() >= until:
                    raise
            await trio.sleep(SUSPECTS_STEP_S)

    async def _reserve_everywhere(self, put: Put, data_type: int) -> dict[str, InsufficientCapacity]:
        failures: dict[str, InsufficientCapacity] = {}
        offers = gather_offers(self._membership, self._holding.ledger)
        cells = {offer.peer_id: put.devices.of(offer).cells for offer in offers}

        async def reserve(peer_id: str, need: Need) -> None:
            request = wire.ReserveCopiesRequest(
                put_id=put.put_id,
                resident_bytes=need.memory_bytes,
                disk_bytes=need.disk_bytes,
                rows=put.partitioning.rows,
                columns=put.partitioning.columns,
                data_type=data_type,  # type: ignore[arg-type]
                target_error=put.accuracy.target_error,
                profile=put.accuracy.profile,
                cells=need.resident_partitions * cells.get(peer_id, 0),
            )
            try:
                if peer_id == self._own_peer_id:
                    self._holding.reserve(request, peer_id)
                    compiling = self._holding.compiles_for(request)
                else:
                    deadline = monotonic_s() + RESERVE_TIMEOUT_S
                    told = await self._sessions.call(peer_id, RESERVE, request, deadline=deadline)
                    compiling = read_reply(wire.ReserveCopiesResponse, told, peer_id).compiling
                if compiling:
                    put.compiling.add(peer_id)
            except SedmadError as error:
                name = self._membership.name_of(peer_id)
                failures[peer_id] = InsufficientCapacity(
                    f"{name} has no room for {put.name}", why=f"{name}: {error.why or error.what}", node=name
                )

        async with trio.open_nursery() as nursery:
            for peer_id, need in put.placement.needs().items():
                nursery.start_soon(reserve, peer_id, need)
        return failures

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
            try:
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


def accuracy_of(request: wire.PutMatrixRequest, dtype: str) -> Accuracy:
    """Return what is asked of the products of a matrix that is to be stored.

    Raises:
        UsageError: it is not possible, or not for such values.
    """
    try:
        accuracy = Accuracy(request.target_error, request.profile)
    except UsageError as error:
        error.matrix = request.name
        raise
    if accuracy.target_error and dtype == "int8":
        raise UsageError(
            f"{request.name} cannot have a target error",
            why="products of integers are exact",
            hint="Store it without --target-error, or convert it to float32 first.",
            matrix=request.name,
        )
    if accuracy.target_error and request.allow_nonfinite:
        raise UsageError(
            f"{request.name} cannot have a target error",
            why="no device can be programmed with NaN or infinities",
            hint="Clean the matrix, or store it without --target-error.",
            matrix=request.name,
        )
    return accuracy
