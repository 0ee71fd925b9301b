"""A matrix goes away, as node/removing.py has it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sedmad.core.membership import Claim, SignedRecord
from sedmad.errors import NotEnoughPeers, SedmadError
from sedmad.testing.store.disk import Kept, Key
from sedmad.testing.store.keeping import signed
from sedmad.testing.store.manifests import with_guardians_before

if TYPE_CHECKING:
    from sedmad.testing.store.node import StoreNode

# A tenth of the daemon's: products are short here.
REPLACED_AFTER_S = 3.5
FREE_AGAIN_S = 3.0
LOOK_S = 5.0


class Removing:
    """Removes names and frees matrices."""

    def __init__(self, node: StoreNode) -> None:
        self._node = node
        self._freeing: set[Key] = set()

    async def run(self) -> None:
        """Free what lost its name and nobody said so: the author of a matrix that was passed on took another."""
        while True:
            self.free_all_unnamed()
            await self._node.tasks.sleep(LOOK_S)

    def on_replaced(self, claim: Claim) -> None:
        if claim.owner == self._node.peer_id:
            self.free_unnamed(Key.of(claim))

    def free_all_unnamed(self) -> None:
        for manifest in self._node.manifests.kept():
            if manifest.owner == self._node.peer_id and not self._is_named(manifest.key):
                self.free_unnamed(manifest.key)

    def free_unnamed(self, key: Key) -> None:
        if key not in self._freeing:
            self._freeing.add(key)
            self._node.tasks.spawn(self._free_later(key))

    async def remove_own(self, claim: Claim) -> None:
        """Take back a name of ours and free its matrix."""
        kept = self._node.manifests.get(Key.of(claim))
        if kept is not None and not self._node.establishing.may_plan(kept.manifest):
            raise NotEnoughPeers("most of its guardians do not answer")
        tombstone = signed(claim.tombstone(self._node.wall_time_s()))
        assert isinstance(tombstone.record, Claim)
        self._node.watch.removing(claim)
        await self._node.write(lambda: self._node.keeping.keep(tombstone))
        self._node.keeping.publish(tombstone.record)
        try:
            await self._free(Key.of(claim), claim.name)
        except SedmadError:
            self.free_unnamed(Key.of(claim))

    async def _free_later(self, key: Key) -> None:
        await self._node.tasks.sleep(REPLACED_AFTER_S)
        while True:
            try:
                await self._free(key)
            except SedmadError:
                await self._node.tasks.sleep(FREE_AGAIN_S)
            else:
                self._freeing.discard(key)
                return

    async def _free(self, key: Key, name: str = "") -> None:
        async with self._node.manifests.writing[key]:
            kept = self._node.manifests.get(key)
            if kept is None or kept.manifest.owner != self._node.peer_id or self._is_named(key):
                return
            record = self._node.directory.find(name, key.first_owner) if name else None
            await self._end(kept, record, promised=self._may_be_promised(kept))

    @staticmethod
    def _may_be_promised(kept: Kept) -> bool:
        """Whether somebody may rely on a matrix: a change of ours that failed is one that was not there before."""
        manifest = kept.manifest
        return kept.established or manifest.removed or bool(manifest.successions)

    def _is_named(self, key: Key) -> bool:
        return bool(self._node.directory.naming(key.digest, key.first_owner))

    async def retire(self, failed: Kept) -> None:
        """End a matrix of ours that never was acknowledged; nobody else can know it."""
        await self._end(failed, None, promised=False)

    async def _end(self, before: Kept, record: SignedRecord | None, *, promised: bool) -> None:
        manifest = with_guardians_before(before.manifest, before)
        last = replace(manifest, seq=manifest.seq + 1, removed=True, retired=not promised).written()
        ours = (
            record is not None
            and isinstance(record.record, Claim)
            and record.record.owner == self._node.peer_id
        )
        claim = record if ours else None
        also = None if claim is None else lambda: self._node.keeping.keep(claim)
        kept = await self._node.manifests.keep(last, also=also, established=False)
        if promised:
            await self._node.establishing.make_safe(kept)
        await self._node.establishing.finish(kept, claim=claim)
