"""What a manifest gives this node and the node has not got: fetched from other holders, and programmed.

Bytes may be lost with a disk or changed by it, and a manifest may have come while this node was away; the manifest says
what should be here, so nobody has to ask for it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from sedmad import failpoints
from sedmad.errors import HoldersUnreachable, InsufficientCapacity, SedmadError
from sedmad.net.sessions import Sessions
from sedmad.node.fetching import fetch_partition
from sedmad.node.holding import HoldingService
from sedmad.node.manifest import Manifest
from sedmad.node.manifests import ManifestService
from sedmad.node.membership import MembershipService
from sedmad.node.residents import Residents
from sedmad.store import holdings as holding_table
from sedmad.store.blobs import BlobStore
from sedmad.store.database import Connection, Database
from sedmad.store.holdings import Holding, Kind, State
from sedmad.store.manifests import ManifestKey

if TYPE_CHECKING:
    # libp2p brings stubs that hide trio's own types, this one among them.
    from trio_typing import TaskStatus

log = structlog.get_logger("sedmad.healing")

# Holders that do not answer, and room that there is not, may be there by then.
RETRY_S = 20.0


class HealingService:
    """Brings the copies on this node to what manifests say."""

    def __init__(
        self,
        *,
        own_peer_id: str,
        database: Database,
        blobs: BlobStore,
        residents: Residents,
        sessions: Sessions,
        membership: MembershipService,
        manifests: ManifestService,
        holding: HoldingService,
    ) -> None:
        self._own_peer_id = own_peer_id
        self._database = database
        self._blobs = blobs
        self._residents = residents
        self._sessions = sessions
        self._membership = membership
        self._manifests = manifests
        self._holding = holding
        # Matrices to look at: no more than there are manifests here.
        self._waiting: dict[ManifestKey, None] = {}
        self._corrupt: set[bytes] = set()
        self._wake = trio.Event()

    def look_at(self, keys: Iterable[ManifestKey]) -> None:
        """Have what a matrix lacks here fetched soon."""
        self._waiting |= dict.fromkeys(keys)
        self._wake.set()

    def on_corrupt(self, digest: bytes) -> None:
        """A blob's bytes changed, and the store let go of them."""
        self._corrupt.add(digest)
        self._wake.set()

    def lacking(self, manifest: Manifest) -> dict[int, Kind]:
        """Return the copies that a manifest gives this node and that are not here as it says."""
        return self._holding.copies.lacking(manifest, self._own_peer_id)

    async def run(self, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Heal until cancelled."""
        self.look_at(manifest.key for manifest in self._manifests.kept())
        task_status.started()
        while True:
            with trio.move_on_after(RETRY_S):
                await self._wake.wait()
            self._wake = trio.Event()
            corrupt, self._corrupt = self._corrupt, set()
            for digest in corrupt:
                try:
                    await self._forget_copies(digest)
                except SedmadError as error:
                    # The disk may be full; the bytes answer nobody meanwhile.
                    self._corrupt.add(digest)
                    log.error("copies_not_forgotten", digest=digest.hex()[:16], why=str(error))
            keys, self._waiting = self._waiting, {}
            for key in keys:
                if not await self._heal(key):
                    self._waiting[key] = None

    async def _heal(self, key: ManifestKey) -> bool:
        """Fetch what a matrix lacks here; return whether nothing is left to do."""
        manifest = self._manifests.get_kept(key)
        if manifest is None:
            return True
        failures: list[str] = []

        async def take(index: int, kind: Kind) -> None:
            try:
                await self._take(manifest, index, kind)
            except InsufficientCapacity as error:
                # Told in the advert: its owner may have another node hold it.
                failures.append(error.what)
                log.debug(
                    "copy_has_no_room", partition=index, digest=key.matrix_digest.hex()[:16], why=error.why
                )
            except SedmadError as error:
                failures.append(error.what)
                log.warning(
                    "copy_not_healed", partition=index, digest=key.matrix_digest.hex()[:16], why=str(error)
                )

        for index, kind in self.lacking(manifest).items():
            await take(index, kind)
        return not failures

    async def _take(self, manifest: Manifest, index: int, kind: Kind) -> None:
        """Make one copy what a manifest says of it.

        Raises:
            InsufficientCapacity: a pledge has no room for it.
            HoldersUnreachable, DiskFull: its bytes cannot be had, or kept.
        """
        digest, size_bytes = manifest.digests[index], manifest.size_of(index)
        here = index in self._holding.copies.of(manifest.group_key)
        reservation = ("healing", manifest.group_key, index)
        ledger = self._holding.ledger
        ledger.reserve(
            reservation,
            memory_bytes=size_bytes if kind is Kind.RESIDENT else 0,
            disk_bytes=0 if here else size_bytes,
        )
        try:
            await self._holding.need(digest)
            try:
                async with self._holding.transfers:
                    if not self._blobs.contains(digest):
                        await self._fetch(manifest, index)
                        failpoints.reach("healing.fetched")
                    if kind is Kind.RESIDENT:
                        start, stop = manifest.rows_of(index)
                        await self._residents.program(digest, stop - start, manifest.columns, manifest.dtype)
                await self._adopt(manifest, index, kind, reservation)
                if kind is Kind.RESIDENT:
                    start, stop = manifest.rows_of(index)
                    self._residents.program_devices_soon(
                        digest, stop - start, manifest.columns, manifest.dtype, manifest.accuracy
                    )
            finally:
                self._holding.need_no_more(digest)
        finally:
            if reservation in ledger:
                ledger.release(reservation)
                # What was told meanwhile contained it.
                self._holding.changed()
            if not self._holding.uses.needed_resident(digest):
                self._residents.drop(digest)

    async def _fetch(self, manifest: Manifest, index: int) -> None:
        order = {"alive": 0, "suspect": 1, "dead": 2}
        sources = sorted(
            (peer for peer in manifest.copies[index] if peer != self._own_peer_id),
            key=lambda peer: order[self._membership.state_of(peer)],
        )
        if not sources:
            raise HoldersUnreachable("a partition is lost", why="no other node has a copy of it")
        await fetch_partition(
            self._sessions, self._blobs, manifest.digests[index], manifest.size_of(index), sources
        )

    async def _adopt(self, manifest: Manifest, index: int, kind: Kind, reservation: Hashable) -> None:
        """Count bytes that are here as the copy that a manifest speaks of, if it still does."""
        copies, uses = self._holding.copies, self._holding.uses
        with trio.CancelScope(shield=True):
            async with uses.lock:
                current = self._manifests.get_kept(manifest.key)
                if current is None or current.removed:
                    return
                if current.held_by(self._own_peer_id).get(index) is not kind:
                    return
                group_key = manifest.group_key
                size_bytes = manifest.size_of(index)
                holding = Holding(group_key, index, manifest.digests[index], kind, size_bytes, State.ACTIVE)
                await self._database.write(partial(holding_table.hold, holding=holding))
                failpoints.reach("healing.adopted")
                self._holding.ledger.release(reservation)
                copies.replace(group_key, {**copies.of(group_key), index: holding})
        self._holding.changed()
        log.info("copy_healed", partition=index, kind=kind, digest=manifest.key.matrix_digest.hex()[:16])

    async def _forget_copies(self, digest: bytes) -> None:
        """Let go of the copies that had bytes which changed, and look at their matrices again."""
        copies, uses = self._holding.copies, self._holding.uses
        with trio.CancelScope(shield=True):
            async with uses.lock:
                lost = copies.using(digest)
                if not lost or self._blobs.contains(digest):
                    return

                def release(connection: Connection) -> None:
                    for holding in lost:
                        holding_table.release(connection, holding.group_key, [holding.partition_index])

                await self._database.write(release)
                failpoints.reach("healing.forgotten")
                groups = {holding.group_key for holding in lost}
                for group_key in groups:
                    kept = copies.of(group_key).items()
                    copies.replace(group_key, {index: copy for index, copy in kept if copy.digest != digest})
        self._holding.changed()
        log.error("copies_lost", digest=digest.hex()[:16], copies=len(lost))
        self.look_at(manifest.key for manifest in self._manifests.kept() if manifest.group_key in groups)
