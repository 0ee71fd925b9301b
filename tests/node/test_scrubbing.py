from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trio

from sedmad.core.scrubbing import BUSY_RATE_BYTES_PER_S, RATE_BYTES_PER_S
from sedmad.node.clock import wall_time_s
from sedmad.node.scrubbing import FIRST_AFTER_S, ScrubbingService
from sedmad.store import manifests, promises
from sedmad.store.blobs import BlobStore, open_blobs
from sedmad.store.database import Database, open_database
from sedmad.store.manifests import TOMBSTONE_LIFE_S, ManifestKey, StoredTombstone
from sedmad.store.promises import StoredPromise

KEY = ManifestKey(b"A" * 32, "peer")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "store.db") as opened:
        yield opened


@pytest.fixture
async def blobs(tmp_path: Path) -> BlobStore:
    return await open_blobs(tmp_path / "blobs")


async def keep(blobs: BlobStore, count: int, size_bytes: int = 10_000) -> list[bytes]:
    digests = []
    for _ in range(count):
        async with blobs.create(size_bytes) as writer:
            await writer.write(os.urandom(size_bytes))
            digests.append(await writer.commit())
    return sorted(digests)


def flip(blobs: BlobStore, digest: bytes) -> None:
    path = blobs.directory / digest.hex()[:2] / digest.hex()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def recording(blobs: BlobStore, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return the digests that are verified from now on."""
    verified: list[bytes] = []
    verify = blobs.verify

    async def recorded(digest: bytes, pause: Callable[..., object] | None = None) -> None:
        verified.append(digest)
        await verify(digest)

    monkeypatch.setattr(blobs, "verify", recorded)
    return verified


def service(database: Database, blobs: BlobStore, busy: bool = False) -> ScrubbingService:
    return ScrubbingService(database=database, blobs=blobs, busy=lambda: busy)


async def test_rot_is_found_set_aside_and_told(database: Database, blobs: BlobStore) -> None:
    digests = await keep(blobs, 5)
    told: list[bytes] = []
    blobs.on_corrupt = told.append
    flip(blobs, digests[3])
    await service(database, blobs).scrub()
    assert told == [digests[3]]
    assert blobs.digests() == set(digests) - {digests[3]}


async def test_a_round_ends_once_and_goes_on_after_a_restart(
    database: Database, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = await keep(blobs, 6)
    monkeypatch.setattr("sedmad.node.scrubbing.KEEP_EVERY_BYTES", 1)
    verified = recording(blobs, monkeypatch)
    with trio.CancelScope() as scope:
        first = service(database, blobs)
        kept = first._keep

        async def stop_after_three(turn: object) -> None:
            await kept(turn)  # type: ignore[arg-type]
            if len(verified) == 3:
                scope.cancel()
                await trio.lowlevel.checkpoint()

        monkeypatch.setattr(first, "_keep", stop_after_three)
        await first.scrub()
    assert verified == digests[:3]
    await service(database, blobs).scrub()
    assert verified == digests
    await service(database, blobs).scrub()  # too early for another round
    assert verified == digests


async def test_a_blob_that_is_deleted_meanwhile_is_no_rot(
    database: Database, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = await keep(blobs, 3)
    told: list[bytes] = []
    blobs.on_corrupt = told.append
    verify = blobs.verify

    async def deleting(digest: bytes, pause: object = None) -> None:
        await blobs.delete(digests[1])
        await verify(digest)

    monkeypatch.setattr(blobs, "verify", deleting)
    await service(database, blobs).scrub()
    assert told == []
    assert blobs.digests() == {digests[0], digests[2]}


@pytest.mark.parametrize(("busy", "rate"), [(False, RATE_BYTES_PER_S), (True, BUSY_RATE_BYTES_PER_S)])
async def test_it_is_paced_and_slower_beside_products(
    busy: bool, rate: int, database: Database, blobs: BlobStore, autojump_clock: trio.testing.MockClock
) -> None:
    size_bytes = 3 << 20
    await keep(blobs, 2, size_bytes)
    began_s = trio.current_time()
    await service(database, blobs, busy).scrub()
    assert trio.current_time() - began_s >= 2 * size_bytes / rate


async def test_tombstones_that_are_too_old_are_forgotten_while_it_runs(
    database: Database, blobs: BlobStore, autojump_clock: trio.testing.MockClock
) -> None:
    old = StoredTombstone(KEY, 0, 1, b"old", wall_time_s() - TOMBSTONE_LIFE_S - 1)
    await database.write(lambda c: manifests.bury(c, old))
    await database.write(lambda c: promises.promise(c, StoredPromise(KEY, 1, "candidate")))
    async with trio.open_nursery() as nursery:
        await nursery.start(service(database, blobs).run)
        await trio.sleep(FIRST_AFTER_S + 1)
        while await database.read(manifests.load_tombstones):  # noqa: ASYNC110 - the disk takes its time
            await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert await database.read(promises.load) == []
