"""Copies on this node: room set aside, bytes fetched and checked, partitions programmed, given to others, and freed.

A copy counts once its holding and its blob are both on disk. A crash in between leaves a blob that nothing names, or a
holding of a put that nobody committed; both are cleared up at the next start.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from sedmad import failpoints
from sedmad.core.accuracy import Accuracy
from sedmad.core.capacity import CapacityLedger
from sedmad.core.partitioning import Partitioning
from sedmad.errors import (
    InsufficientCapacity,
    MatrixNotFound,
    NotPermitted,
    Overloaded,
    ProtocolViolation,
    SedmadError,
)
from sedmad.net.calls import IncomingCall
from sedmad.net.sessions import Sessions
from sedmad.node.blob_uses import BlobUses
from sedmad.node.copies import Copies, PendingPut, named_copies
from sedmad.node.fetching import fetch_partition
from sedmad.node.manifest import ITEMSIZE, KINDS, Manifest
from sedmad.node.records import DTYPES
from sedmad.node.residents import Residents
from sedmad.store import holdings as holding_table
from sedmad.store.blobs import BlobStore
from sedmad.store.database import Connection, Database
from sedmad.store.holdings import Holding, Kind, State
from sedmad.wire import messages as wire

if TYPE_CHECKING:
    # libp2p brings stubs that hide trio's own types, this one among them.
    from trio_typing import TaskStatus

log = structlog.get_logger("sedmad.holding")

# Two transfers keep a link busy while one of them waits for the disk; more would crowd out products.
TRANSFERS_MAX = 2
# Puts whose copies are not yet a matrix's.
PUTS_MAX = 64
PUT_ID_BYTES = 16
GIVEN_UP_MAX = 1024

Transaction = Callable[[Connection], None]


class HoldingService:
    """Keeps copies; serves HoldingService of the contract to members, and this node's own puts.

    Attributes:
        copies: those of matrices; changed under the lock of `uses` only.
        uses: of the blobs on this node.
        transfers: to be taken around each fetch.
        changed: called when what is held or set aside has changed.
        refuses: says why this node takes no new copies of an owner; nothing if it does.
    """

    def __init__(
        self,
        *,
        own_peer_id: str,
        database: Database,
        blobs: BlobStore,
        residents: Residents,
        sessions: Sessions,
        ledger: CapacityLedger,
        on_changed: Callable[[], None],
    ) -> None:
        self._own_peer_id = own_peer_id
        self._database = database
        self._blobs = blobs
        self._residents = residents
        self._sessions = sessions
        self.ledger = ledger
        self.changed = on_changed
        self.refuses: Callable[[str], str] = lambda owner: ""
        self._puts: dict[bytes, PendingPut] = {}
        # Of puts that were given up before they began here, the latest: what is older was lost on its way.
        self._given_up: dict[bytes, None] = {}
        self.transfers = trio.CapacityLimiter(TRANSFERS_MAX)
        self.uses = BlobUses(blobs, residents)
        self.copies = Copies(blobs, residents, self.uses, ledger)
        self._nursery: trio.Nursery | None = None

    async def run(self, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Delete blobs that nothing needs any more, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await self.uses.delete_unneeded()

    def bytes_of(self, group_key: bytes) -> tuple[int, int]:
        """Return the resident and the standby bytes of a matrix here."""
        return self.copies.bytes_of(group_key)

    @property
    def simulation_bytes(self) -> int:
        """Memory used here beyond resident copies: what simulates the devices that they are programmed on."""
        devices = self._residents.devices
        return 0 if devices is None else devices.memory_bytes

    # What members ask.

    async def reserve_copies(
        self, request: wire.ReserveCopiesRequest, call: IncomingCall
    ) -> wire.ReserveCopiesResponse:
        """Set room aside for a member's put.

        Raises:
            InsufficientCapacity: this node leaves, holds the member for dead, or has no room.
        """
        if why := self.refuses(call.remote):
            raise InsufficientCapacity("this node takes no copies", why=why, node=self._own_peer_id)
        self.reserve(request, call.remote)
        failpoints.reach("holding.reserved")
        return wire.ReserveCopiesResponse(compiling=self.compiles_for(request))

    async def hold_copy(self, request: wire.HoldCopyRequest, call: IncomingCall) -> wire.HoldCopyResponse:
        """Fetch a partition of a member's put; answers when it is safe."""
        await self.take_copy(request, call.remote)
        return wire.HoldCopyResponse()

    async def release_put(
        self, request: wire.ReleasePutRequest, call: IncomingCall
    ) -> wire.ReleasePutResponse:
        """Give up what a member's put had here."""
        if request.put_id in self._puts:
            self._put(request.put_id, call.remote)
            await self.release(request.put_id)
        elif len(request.put_id) == PUT_ID_BYTES:
            # What asked for its room may still be on its way here: it comes too late.
            self._given_up[request.put_id] = None
            if len(self._given_up) > GIVEN_UP_MAX:
                del self._given_up[next(iter(self._given_up))]
        return wire.ReleasePutResponse()

    async def fetch_partition(
        self, request: wire.FetchPartitionRequest, call: IncomingCall
    ) -> wire.FetchPartitionResponse:
        """Give the bytes of a partition, from an offset on."""
        missing = MatrixNotFound("this node does not hold that partition", node=self._own_peer_id, hint="")
        if not self._blobs.contains(request.digest):
            raise missing
        try:
            blob = await self._blobs.open(request.digest)
        except FileNotFoundError:
            # It was freed in between.
            raise missing from None
        with blob:
            for offset in blob.chunk_offsets(request.offset):
                chunk = await blob.chunk(offset)
                await call.send(payload=chunk.view, offset=offset, payload_digest=chunk.digest)
        return wire.FetchPartitionResponse()

    # What this node's own puts use as well.

    def reserve(self, request: wire.ReserveCopiesRequest, owner: str) -> None:
        """Set room aside.

        Raises:
            InsufficientCapacity: the pledge has no room for it, with the arithmetic.
            DiskFull: the disk has none, whatever was pledged, with the arithmetic.
        """
        dtype = DTYPES.get(request.data_type)
        if len(request.put_id) != PUT_ID_BYTES or dtype is None or request.put_id in self._puts:
            raise ProtocolViolation("a put is malformed or known already", node=owner)
        if request.put_id in self._given_up:
            raise self._no_such_put()
        if request.disk_bytes + request.resident_bytes == 0:
            raise ProtocolViolation("every copy takes room", node=owner)
        if len(self._puts) >= PUTS_MAX:
            raise Overloaded(
                "too many matrices are being stored here", why=f"at most {PUTS_MAX}", node=self._own_peer_id
            )
        partitioning = Partitioning(request.rows, request.columns, ITEMSIZE[dtype])
        accuracy = Accuracy(request.target_error, request.profile)
        if request.disk_bytes:
            awaited_bytes = sum(put.disk_left_bytes for put in self._puts.values())
            self._blobs.require_room(request.disk_bytes + awaited_bytes)
        self.ledger.reserve(
            request.put_id,
            memory_bytes=request.resident_bytes,
            disk_bytes=request.disk_bytes,
        )
        devices = self._residents.devices
        if devices is not None and devices.compute(accuracy) and request.resident_bytes:
            try:
                devices.cells.reserve(request.put_id, request.cells)
            except InsufficientCapacity:
                self.ledger.release(request.put_id)
                raise
            devices.prepare_soon()
        self._puts[request.put_id] = PendingPut(
            owner, partitioning, dtype, request.resident_bytes, request.disk_bytes, accuracy
        )
        self.changed()

    def compiles_for(self, request: wire.ReserveCopiesRequest) -> bool:
        """Return whether copies of a put wait for kernels to be compiled here."""
        devices = self._residents.devices
        accuracy = Accuracy(request.target_error, request.profile)
        needed = devices is not None and devices.compute(accuracy) and devices.compiling
        return needed and bool(request.resident_bytes)

    async def take_copy(self, request: wire.HoldCopyRequest, owner: str) -> None:
        """Fetch a partition of a put, unless it is here, and hold it.

        Raises:
            HoldersUnreachable: no source gave all of it.
            NotPermitted: the put was given up.
        """
        put = self._put(request.put_id, owner)
        kind = KINDS.get(request.kind)
        if kind is None or request.partition_index >= put.partitioning.count or len(request.digest) != 32:
            raise ProtocolViolation("a copy of what there is not", node=owner)
        await self.need(request.digest)
        try:
            async with self.transfers:
                # Not before there is a place: what waits here may have been given up meanwhile.
                put = self._put(request.put_id, owner)
                if not self._blobs.contains(request.digest):
                    size_bytes = put.partitioning.size_bytes(request.partition_index)
                    sources = [source for source in request.sources if source != self._own_peer_id]
                    await fetch_partition(self._sessions, self._blobs, request.digest, size_bytes, sources)
                    failpoints.reach("holding.fetched")
                await self.hold(request.put_id, request.partition_index, request.digest, kind)
        finally:
            self.need_no_more(request.digest)

    async def hold(self, put_id: bytes, index: int, digest: bytes, kind: Kind) -> None:
        """Make a blob that is here, and `need`ed, a copy of a put: on disk, and programmed where it is resident.

        Raises:
            NotPermitted: the put was given up.
            ProtocolViolation: it is not what was agreed on.
        """
        async with self.uses.lock:
            put = self._puts.get(put_id)
            if put is None:
                raise self._no_such_put()
            rows = len(put.partitioning.row_range(index))
            size_bytes = put.partitioning.size_bytes(index)
            holding = Holding(put_id, index, digest, kind, size_bytes, State.PENDING)
            before = put.holdings.get(index)
            # A standby copy that becomes resident takes no more disk.
            here = any(copy.partition_index == index for copy in self.copies.using(digest))
            put.take(holding, on_disk=here)
            self.uses.add_copy(holding)
            if before is not None:
                self.uses.remove_copy(before)
            await self._database.write(partial(holding_table.hold, holding=holding))
            failpoints.reach("holding.held")
        if kind is Kind.RESIDENT:
            columns = put.partitioning.columns
            await self._residents.program(digest, rows, columns, put.dtype)
            await self._residents.program_devices(digest, rows, columns, put.dtype, put.accuracy, put=put_id)
            if not self.uses.needed_resident(digest):
                # The put was given up while it was programmed.
                self._residents.drop(digest)
        failpoints.reach("holding.programmed")

    async def release(self, put_id: bytes) -> None:
        """Give up the copies of a put."""
        # Not cancelled in between: what is on disk and what is counted here would differ.
        with trio.CancelScope(shield=True):
            async with self.uses.lock:
                if put_id not in self._puts:
                    return
                await self._database.write(partial(holding_table.release, group_key=put_id))
                failpoints.reach("holding.released")
                self._forget_put(put_id)
        self.changed()

    def owner_gone(self, owner: str) -> None:
        """An owner is dead: what it was storing was never acknowledged, as that takes this node's word."""
        if self._nursery is not None:
            for put_id in [put_id for put_id, put in self._puts.items() if put.owner == owner]:
                self._nursery.start_soon(self._release_of_dead, put_id)

    async def _release_of_dead(self, put_id: bytes) -> None:
        try:
            await self.release(put_id)
        except SedmadError as error:
            log.error("put_not_released", why=str(error))

    def storing(self, digest: bytes, accuracy: Accuracy) -> bool:
        """Whether a put under way has these bytes here, for products of that accuracy."""
        return any(
            put.accuracy == accuracy and any(copy.digest == digest for copy in put.holdings.values())
            for put in self._puts.values()
        )

    async def need(self, digest: bytes) -> None:
        """Keep a blob that is there, or about to be, from being deleted; until `need_no_more`."""
        async with self.uses.lock:
            self.uses.add(digest)

    def need_no_more(self, digest: bytes) -> None:
        """Let a blob go, unless a copy here holds it."""
        self.uses.remove(digest)

    # What a manifest changes.

    @asynccontextmanager
    async def applying(
        self, manifest: Manifest, put_id: bytes, established: bool
    ) -> AsyncIterator[Transaction]:
        """Around the transaction that stores a manifest: what it changes about the copies here, then and afterwards.

        Copies that it no longer names go once it is established; those that it names and that are not here are for
        `lacking` to tell.

        Raises:
            NotPermitted: it names another owner's put, or copies that its put did not bring.
        """
        # Not cancelled in between: what is on disk and what is known here would differ.
        with trio.CancelScope(shield=True):
            async with self.uses.lock:
                group_key = manifest.group_key
                put = self._puts.get(put_id)
                if put is not None and put.owner != manifest.owner:
                    raise self._no_such_put()
                fresh = put.holdings if put else {}
                before = self.copies.of(group_key)
                usable = put.with_room(before) if put else {}
                after = named_copies(manifest, self._own_peer_id, before, usable)
                given = {} if manifest.removed else manifest.held_by(self._own_peer_id)
                lacking = given.keys() - after.keys()
                # What was lacking before hinders no repair of the rest; the id of no put asks for everything.
                if put_id and (lacking if put is None else lacking & fresh.keys()):
                    raise NotPermitted(
                        "this node does not hold all that a put gives it", node=self._own_peer_id, hint=""
                    )
                if not established:
                    after = before | after

                def transaction(connection: Connection) -> None:
                    outdated = [index for index in before if index not in after or index in fresh]
                    holding_table.release(connection, group_key, outdated)
                    if fresh:
                        unwanted = [index for index in fresh if index not in after]
                        holding_table.release(connection, put_id, unwanted)
                        holding_table.activate(connection, put_id, group_key)
                    for index, holding in after.items():
                        if (fresh.get(index) or before[index]) != holding:
                            holding_table.hold(connection, holding)

                yield transaction
                # The matrix takes over what its put needed: none of it is unneeded in between.
                for holding in after.values():
                    self.uses.add_copy(holding)
                if put is not None:
                    self._forget_put(put_id)
                self.copies.replace(group_key, after)
                for holding in after.values():
                    self.uses.remove_copy(holding)
        self.changed()

    def _forget_put(self, put_id: bytes) -> None:
        for holding in self._puts.pop(put_id).holdings.values():
            self.uses.remove_copy(holding)
        self.ledger.release(put_id)
        if self._residents.devices is not None:
            self._residents.devices.cells.release_reserved(put_id)

    def _put(self, put_id: bytes, remote: str) -> PendingPut:
        put = self._puts.get(put_id)
        if put is None or put.owner != remote:
            raise self._no_such_put()
        return put

    def _no_such_put(self) -> NotPermitted:
        return NotPermitted(
            "this node knows of no such put", node=self._own_peer_id, hint="Store the matrix again."
        )
