"""The copies that this node has: of matrices, and of puts that are not matrices yet; counted against its pledges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import structlog

from sedmad.core.accuracy import EXACT, Accuracy
from sedmad.core.capacity import CapacityLedger
from sedmad.core.partitioning import Partitioning
from sedmad.errors import BytesCorrupt, ProtocolViolation
from sedmad.node.blob_uses import BlobUses
from sedmad.node.manifest import Manifest
from sedmad.node.residents import Residents
from sedmad.store.blobs import BlobStore
from sedmad.store.holdings import Holding, Kind, State

log = structlog.get_logger("sedmad.holding")


@dataclass(slots=True)
class PendingPut:
    """A put under way that has, or will have, copies here; and what is left of the room set aside for it."""

    owner: str
    partitioning: Partitioning
    dtype: str
    memory_left_bytes: int
    disk_left_bytes: int
    accuracy: Accuracy = EXACT
    holdings: dict[int, Holding] = field(default_factory=dict)
    _lodgers: set[int] = field(default_factory=set)  # copies whose bytes another copy here brought

    def take(self, holding: Holding, *, on_disk: bool = False) -> None:
        """Take a copy in.

        Args:
            on_disk: a matrix here has its bytes already, and their disk is counted there.

        Raises:
            ProtocolViolation: it is not what was agreed on.
        """
        before = self.holdings.get(holding.partition_index)
        if before is not None and before.digest != holding.digest:
            raise ProtocolViolation("a partition was given other bytes", node=self.owner)
        memory_bytes = _memory_bytes(holding) - (_memory_bytes(before) if before else 0)
        disk_bytes = 0 if before or on_disk else holding.size_bytes
        if memory_bytes > self.memory_left_bytes or disk_bytes > self.disk_left_bytes:
            raise ProtocolViolation("a copy needs more room than was set aside for its put", node=self.owner)
        self.memory_left_bytes -= memory_bytes
        self.disk_left_bytes -= disk_bytes
        self.holdings[holding.partition_index] = holding
        if on_disk and before is None:
            self._lodgers.add(holding.partition_index)

    def with_room(self, before: Mapping[int, Holding]) -> dict[int, Holding]:
        """Return the copies that a matrix with the copies `before` has room for.

        A lodger takes none where it is one of them; where another matrix of the same content has its bytes, it takes
        what is left of the room set aside.
        """
        left_bytes = self.disk_left_bytes
        usable: dict[int, Holding] = {}
        for index, holding in self.holdings.items():
            if index in self._lodgers and index not in before:
                if holding.size_bytes > left_bytes:
                    continue
                left_bytes -= holding.size_bytes
            usable[index] = holding
        return usable


class Copies:
    """Copies of matrices, by the bytes that stand for the matrix in the table of holdings and by partition."""

    def __init__(
        self, blobs: BlobStore, residents: Residents, uses: BlobUses, ledger: CapacityLedger
    ) -> None:
        self._blobs = blobs
        self._residents = residents
        self._uses = uses
        self._ledger = ledger
        self._copies: dict[bytes, dict[int, Holding]] = {}
        # Which matrices have copies of the same bytes.
        self._groups: dict[bytes, set[bytes]] = {}

    def of(self, group_key: bytes) -> dict[int, Holding]:
        """Return the copies of a matrix."""
        return self._copies.get(group_key, {})

    def bytes_of(self, group_key: bytes) -> tuple[int, int]:
        """Return the resident and the standby bytes of a matrix here."""
        holdings = self.of(group_key).values()
        resident = sum(holding.size_bytes for holding in holdings if holding.kind is Kind.RESIDENT)
        return resident, sum(holding.size_bytes for holding in holdings) - resident

    def lacking(self, manifest: Manifest, peer_id: str) -> dict[int, Kind]:
        """Return the copies that a manifest gives this node, `peer_id`, and that are not here as it says."""
        here = self.of(manifest.group_key)
        given = {} if manifest.removed else manifest.held_by(peer_id)
        return {
            index: kind
            for index, kind in given.items()
            if index not in here or (kind is Kind.RESIDENT and here[index].kind is Kind.STANDBY)
        }

    def resident(self) -> list[Holding]:
        """Return the resident copies, the latest first."""
        copies = [holding for holdings in self._copies.values() for holding in holdings.values()]
        return [holding for holding in reversed(copies) if holding.kind is Kind.RESIDENT]

    def using(self, digest: bytes) -> list[Holding]:
        """Return the copies that have these bytes."""
        return [
            holding
            for group_key in self._groups.get(digest, ())
            for holding in self._copies[group_key].values()
            if holding.digest == digest
        ]

    async def take_up(self, holding: Holding, manifest: Manifest) -> bool:
        """Count a copy again, and program it; False if its bytes are gone or have changed."""
        if not self._blobs.contains(holding.digest):
            return False
        if _memory_bytes(holding) > self._ledger.memory.available_bytes:
            # The pledge was lowered: it answers through the page cache, and is resident again when there is room.
            log.warning(
                "copy_not_resident", partition=holding.partition_index, pledge=str(self._ledger.memory)
            )
            holding = replace(holding, kind=Kind.STANDBY)
        if holding.kind is Kind.RESIDENT:
            start, stop = manifest.rows_of(holding.partition_index)
            try:
                await self._residents.program(holding.digest, stop - start, manifest.columns, manifest.dtype)
            except BytesCorrupt as error:
                log.error("copy_corrupt", partition=holding.partition_index, why=str(error))
                return False
            self._residents.program_devices_soon(
                holding.digest, stop - start, manifest.columns, manifest.dtype, manifest.accuracy
            )
        self._copies.setdefault(holding.group_key, {})[holding.partition_index] = holding
        self._groups.setdefault(holding.digest, set()).add(holding.group_key)
        self._uses.add_copy(holding)
        self._count(holding)
        return True

    def replace(self, group_key: bytes, after: dict[int, Holding]) -> None:
        """Have these copies of a matrix in place of those before, which are let go."""
        before = self._copies.pop(group_key, {})
        for digest in {holding.digest for holding in before.values()}:
            self._groups[digest].discard(group_key)
            if not self._groups[digest]:
                del self._groups[digest]
        if after:
            self._copies[group_key] = after
        for holding in after.values():
            self._groups.setdefault(holding.digest, set()).add(group_key)
        for holding in after.values():
            self._uses.add_copy(holding)
        for index, holding in before.items():
            self._uses.remove_copy(holding)
            if after.get(index) != holding:
                self._uncount(holding)
        for index, holding in after.items():
            if before.get(index) != holding:
                self._count(holding)

    def _count(self, holding: Holding) -> None:
        """Count a copy against the pledges. Its room was set aside before; a pledge may be lower by now."""
        key = (holding.group_key, holding.partition_index)
        self._ledger.adopt(key, memory_bytes=_memory_bytes(holding), disk_bytes=holding.size_bytes)

    def _uncount(self, holding: Holding) -> None:
        self._ledger.release((holding.group_key, holding.partition_index))


def named_copies(
    manifest: Manifest, peer_id: str, before: Mapping[int, Holding], fresh: Mapping[int, Holding]
) -> dict[int, Holding]:
    """Return the copies that a manifest gives a node, as far as they are there: of its matrix, or of its put."""
    named: dict[int, Holding] = {}
    for index, kind in {} if manifest.removed else manifest.held_by(peer_id).items():
        holding = fresh.get(index) or before.get(index)
        if holding is not None and holding.digest == manifest.digests[index]:
            # A standby copy does not become resident by being called so: it has to be programmed first.
            kind = kind if kind is Kind.STANDBY else holding.kind
            named[index] = replace(holding, group_key=manifest.group_key, kind=kind, state=State.ACTIVE)
    return named


def _memory_bytes(holding: Holding) -> int:
    return holding.size_bytes if holding.kind is Kind.RESIDENT else 0
