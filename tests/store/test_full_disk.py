"""Disks without room, and disks that fail: refused with the arithmetic, nothing lost, and well again without a restart.

A small file system is mounted where root may; what it cannot bring about is injected.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trio

from sedmad.errors import BytesCorrupt, DiskFull, SedmadError, StoreUnusable
from sedmad.store import blobs as blobs_module
from sedmad.store import disk, snapshots
from sedmad.store.blobs import BlobStore, open_blobs
from sedmad.store.database import Database, open_database
from sedmad.store.disk import RESERVE_BYTES, DiskSpace
from sedmad.store.snapshots import snapshot_path
from sedmad.store.spool import BlobWriter

DISK_BYTES = 4 << 20
BLOB_BYTES = 1 << 20
PILE = (("CREATE TABLE pile (bytes BLOB)",),)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(directory)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system can only be mounted by root")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


@contextmanager
def filled(directory: Path) -> Iterator[None]:
    """Somebody else takes every byte of a disk for the length of the block."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        for piece in (1 << 16, 1 << 12):
            with suppress(OSError):
                while True:
                    file.write(bytes(piece))
    try:
        yield
    finally:
        filler.unlink()


async def keep(store: BlobStore, data: bytes) -> bytes:
    async with store.create(len(data)) as writer:
        await writer.write(data)
        return await writer.commit()


async def write_all(writer: BlobWriter, data: bytes) -> None:
    await writer.write(data)
    await writer.commit()


async def pile(database: Database, size_bytes: int) -> None:
    await database.write(lambda c: c.execute("INSERT INTO pile VALUES (?)", (bytes(size_bytes),)))


async def sizes(database: Database) -> list[int]:
    rows = await database.read(lambda c: c.execute("SELECT length(bytes) FROM pile").fetchall())
    return [size_bytes for (size_bytes,) in rows]


async def until_full(write: Callable[[], Awaitable[object]]) -> DiskFull:
    """Write until the disk is full; return the refusal."""
    for _ in range(1000):
        try:
            await write()
        except DiskFull as refusal:
            return refusal
    raise AssertionError("the disk was never full")


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def read(path: Path) -> bytes:
    return path.read_bytes()


def remove(path: Path) -> None:
    path.unlink()


async def test_a_blob_without_room_is_refused_before_a_byte_moves(small_disk: Path) -> None:
    store = await open_blobs(small_disk / "blobs")
    with pytest.raises(DiskFull, match=f"{2 * DISK_BYTES:,} bytes are needed, [0-9,]+ are free"):
        async with store.create(2 * DISK_BYTES):
            pass
    assert store.used_bytes == 0
    assert (await store.space()).free_bytes > DISK_BYTES / 2
    async with store.create(1 << 20) as writer:  # its room is taken: others cannot use it up
        with pytest.raises(DiskFull):
            async with store.create(DISK_BYTES):
                pass
        await writer.write(bytes(1 << 20))
        await store.verify(await writer.commit())


async def test_blobs_leave_a_reserve_in_which_manifests_still_find_room(small_disk: Path) -> None:
    store = await open_blobs(small_disk / "blobs")
    async with open_database(small_disk / "store.db", PILE) as database:
        refusal = await until_full(lambda: keep(store, os.urandom(1 << 16)))
        assert "stay free for what must be written in any case" in refusal.why
        space = await store.space()
        assert 0 < space.free_bytes - (1 << 16) < space.reserve_bytes
        for _ in range(5):
            await pile(database, 1000)
        assert await sizes(database) == [1000] * 5


def test_the_reserve_is_a_twentieth_of_a_small_disk_and_64_mib_of_a_large_one() -> None:
    assert DiskSpace(100 << 20, 10 << 20).room_bytes == 5 << 20
    assert DiskSpace(1 << 40, 1 << 30).room_bytes == (1 << 30) - RESERVE_BYTES
    assert DiskSpace(1 << 40, 1 << 20).room_bytes == 0


async def test_on_a_disk_that_others_fill_what_is_there_is_served_and_all_is_well_afterwards(
    small_disk: Path,
) -> None:
    store = await open_blobs(small_disk / "blobs")
    async with open_database(small_disk / "store.db", PILE) as database:
        kept = await keep(store, os.urandom(BLOB_BYTES))
        await pile(database, 100)
        async with store.create(BLOB_BYTES) as begun:
            with filled(small_disk):
                with pytest.raises(DiskFull, match=f"{BLOB_BYTES:,} bytes are needed, 0 are free"):
                    await keep(store, os.urandom(BLOB_BYTES))
                refusal = await until_full(lambda: pile(database, 30_000))
                assert re.search("bytes are needed at least, [0-9,]+ are free", refusal.why)
                with pytest.raises(DiskFull):
                    await database.snapshot()
                # Room that was taken before is there, and so is all that was stored.
                await begun.write(os.urandom(BLOB_BYTES))
                await begun.commit()
                await store.verify(kept)
                assert 100 in await sizes(database)
                await store.delete(kept)
            await keep(store, os.urandom(BLOB_BYTES))
            await pile(database, 200)
            await database.snapshot()
            assert await database.read(lambda c: c.execute("PRAGMA integrity_check").fetchall()) == [("ok",)]
            assert (await sizes(database))[-1] == 200


async def test_a_database_without_room_says_so_and_goes_on_with_what_fits(small_disk: Path) -> None:
    async with open_database(small_disk / "store.db", PILE) as database:
        await pile(database, 1000)
        with pytest.raises(DiskFull, match=str(small_disk)):
            await pile(database, DISK_BYTES)
        await pile(database, 2000)
        assert await sizes(database) == [1000, 2000]


async def test_a_log_that_fills_the_disk_is_merged_once_there_is_room(small_disk: Path) -> None:
    """A reader that stays keeps the log from being merged; then it takes what there is."""
    ballast = small_disk / "ballast"
    write(ballast, bytes(DISK_BYTES // 2))
    async with open_database(small_disk / "store.db", PILE) as database:
        await pile(database, 1000)
        reader = database._connect()
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM pile").fetchone()
        await until_full(lambda: pile(database, 100_000))
        reader.rollback()
        reader.close()
        remove(ballast)
        await database.write(lambda c: c.execute("DELETE FROM pile WHERE length(bytes) > 1000"))
        await pile(database, 300)
        assert await sizes(database) == [1000, 300]


async def test_a_node_starts_on_a_full_disk_with_what_it_has(small_disk: Path) -> None:
    store = await open_blobs(small_disk / "blobs")
    kept = await keep(store, os.urandom(BLOB_BYTES))
    async with open_database(small_disk / "store.db", PILE) as database:
        await pile(database, 100)
    # What SQLite needs for itself beside its file.
    room = small_disk / "room"
    write(room, bytes(128 << 10))
    with filled(small_disk):
        remove(room)
        again = await open_blobs(small_disk / "blobs")
        await again.verify(kept)
        async with open_database(small_disk / "store.db", PILE) as database:
            assert await sizes(database) == [100]


def failing(number: int) -> Callable[..., int]:
    def fail(*arguments: object, **options: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail


SITES: dict[str, tuple[object, str]] = {
    "making the file": (blobs_module, "create_temporary"),
    "allocating": (os, "posix_fallocate"),
    "writing": (os, "pwrite"),
    "flushing on the way": (os, "fdatasync"),
    "flushing at the end": (os, "fsync"),
    "renaming": (Path, "rename"),
    "flushing the directory": (blobs_module, "fsync_directory"),
}


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EIO, StoreUnusable),
        (errno.EROFS, StoreUnusable),
    ],
)
@pytest.mark.parametrize("site", [site for site in SITES if site != "making the file"])
async def test_a_blob_is_whole_or_absent_wherever_the_disk_fails(
    site: str, number: int, error: type[SedmadError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_blobs(tmp_path / "blobs")
    data = os.urandom(9 << 20)
    owner, name = SITES[site]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, failing(number))
        with pytest.raises(error, match=str(tmp_path)) as caught:
            await keep(store, data)
        if error is DiskFull:
            assert "bytes are needed" in caught.value.why
            assert "are free" in caught.value.why
    # After a rename nobody can say whether the name is durable: the bytes may be there, under their own digest.
    for digest in (await open_blobs(store.directory)).digests():
        await store.verify(digest)
    assert not list((store.directory / "incoming").iterdir())
    digest = await keep(store, data)
    await store.verify(digest)
    assert (await open_blobs(store.directory)).digests() == {digest}
    assert store.used_bytes == len(data)


async def test_a_disk_that_takes_no_changes_keeps_what_was_to_be_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_blobs(tmp_path / "blobs")
    digest = await keep(store, b"four")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", failing(errno.EROFS))
        await store.delete(digest)
    assert store.contains(digest)
    await store.verify(digest)
    await store.delete(digest)
    assert not store.contains(digest)


@pytest.mark.parametrize("flush", ["fdatasync", "fsync"])
async def test_what_did_not_reach_the_disk_is_never_committed(
    flush: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel tells once that it dropped what it could not write; the next flush would succeed."""
    store = await open_blobs(tmp_path / "blobs")
    data = os.urandom(9 << 20)
    async with store.create(len(data)) as writer:
        with monkeypatch.context() as patch:
            patch.setattr(os, flush, failing(errno.EIO))
            with pytest.raises(StoreUnusable):
                await write_all(writer, data)
        with pytest.raises(StoreUnusable, match="did not reach the disk"):
            await writer.commit()
        writer.rewind()
        await writer.write(data)
        await store.verify(await writer.commit())


async def test_other_bytes_may_follow_after_wrong_ones(tmp_path: Path) -> None:
    store = await open_blobs(tmp_path / "blobs")
    wrong, right = os.urandom(100_000), os.urandom(100_000)
    digest = await keep(store, right)
    await store.delete(digest)
    async with store.create(len(right)) as writer:
        await writer.write(wrong)
        with pytest.raises(BytesCorrupt):
            await writer.commit(digest)
        writer.rewind()
        assert writer.offset == 0
        await writer.write(right)
        assert await writer.commit(digest) == digest
    await store.verify(digest)


@pytest.mark.parametrize("site", ["fsync", "rename", "VACUUM"])
async def test_a_snapshot_without_room_leaves_the_one_before(
    site: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    async with open_database(path) as database:
        await database.snapshot()
        before = read(snapshot_path(path))
        with monkeypatch.context() as patch:
            if site == "VACUUM":
                patch.setattr(disk, "disk_space", lambda directory: DiskSpace(1 << 30, 1 << 12))
            else:
                patch.setattr(
                    *{"fsync": (snapshots.os, site), "rename": (Path, site)}[site], failing(errno.ENOSPC)
                )
            with pytest.raises(DiskFull):
                await database.snapshot()
        assert read(snapshot_path(path)) == before
        await database.snapshot()


async def test_writers_at_once_do_not_eat_the_reserve_together(small_disk: Path) -> None:
    store = await open_blobs(small_disk / "blobs")
    refused: list[DiskFull] = []

    async def create() -> None:
        try:
            async with store.create(BLOB_BYTES):
                await trio.sleep_forever()
        except DiskFull as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(create)
        with trio.fail_after(10):
            while len(refused) < 5:  # noqa: ASYNC110 - the disk takes its time
                await trio.sleep(0.001)
        space = await store.space()
        assert space.free_bytes >= space.reserve_bytes
        assert store.used_bytes == 3 * BLOB_BYTES
        nursery.cancel_scope.cancel()
    assert store.used_bytes == 0
