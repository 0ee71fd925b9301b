"""What a manifest gives a simulated node and the node has not got, as node/healing.py fetches it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING

from sedmad.errors import SedmadError
from sedmad.testing.store.disk import PARTITION_BYTES, Holding, Key, Manifest
from sedmad.testing.tasks import Bell

if TYPE_CHECKING:
    from sedmad.testing.store.node import StoreNode

RETRY_S = 4.0
STATES = ("alive", "suspect", "dead")


class Healing:
    """Brings the copies on a node to what manifests say."""

    def __init__(self, node: StoreNode) -> None:
        self._node = node
        self._waiting: dict[Key, None] = {}
        self._corrupt: dict[str, None] = {}
        self._wake = Bell(node.tasks)

    def look_at(self, keys: Iterable[Key]) -> None:
        self._waiting |= dict.fromkeys(keys)
        self._wake.ring()

    def on_corrupt(self, digest: str) -> None:
        self._corrupt[digest] = None
        self._wake.ring()

    async def run(self) -> None:
        self.look_at(manifest.key for manifest in self._node.manifests.kept())
        while True:
            await self._wake.wait(RETRY_S)
            corrupt, self._corrupt = self._corrupt, {}
            for digest in corrupt:
                await self._forget_copies(digest)
            keys, self._waiting = self._waiting, {}
            for key in keys:
                if not await self._heal(key):
                    self._waiting[key] = None

    async def _heal(self, key: Key) -> bool:
        """Fetch what a matrix lacks here; return whether nothing is left to do."""
        kept = self._node.manifests.get(key)
        if kept is None:
            return True
        whole = True
        for index, resident in self._node.holding.lacking(kept.manifest).items():
            try:
                await self._take(kept.manifest, index, resident)
            except SedmadError as error:
                whole = False
                self._node.watch.note(f"{self._node.peer_id} lacks {key}/{index}: {error}")
        return whole

    async def _take(self, manifest: Manifest, index: int, resident: bool) -> None:
        digest, holding = manifest.digests[index], self._node.holding
        reservation = ("healing", manifest.key, index)
        here = index in holding.copies.get(manifest.key, {})
        self.reserve(reservation, PARTITION_BYTES * resident, 0 if here else PARTITION_BYTES)
        try:
            await holding.need(digest)
            try:
                async with holding.transfers:
                    sources = [peer for peer in manifest.copies[index] if peer != self._node.peer_id]
                    sources.sort(key=lambda peer: STATES.index(self._node.state_of(peer)))
                    await self._node.fetching.fetch_from(digest, sources)
                await self._adopt(manifest, index, resident, reservation)
            finally:
                holding.need_no_more(digest)
        finally:
            if reservation in holding.ledger:
                holding.ledger.release(reservation)

    def reserve(self, reservation: Hashable, memory_bytes: int, disk_bytes: int) -> None:
        self._node.ledger.reserve(reservation, memory_bytes=memory_bytes, disk_bytes=disk_bytes)

    async def _adopt(self, manifest: Manifest, index: int, resident: bool, reservation: Hashable) -> None:
        holding, key = self._node.holding, manifest.key
        async with holding.lock:
            current = self._node.manifests.get(key)
            if current is None or current.manifest.removed:
                return
            if current.manifest.held_by(self._node.peer_id).get(index) is not resident:
                return
            copy = Holding(key, index, manifest.digests[index], resident)
            await self._node.write(lambda: self._node.disk.hold(copy))
            if reservation in holding.ledger:
                holding.ledger.release(reservation)
            holding.replace(key, {**holding.copies.get(key, {}), index: copy})
        self._node.tell_use()
        self._node.watch.note(f"{self._node.peer_id} healed {key}/{index}")

    async def _forget_copies(self, digest: str) -> None:
        """Let go of the copies that had bytes which changed, and look at their matrices again."""
        async with self._node.holding.lock:
            if digest in self._node.disk.blobs:
                return
            lost = self._node.holding.forget(digest)
        self._node.tell_use()
        self.look_at(sorted(lost, key=str))
