"""Copies on a simulated node, as node/holding.py, copies.py, blob_uses.py and restoring.py keep them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sedmad.errors import InsufficientCapacity, NotPermitted, ProtocolViolation
from sedmad.testing.store.disk import PARTITION_BYTES, Holding, Key, Manifest
from sedmad.testing.tasks import Places

if TYPE_CHECKING:
    from sedmad.testing.store.node import StoreNode

TRANSFERS_MAX = 2
Copies = dict[int, Holding]


@dataclass(slots=True)
class PendingPut:
    """A put whose copies are no matrix's yet, and what is left of its room."""

    owner: str
    memory_left_bytes: int
    disk_left_bytes: int
    holdings: Copies = field(default_factory=dict)
    _lodgers: set[int] = field(default_factory=set)

    def take(self, holding: Holding, *, on_disk: bool) -> None:
        before = self.holdings.get(holding.index)
        memory_bytes = holding.memory_bytes - (before.memory_bytes if before else 0)
        disk_bytes = 0 if before or on_disk else PARTITION_BYTES
        if memory_bytes > self.memory_left_bytes or disk_bytes > self.disk_left_bytes:
            raise ProtocolViolation("a copy needs more room than was set aside")
        self.memory_left_bytes -= memory_bytes
        self.disk_left_bytes -= disk_bytes
        self.holdings[holding.index] = holding
        if on_disk and before is None:
            self._lodgers.add(holding.index)

    def with_room(self, before: Copies) -> Copies:
        """Return the copies that a matrix with the copies `before` has room for."""
        left_bytes = self.disk_left_bytes
        usable: Copies = {}
        for index, holding in self.holdings.items():
            if index in self._lodgers and index not in before:
                if left_bytes < PARTITION_BYTES:
                    continue
                left_bytes -= PARTITION_BYTES
            usable[index] = holding
        return usable


class Holdings:
    """One life's copies."""

    def __init__(self, node: StoreNode) -> None:
        self._node = node
        self._disk = node.disk
        self.ledger = node.ledger
        self.copies: dict[Key, Copies] = {}
        self.puts: dict[str, PendingPut] = {}
        self._given_up: set[str] = set()
        self.lock = Places(node.tasks)
        self.transfers = Places(node.tasks, TRANSFERS_MAX)
        self._uses: Counter[str] = Counter()
        node.calls.handlers |= {
            "reserve": self.reserve,
            "hold": self.take_copy,
            "release": self.release_put,
        }

    def restore(self) -> None:
        """Take up what an earlier life left; what no manifest names, and bytes that nothing names, go."""
        for place, holding in list(self._disk.holdings.items()):
            key = holding.group
            if (
                not isinstance(key, Key)
                or key not in self._disk.kept
                or holding.digest not in self._disk.blobs
            ):
                self._disk.release(*place)
                continue
            if holding.memory_bytes > self.ledger.memory.available_bytes:
                holding = replace(holding, resident=False)
            self.copies.setdefault(key, {})[holding.index] = holding
            self._uses[holding.digest] += 1
            self._count(holding)
        for digest in [digest for digest in self._disk.blobs if digest not in self._uses]:
            self._disk.drop_bytes(digest)

    def lacking(self, manifest: Manifest) -> dict[int, bool]:
        """Return the copies that a manifest gives this node and that are not here as it says."""
        here = self.copies.get(manifest.key, {})
        given = {} if manifest.removed else manifest.held_by(self._node.peer_id)
        return {
            index: resident
            for index, resident in given.items()
            if index not in here or (resident and not here[index].resident)
        }

    # What members ask.

    async def reserve(self, owner: str, put_id: str, memory_bytes: int, disk_bytes: int) -> None:
        if put_id in self.puts:
            raise ProtocolViolation("a put is known already")
        if put_id in self._given_up:
            raise NotPermitted("no such put")
        if owner != self._node.peer_id and self._node.state_of(owner) == "dead":
            raise InsufficientCapacity("it holds their owner for dead")
        self.ledger.reserve(put_id, memory_bytes=memory_bytes, disk_bytes=disk_bytes)
        self.puts[put_id] = PendingPut(owner, memory_bytes, disk_bytes)
        self._node.tell_use()

    async def take_copy(
        self, owner: str, put_id: str, index: int, digest: str, resident: bool, sources: tuple[str, ...]
    ) -> None:
        self._put(put_id, owner)
        await self.need(digest)
        try:
            async with self.transfers:
                self._put(put_id, owner)
                await self._node.fetching.fetch_from(digest, sources)
                await self.hold(put_id, index, digest, resident)
        finally:
            self.need_no_more(digest)

    async def release_put(self, owner: str, put_id: str) -> None:
        if put_id in self.puts:
            self._put(put_id, owner)
            await self.release(put_id)
        else:
            self._given_up.add(put_id)

    # What this node's own services use as well.

    async def hold(self, put_id: str, index: int, digest: str, resident: bool) -> None:
        async with self.lock:
            put = self.puts.get(put_id)
            if put is None:
                raise NotPermitted("no such put")
            holding = Holding(put_id, index, digest, resident)
            before = put.holdings.get(index)
            put.take(holding, on_disk=any(copy.index == index for copy in self._using(digest)))
            self._uses[digest] += 1
            if before is not None:
                self.need_no_more(before.digest)
            await self._node.write(lambda: self._disk.hold(holding))

    async def release(self, put_id: str) -> None:
        async with self.lock:
            if put_id in self.puts:
                await self._node.write(lambda: self._disk.release(put_id))
                self._forget_put(put_id)
        self._node.tell_use()

    def owner_gone(self, owner: str) -> None:
        for put_id in [put_id for put_id, put in self.puts.items() if put.owner == owner]:
            self._node.tasks.spawn(self.release(put_id))

    async def need(self, digest: str) -> None:
        async with self.lock:
            self._uses[digest] += 1

    def need_no_more(self, digest: str) -> None:
        self._uses[digest] -= 1
        if not self._uses[digest]:
            self._node.tasks.spawn(self._delete(digest))

    async def _delete(self, digest: str) -> None:
        async with self.lock:
            if not self._uses[digest]:
                self._disk.drop_bytes(digest)

    # What a manifest changes.

    async def apply(
        self, manifest: Manifest, put_id: str, established: bool, write_down: Callable[[], None]
    ) -> None:
        """Store a manifest, by `write_down`, in one transaction with what it changes about the copies here."""
        async with self.lock:
            put = self.puts.get(put_id)
            if put is not None and put.owner != manifest.owner:
                raise NotPermitted("another owner's put")
            before = self.copies.get(manifest.key, {})
            named = self._named(manifest, before, put.with_room(before) if put else {})
            given = {} if manifest.removed else manifest.held_by(self._node.peer_id)
            lacking = given.keys() - named.keys()
            if put_id and (lacking if put is None else lacking & put.holdings.keys()):
                raise NotPermitted("this node does not hold all that a put gives it")
            after = self.until_established(before, named, established)

            def transaction() -> None:
                write_down()
                self._disk.release(manifest.key)
                self._disk.release(put_id)
                for holding in after.values():
                    self._disk.hold(holding)

            await self._node.write(transaction)
            for holding in after.values():
                self._uses[holding.digest] += 1
            if put is not None:
                self._forget_put(put_id)
            self.replace(manifest.key, after)
            for holding in after.values():
                self.need_no_more(holding.digest)
        self._node.tell_use()

    @staticmethod
    def until_established(before: Copies, named: Copies, established: bool) -> Copies:
        """Return what is kept: only what most guardians know may make anybody free bytes."""
        return named if established else before | named

    def replace(self, key: Key, after: Copies) -> None:
        """Have these copies of a matrix in place of those before."""
        before = self.copies.pop(key, {})
        if after:
            self.copies[key] = after
        for holding in after.values():
            self._uses[holding.digest] += 1
        for index, holding in before.items():
            self.need_no_more(holding.digest)
            if after.get(index) != holding:
                self.ledger.release((key, index))
        for index, holding in after.items():
            if before.get(index) != holding:
                self._count(holding)

    def forget(self, digest: str) -> set[Key]:
        """Let go of the copies that had bytes which changed; return whose they were. The caller holds the lock."""
        lost = self._using(digest)
        for holding in lost:
            assert isinstance(holding.group, Key)
            self._disk.release(holding.group, holding.index)
            here = self.copies[holding.group]
            self.replace(holding.group, {index: copy for index, copy in here.items() if copy != holding})
        return {holding.group for holding in lost if isinstance(holding.group, Key)}

    def _using(self, digest: str) -> list[Holding]:
        return [copy for copies in self.copies.values() for copy in copies.values() if copy.digest == digest]

    def _named(self, manifest: Manifest, before: Copies, fresh: Copies) -> Copies:
        named: Copies = {}
        for index, resident in {} if manifest.removed else manifest.held_by(self._node.peer_id).items():
            holding = fresh.get(index) or before.get(index)
            if holding is not None and holding.digest == manifest.digests[index]:
                named[index] = replace(holding, group=manifest.key, resident=resident and holding.resident)
        return named

    def _count(self, holding: Holding) -> None:
        place = (holding.group, holding.index)
        self.ledger.adopt(place, memory_bytes=holding.memory_bytes, disk_bytes=PARTITION_BYTES)

    def _forget_put(self, put_id: str) -> None:
        for holding in self.puts.pop(put_id).holdings.values():
            self.need_no_more(holding.digest)
        self.ledger.release(put_id)

    def _put(self, put_id: str, owner: str) -> PendingPut:
        put = self.puts.get(put_id)
        if put is None or put.owner != owner:
            raise NotPermitted("no such put")
        return put
