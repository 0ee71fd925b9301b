"""Whether the bytes on this node are what they should be: copies in the table, blobs on disk, and manifests compared.

Nothing is mended here: the store tells of bytes that it finds changed, and they are fetched again elsewhere.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import trio
from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

from sedmad.errors import BytesCorrupt
from sedmad.node.manifest import group_key
from sedmad.node.manifests import ManifestService
from sedmad.node.succession import key_to_wire
from sedmad.store import holdings, puts
from sedmad.store.blobs import BlobStore
from sedmad.store.database import Database
from sedmad.store.holdings import Holding, State
from sedmad.store.manifests import ManifestKey
from sedmad.wire import messages as wire

OnProgress = Callable[[int, int], Awaitable[None]]

# A report stays far below the bound of a frame; who has more faults needs another disk, not a list.
FAULTS_MAX = 1000
# What lost its last use is deleted by and by, and a copy that is being taken has its bytes before its row.
SETTLED_AFTER_S = 2.0

# A copy of a matrix: its row's group and partition.
_Place = tuple[bytes, int]


async def verify_store(
    database: Database,
    blobs: BlobStore,
    manifests: ManifestService,
    *,
    quick: bool,
    on_progress: OnProgress,
) -> wire.StoreReport:
    """Read all copies on this node and compare them with their digests and with what manifests give it.

    Args:
        quick: only that the files are there with their sizes, without reading them.
        on_progress: awaited with the bytes checked and all bytes to check, on the way and at the end.
    """
    held = await database.read(holdings.load)
    unneeded = await _unneeded(database, blobs)
    found = await _check_blobs(blobs, held, quick=quick, on_progress=on_progress)
    # A row without bytes is no copy, unless it went with its bytes meanwhile.
    kept = {holding.digest for holding in await database.read(holdings.load)}
    found.missing |= {digest for digest in kept if not blobs.contains(digest)} - found.corrupt
    report = wire.StoreReport(
        copies=sum(holding.state is State.ACTIVE for holding in held), blobs=len(blobs.digests())
    )
    keys = {group_key(manifest.key): manifest.key for manifest in manifests.kept()}
    bad = {(holding.group_key, holding.partition_index) for holding in held if found.is_bad(holding.digest)}
    corrupt = [_fault(holding, keys) for holding in held if holding.digest in found.corrupt]
    missing = [_fault(holding, keys) for holding in held if holding.digest in found.missing]
    missing += await _lacking(database, manifests, bad)
    if unneeded:
        await trio.sleep(SETTLED_AFTER_S)
        unneeded &= await _unneeded(database, blobs)
    orphaned = [wire.StoreFault(digest=digest) for digest in sorted(unneeded)]
    for faults, into in (
        (corrupt, report.corrupt),
        (missing, report.missing),
        (orphaned, report.orphaned),
    ):
        report.more += _fill(into, faults)
    return report


@dataclass(slots=True)
class _Found:
    corrupt: set[bytes] = field(default_factory=set)
    missing: set[bytes] = field(default_factory=set)

    def is_bad(self, digest: bytes) -> bool:
        return digest in self.corrupt or digest in self.missing


async def _check_blobs(
    blobs: BlobStore, held: list[Holding], *, quick: bool, on_progress: OnProgress
) -> _Found:
    """Look at the bytes of each copy once, however many matrices share them."""
    sizes = {holding.digest: holding.size_bytes for holding in held}
    total_bytes, checked_bytes = sum(sizes.values()), 0
    found = _Found()

    async def count(size_bytes: int, cpu_s: float) -> None:
        nonlocal checked_bytes
        checked_bytes += size_bytes
        await on_progress(checked_bytes, total_bytes)

    for digest, size_bytes in sizes.items():
        before_bytes = checked_bytes
        whole = await blobs.is_whole(digest)
        if not (quick and whole):
            try:
                await blobs.verify(digest, count)
            except BytesCorrupt:
                (found.corrupt if whole else found.missing).add(digest)
        checked_bytes = before_bytes + size_bytes
        await on_progress(checked_bytes, total_bytes)
    return found


async def _lacking(
    database: Database, manifests: ManifestService, known_as_bad: set[_Place]
) -> list[wire.StoreFault]:
    """Return the copies that manifests give this node and that it does not hold."""
    kept = manifests.kept()
    held = {
        (holding.group_key, holding.partition_index): holding.digest
        for holding in await database.read(holdings.load)
    }
    return [
        wire.StoreFault(digest=manifest.digests[index], key=key_to_wire(manifest.key), partition_index=index)
        for manifest in kept
        for index in manifest.held_by(manifests.own_peer_id)
        if (place := (group_key(manifest.key), index)) not in known_as_bad
        and held.get(place) != manifest.digests[index]
    ]


async def _unneeded(database: Database, blobs: BlobStore) -> set[bytes]:
    """Return the blobs that no copy names, and that no put under way can have brought here."""
    if database.restored_from is not None:
        # The rows that would name them were lost; others are being asked.
        return set()
    named = {holding.digest for holding in await database.read(holdings.load)}
    begun_s = min((put.begun_s for put in await database.read(puts.load)), default=None)
    return {
        digest
        for digest in blobs.digests() - named
        if begun_s is None or await blobs.written_s(digest) < begun_s
    }


def _fault(holding: Holding, keys: dict[bytes, ManifestKey]) -> wire.StoreFault:
    fault = wire.StoreFault(digest=holding.digest, partition_index=holding.partition_index)
    # A copy of a put under way has no matrix yet.
    if key := keys.get(holding.group_key):
        fault.key.CopyFrom(key_to_wire(key))
    return fault


def _fill(into: RepeatedCompositeFieldContainer[wire.StoreFault], faults: Iterable[wire.StoreFault]) -> int:
    """Put the first faults into a list of the report; return how many are left over."""
    listed = list(faults)
    into.extend(listed[:FAULTS_MAX])
    return max(0, len(listed) - FAULTS_MAX)
