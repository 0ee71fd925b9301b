"""A matrix comes in, as node/putting.py has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sedmad.core.membership import Claim
from sedmad.core.placement import place
from sedmad.errors import InsufficientCapacity, NameTaken, SedmadError
from sedmad.testing.store.committing import Put
from sedmad.testing.store.disk import Key, cut_into

if TYPE_CHECKING:
    from sedmad.testing.store.node import StoreNode

PLANS_MAX = 3


class Putting:
    """Stores matrices of which this node becomes the owner."""

    def __init__(self, node: StoreNode) -> None:
        self._node = node
        self._names: set[str] = set()

    async def put(self, name: str, content: str, partitions: int, survive: int, *, replaces: bool) -> Claim:
        """Store a matrix and name it; what it returns is promised."""
        if name in self._names:
            raise NameTaken("the same name is being stored right now")
        self._names.add(name)
        try:
            taken = self._node.directory.get(name)
            if taken is not None and not replaces:
                if Key.of(taken).content == content and taken.survive >= survive:
                    return taken
                raise NameTaken(f"another matrix is stored as {name}")
            return await self._store(name, content, partitions, survive, replaces)
        finally:
            self._names.discard(name)

    async def _store(self, name: str, content: str, partitions: int, survive: int, replaces: bool) -> Claim:
        put = await self._reserve(name, content, partitions, survive)
        try:
            await self._copy(put)
            claim = await self._node.committing.commit(put, replaces)
        except SedmadError:
            if not put.committed:
                await self._node.undertakings.release(put.put_id, put.holders)
            raise
        finally:
            if put.replaced is not None:
                self._node.removing.on_replaced(put.replaced)
        if not put.committed:
            await self._node.undertakings.release(put.put_id, put.holders)
        return claim

    async def _reserve(self, name: str, content: str, partitions: int, survive: int) -> Put:
        refused: set[str] = set()
        for _ in range(PLANS_MAX):
            offers = [offer for offer in self._node.offers() if offer.peer_id not in refused]
            placement = place(cut_into(partitions), survive, offers, name.encode())
            put = Put(self._node.undertakings.new_id(), name, content, survive, placement)
            await self._node.undertakings.intend(put.put_id, put.holders)
            failed = await self._node.undertakings.reserve_everywhere(put.put_id, placement.needs())
            if not failed:
                return put
            await self._node.undertakings.release(put.put_id, put.holders)
            refused |= failed
        raise InsufficientCapacity(f"{' '.join(sorted(refused))} have no room")

    async def _copy(self, put: Put) -> None:
        """Spool, and have each partition copied as soon as it is on disk here."""
        holding, disk = self._node.holding, self._node.disk

        async def copy(index: int, digest: str) -> None:
            await holding.need(digest)
            try:
                await self._node.write(lambda: disk.put_bytes(digest, digest))
                await self._node.tasks.gather(
                    self._node.undertakings.hold(
                        put.put_id, index, digest, peer, resident, (self._node.peer_id,)
                    )
                    for peer, resident in put.copies_of(index).items()
                )
            finally:
                holding.need_no_more(digest)

        await self._node.tasks.gather(copy(index, digest) for index, digest in enumerate(put.digests))
