"""A put whose copies are safe becomes a matrix, as node/committing.py has it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sedmad.core.membership import Claim, short_id
from sedmad.core.offers import guardians
from sedmad.core.ownership import is_majority
from sedmad.core.placement import Placement
from sedmad.errors import NameTaken, NotEnoughPeers, SedmadError
from sedmad.testing.store.disk import Kept, Key, Manifest, digests_of
from sedmad.testing.store.keeping import signed
from sedmad.testing.store.manifests import with_guardians_before

if TYPE_CHECKING:
    from sedmad.testing.store.node import StoreNode


@dataclass(slots=True)
class Put:
    """A put under way."""

    put_id: str
    name: str
    content: str
    survive: int
    placement: Placement
    committed: bool = False
    replaced: Claim | None = None

    @property
    def holders(self) -> frozenset[str]:
        return frozenset(self.placement.needs())

    @property
    def digests(self) -> tuple[str, ...]:
        return digests_of(self.content, self.placement.partitioning.count)

    def copies_of(self, index: int) -> dict[str, bool]:
        partition = self.placement.partitions[index]
        return {partition.resident: True} | dict.fromkeys(partition.standbys, False)


class Committing:
    """Commits the puts of which a node is the owner."""

    def __init__(self, node: StoreNode) -> None:
        self._node = node

    async def commit(self, put: Put, replaces: bool) -> Claim:
        key, manifests = Key(put.content, self._node.peer_id), self._node.manifests
        async with manifests.writing[key]:
            before = manifests.get(key)
            if before is not None and before.established and self._serves(before.manifest, put):
                kept = before
            else:
                kept = await self._store_new(put, key, before)
            fresh = kept is not before
            try:
                await self._node.establishing.make_safe(
                    kept,
                    put_id=put.put_id if fresh else "",
                    needed=(put.holders if fresh else kept.manifest.holders) - {self._node.peer_id},
                )
                if not replaces and self._node.directory.get(put.name) is not None:
                    raise NameTaken(f"{put.name} was taken meanwhile")
            except SedmadError:
                await self._take_back(before, kept)
                raise
            put.committed = fresh
            return await self._name(put, kept)

    async def _name(self, put: Put, kept: Kept) -> Claim:
        claim = self._claim(put, kept.manifest)
        record = signed(claim)

        def transaction() -> None:
            self._node.keeping.keep(record)
            if put.committed:
                self._node.disk.end(put.put_id)
            self._node.watch.claimed(claim)

        await self._node.write(transaction)
        own = self._node.directory.find(put.name, self._node.peer_id)
        if own is not None and isinstance(own.record, Claim) and not own.record.removed:
            put.replaced = own.record
        self._node.keeping.publish(claim)
        named = await self._node.establishing.finish(kept, claim=record)
        # Most guardians: whoever is elected next frees what has no name.
        knowing = {self._node.peer_id, *named}
        if len(named) < put.survive or not is_majority(knowing, kept.manifest.guardians):
            raise NotEnoughPeers("too few nodes know the name yet")
        self._node.watch.acknowledged(claim, kept.manifest)
        return claim

    async def _take_back(self, before: Kept | None, failed: Kept) -> None:
        if before is None:
            await self._node.removing.retire(failed)
        elif failed is not before:
            manifest = replace(before.manifest, seq=failed.manifest.seq + 1, line=failed.manifest.line)
            await self._node.establishing.establish(manifest, back_to=before)

    def _serves(self, before: Manifest, put: Put) -> bool:
        alive = all(self._node.state_of(peer) == "alive" for peer in before.holders)
        return before.survive >= put.survive and alive

    async def _store_new(self, put: Put, key: Key, kept: Kept | None) -> Kept:
        before = kept.manifest if kept else None
        last = before or self._node.disk.tombstones.get(key)
        ours = last is not None and last.owner == self._node.peer_id
        copies = [put.copies_of(index) for index in range(len(put.digests))]
        if before is not None:
            copies = [
                mine | {peer: False for peer in before.copies[index] if peer not in mine}
                for index, mine in enumerate(copies)
            ]
        epoch = 0 if last is None else last.epoch if ours else last.epoch + 1
        manifest = Manifest(
            key=key,
            owner=self._node.peer_id,
            guardians=guardians(self._node.peer_id, self._node.offers()),
            epoch=epoch,
            seq=last.seq + 1 if last else 1,
            survive=max(put.survive, before.survive if before else 0),
            digests=put.digests,
            copies=tuple(copies),
            successions=last.successions if last and ours else (),
            begun_in=last.begun_in if last and ours else epoch,
        )
        if kept is not None:
            manifest = replace(with_guardians_before(manifest, kept), line=kept.manifest.line)
        elif last is not None:
            # Its end may not be all that they know of it who guarded it when it last was agreed on.
            asked = last.guardians_before or last.guardians
            before_them = asked if set(asked) != set(manifest.guardians) else ()
            manifest = replace(manifest, line=last.line, guardians_before=before_them)
        return await self._node.manifests.keep(manifest.written(), put_id=put.put_id, established=False)

    def _claim(self, put: Put, manifest: Manifest) -> Claim:
        claim = Claim(
            name=put.name,
            version=0,
            matrix_digest=manifest.key.digest,
            first_owner=manifest.key.first_owner,
            owner=manifest.owner,
            epoch=manifest.epoch,
            seq=manifest.seq,
            guardians=tuple(short_id(peer) for peer in manifest.guardians),
            rows=len(manifest.digests),
            survive=put.survive,
            wall_time_s=self._node.wall_time_s(),
        )
        return self._node.directory.next_version(claim)
