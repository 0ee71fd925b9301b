"""Copies on this node: room set aside, bytes fetched and checked, partitions programmed, given to others, and freed.

A copy counts once its holding and its blob are both on disk. A crash in between leaves a blob that nothing names, or a
holding of a put that nobody committed; both are cleared up at the next start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from sedmad.core.capacity import CapacityLedger
from sedmad.core.partitioning import Partitioning
from sedmad.errors import MatrixNotFound, NotPermitted, Overloaded, ProtocolViolation
from sedmad.net.calls import IncomingCall
from sedmad.net.sessions import Sessions
from sedmad.node.clock import monotonic_s
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
# 8 TiB at 100 MB/s.
PUT_S_MAX = 86_400.0


@dataclass(slots=True)
class _Put:
    """A put under way that has, or will have, copies here."""

    owner: str
    partitioning: Partitioning
    dtype: str
    holdings: dict[int, Holding] = field(default_factory=dict)


class HoldingService:
    """Keeps copies; serves HoldingService of the contract to members, and this node's own puts."""

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
        self._on_changed = on_changed
        self._puts: dict[bytes, _Put] = {}
        self._active: dict[bytes, dict[int, Holding]] = {}
        self._transfers = trio.CapacityLimiter(TRANSFERS_MAX)
        # Around every step that relies on a blob being there, or deletes one.
        self._blob_lock = trio.Lock()
        self._nursery: trio.Nursery | None = None
        # Blobs that may have to go: no more of them than there are on disk.
        self._unwanted: set[bytes] = set()
        self._unwanted_changed = trio.Event()
        self._needed: Counter[bytes] = Counter()

    async def run(self, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Delete blobs that nothing needs any more, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            while True:
                await self._unwanted_changed.wait()
                self._unwanted_changed = trio.Event()
                while self._unwanted:
                    async with self._blob_lock:
                        digest = self._unwanted.pop()
                        if not self._is_held(digest):
                            await self._blobs.delete(digest)

    async def restore(self, manifests: list[Manifest]) -> None:
        """Take up what lies on disk from an earlier life: program the resident copies, count all."""
        holdings = await self._database.read(holding_table.load)
        by_group = {manifest.group_key: manifest for manifest in manifests}
        for holding in holdings:
            manifest = by_group.get(holding.group_key)
            if manifest is None or not self._blobs.contains(holding.digest):
                # Copies of a put that was never committed: their owner stores them again, or not.
                orphans = await self._database.write(
                    partial(
                        holding_table.release,
                        group_key=holding.group_key,
                        partition_indices=[holding.partition_index],
                    )
                )
                self._delete_soon(orphans)
                log.warning(
                    "copy_dropped", partition=holding.partition_index, digest=holding.digest.hex()[:16]
                )
                continue
            self._active.setdefault(holding.group_key, {})[holding.partition_index] = holding
            await self._take_up(holding, manifest)
        for digest in self._blobs.digests():
            if not self._is_held(digest):
                await self._blobs.delete(digest)

    async def _take_up(self, holding: Holding, manifest: Manifest) -> None:
        key = (holding.group_key, holding.partition_index)
        if holding.kind is Kind.STANDBY:
            self.ledger.adopt(key, disk_bytes=holding.size_bytes)
            return
        self._count(key, holding)
        start, stop = manifest.rows_of(holding.partition_index)
        await self._residents.program(holding.digest, stop - start, manifest.columns, manifest.dtype)

    def bytes_of(self, group_key: bytes) -> tuple[int, int]:
        """Return the resident and the standby bytes of a matrix here."""
        holdings = self._active.get(group_key, {}).values()
        resident = sum(holding.size_bytes for holding in holdings if holding.kind is Kind.RESIDENT)
        return resident, sum(holding.size_bytes for holding in holdings) - resident

    # What members ask.

    async def reserve_copies(
        self, request: wire.ReserveCopiesRequest, call: IncomingCall
    ) -> wire.ReserveCopiesResponse:
        """Set room aside for a member's put."""
        self.reserve(request, call.remote)
        return wire.ReserveCopiesResponse()

    async def hold_copy(self, request: wire.HoldCopyRequest, call: IncomingCall) -> wire.HoldCopyResponse:
        """Fetch a partition of a member's put; answers when it is safe."""
        put = self._put(request.put_id, call.remote)
        kind = KINDS.get(request.kind)
        if kind is None or request.partition_index >= put.partitioning.count or len(request.digest) != 32:
            raise ProtocolViolation("a copy of what there is not", node=call.remote)
        await self.need(request.digest)
        try:
            async with self._transfers:
                if not self._blobs.contains(request.digest):
                    size_bytes = put.partitioning.size_bytes(request.partition_index)
                    sources = [source for source in request.sources if source != self._own_peer_id]
                    await fetch_partition(self._sessions, self._blobs, request.digest, size_bytes, sources)
                await self.hold(request.put_id, request.partition_index, request.digest, kind)
        finally:
            self.need_no_more(request.digest)
        return wire.HoldCopyResponse()

    async def release_put(
        self, request: wire.ReleasePutRequest, call: IncomingCall
    ) -> wire.ReleasePutResponse:
        """Give up what a member's put had here."""
        if request.put_id in self._puts:
            self._put(request.put_id, call.remote)
            await self.release(request.put_id)
        return wire.ReleasePutResponse()

    async def fetch_partition(
        self, request: wire.FetchPartitionRequest, call: IncomingCall
    ) -> wire.FetchPartitionResponse:
        """Give the bytes of a partition, from an offset on."""
        if not self._blobs.contains(request.digest):
            raise MatrixNotFound("this node does not hold that partition", node=self._own_peer_id, hint="")
        with await self._blobs.open(request.digest) as blob:
            for offset in blob.chunk_offsets(request.offset):
                chunk = await blob.chunk(offset)
                await call.send(payload=chunk.view, offset=offset, payload_digest=chunk.digest)
        return wire.FetchPartitionResponse()

    # What this node's own puts use as well.

    def reserve(self, request: wire.ReserveCopiesRequest, owner: str) -> None:
        """Set room aside.

        Raises:
            InsufficientCapacity: with the arithmetic.
        """
        dtype = DTYPES.get(request.data_type)
        if len(request.put_id) != PUT_ID_BYTES or dtype is None or request.put_id in self._puts:
            raise ProtocolViolation("a put is malformed or known already", node=owner)
        if len(self._puts) >= PUTS_MAX:
            raise Overloaded(
                "too many matrices are being stored here", why=f"at most {PUTS_MAX}", node=self._own_peer_id
            )
        partitioning = Partitioning(request.rows, request.columns, ITEMSIZE[dtype])
        self.ledger.reserve(
            request.put_id,
            expires_at_s=monotonic_s() + PUT_S_MAX,
            memory_bytes=request.resident_bytes,
            disk_bytes=request.disk_bytes,
        )
        self._puts[request.put_id] = _Put(owner, partitioning, dtype)
        self._on_changed()

    async def hold(self, put_id: bytes, index: int, digest: bytes, kind: Kind) -> None:
        """Make a blob that is here a copy of a put: on disk, and programmed where it is resident."""
        put = self._puts[put_id]
        rows = len(put.partitioning.row_range(index))
        size_bytes = put.partitioning.size_bytes(index)
        holding = Holding(put_id, index, digest, kind, size_bytes, State.PENDING)
        async with self._blob_lock:
            put.holdings[index] = holding
            await self._database.write(partial(holding_table.hold, holding=holding))
        if kind is Kind.RESIDENT:
            await self._residents.program(digest, rows, put.partitioning.columns, put.dtype)

    async def release(self, put_id: bytes) -> None:
        """Give up the copies of a put."""
        put = self._puts.pop(put_id, None)
        if put is None:
            return
        orphans = await self._database.write(partial(holding_table.release, group_key=put_id))
        self._forget(orphans)
        self.ledger.release(put_id)
        self._on_changed()

    def owner_gone(self, owner: str) -> None:
        """An owner is dead: what it was storing was never acknowledged, as that takes this node's word."""
        if self._nursery is not None:
            for put_id in [put_id for put_id, put in self._puts.items() if put.owner == owner]:
                self._nursery.start_soon(self.release, put_id)

    async def need(self, digest: bytes) -> None:
        """Keep a blob that is there, or about to be, from being deleted; until `need_no_more`."""
        async with self._blob_lock:
            self._needed[digest] += 1

    def need_no_more(self, digest: bytes) -> None:
        """Let a blob go, unless a copy here holds it."""
        self._needed[digest] -= 1
        if not self._needed[digest]:
            del self._needed[digest]
        self._delete_soon({digest})

    def on_manifest(
        self, manifest: Manifest, put_id: bytes
    ) -> tuple[Callable[[Connection], None], Callable[[], None]]:
        """Return what a manifest changes about the copies here: in its transaction, and once that is on disk."""
        wanted = {} if manifest.removed else manifest.held_by(self._own_peer_id)
        put = self._puts.get(put_id)
        orphans: set[bytes] = set()

        def transaction(connection: Connection) -> None:
            if put is not None and wanted:
                holding_table.activate(connection, put_id, manifest.group_key)
            held = self._active.get(manifest.group_key, {})
            unwanted = [index for index in held if index not in wanted]
            if unwanted:
                orphans.update(holding_table.release(connection, manifest.group_key, unwanted))

        def afterwards() -> None:
            held = self._active.pop(manifest.group_key, {})
            gone = [holding for index, holding in held.items() if index not in wanted]
            for holding in gone:
                self.ledger.release((manifest.group_key, holding.partition_index))
            kept = {index: holding for index, holding in held.items() if index in wanted}
            if put is not None:
                self._adopt(put_id, put, manifest, kept)
            if kept:
                self._active[manifest.group_key] = kept
            self._forget(frozenset(orphans))
            self._on_changed()

        return transaction, afterwards

    def _adopt(self, put_id: bytes, put: _Put, manifest: Manifest, kept: dict[int, Holding]) -> None:
        """Make the copies of a committed put those of its matrix, in the ledgers too."""
        del self._puts[put_id]
        self.ledger.release(put_id)
        for index, holding in put.holdings.items():
            if index in kept:
                continue
            kept[index] = replace(holding, group_key=manifest.group_key, state=State.ACTIVE)
            self._count((manifest.group_key, index), holding)

    def _count(self, key: tuple[bytes, int], holding: Holding) -> None:
        resident = holding.kind is Kind.RESIDENT
        self.ledger.reserve(
            key,
            expires_at_s=monotonic_s() + PUT_S_MAX,
            memory_bytes=holding.size_bytes if resident else 0,
            disk_bytes=holding.size_bytes,
        )
        self.ledger.commit(key)

    def _forget(self, orphans: frozenset[bytes]) -> None:
        for digest in orphans:
            self._residents.drop(digest)
        if orphans:
            self._delete_soon(orphans)

    def _delete_soon(self, digests: Iterable[bytes]) -> None:
        self._unwanted.update(digests)
        self._unwanted_changed.set()

    def _is_held(self, digest: bytes) -> bool:
        if digest in self._needed:
            return True
        groups = [put.holdings for put in self._puts.values()] + list(self._active.values())
        return any(holding.digest == digest for holdings in groups for holding in holdings.values())

    def _put(self, put_id: bytes, remote: str) -> _Put:
        put = self._puts.get(put_id)
        if put is None or put.owner != remote:
            raise NotPermitted(
                "this node knows of no such put", node=self._own_peer_id, hint="Store the matrix again."
            )
        return put
