from __future__ import annotations

import mmap
import os
import stat
import tracemalloc
from pathlib import Path

import pytest
import trio

from sedmad.errors import BytesCorrupt, LocalError, UsageError
from sedmad.store.blobs import BlobStore, open_blobs
from sedmad.store.digests import CHUNK_BYTES, chunk_digest, partition_digest

DATA = os.urandom(2 * CHUNK_BYTES + 12_345)
DIGEST = partition_digest(DATA)


@pytest.fixture
async def store(tmp_path: Path) -> BlobStore:
    return await open_blobs(tmp_path / "blobs")


async def keep(store: BlobStore, data: bytes) -> bytes:
    async with store.create(len(data)) as writer:
        await writer.write(data)
        return await writer.commit()


def files(store: BlobStore) -> list[Path]:
    return [path for path in store.directory.rglob("*") if path.is_file()]


async def test_bytes_come_back_under_their_digest(store: BlobStore) -> None:
    async with store.create(len(DATA)) as writer:
        for start in range(0, len(DATA), 333_333):
            assert writer.offset == start
            await writer.write(memoryview(DATA)[start : start + 333_333])
        assert not store.contains(DIGEST)
        assert await writer.commit(DIGEST) == DIGEST
        assert store.contains(DIGEST)
    with await store.open(DIGEST) as blob:
        assert blob.size_bytes == len(DATA)
        assert blob.view == DATA
        assert blob.view.readonly
        await blob.populate()


async def test_files_are_private_and_named_by_digest(store: BlobStore) -> None:
    await keep(store, DATA)
    (path,) = files(store)
    assert path == store.directory / DIGEST.hex()[:2] / DIGEST.hex()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_bytes_are_safe_before_they_are_named(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def recording_fsync(descriptor: int) -> None:
        is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        events.append("fsync of the directory" if is_directory else "fsync of the bytes")
        fsync(descriptor)

    def recording_rename(path: Path, target: Path) -> Path:
        events.append("rename")
        return rename(path, target)

    (store.directory / DIGEST.hex()[:2]).mkdir()
    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(Path, "rename", recording_rename)
    await keep(store, DATA)
    assert events == ["fsync of the bytes", "rename", "fsync of the directory"]


async def test_leaving_without_commit_leaves_nothing(store: BlobStore) -> None:
    async with store.create(len(DATA)) as writer:
        await writer.write(DATA)
        assert store.used_bytes == len(DATA)
    with pytest.raises(ZeroDivisionError):
        async with store.create(len(DATA)):
            raise ZeroDivisionError
    with trio.CancelScope() as scope:
        async with store.create(len(DATA)):
            scope.cancel()
            await trio.sleep_forever()
    assert files(store) == []
    assert store.used_bytes == 0
    assert store.digests() == frozenset()


async def test_wrong_size_or_digest_is_refused(store: BlobStore) -> None:
    async with store.create(len(DATA)) as writer:
        await writer.write(DATA[:-1])
        with pytest.raises(BytesCorrupt, match="fewer bytes"):
            await writer.commit()
        with pytest.raises(BytesCorrupt, match="more bytes"):
            await writer.write(b"12")
        await writer.write(DATA[-1:])
        with pytest.raises(BytesCorrupt, match="manifest"):
            await writer.commit(bytes(32))
    assert files(store) == []


async def test_a_bad_chunk_is_not_written_and_may_come_again(store: BlobStore) -> None:
    async with store.create(len(DATA)) as writer:
        while writer.offset < len(DATA):
            chunk = DATA[writer.offset : writer.offset + CHUNK_BYTES]
            offset = writer.offset
            with pytest.raises(BytesCorrupt, match=f"byte {offset:,}"):
                await writer.write(bytes(len(chunk)), expected_chunk_digest=chunk_digest(chunk))
            assert writer.offset == offset
            await writer.write(chunk, expected_chunk_digest=chunk_digest(chunk))
        assert await writer.commit(DIGEST) == DIGEST
    await store.verify(DIGEST)


async def test_a_chunk_with_a_digest_is_whole(store: BlobStore) -> None:
    async with store.create(len(DATA)) as writer:
        with pytest.raises(LocalError):
            await writer.write(DATA[:10], expected_chunk_digest=chunk_digest(DATA[:10]))


async def test_a_blob_leaves_in_checked_chunks(store: BlobStore, tmp_path: Path) -> None:
    await keep(store, DATA)
    other = await open_blobs(tmp_path / "other")
    with await store.open(DIGEST) as blob:
        async with other.create(blob.size_bytes) as writer:
            for offset in blob.chunk_offsets():
                chunk = await blob.chunk(offset)
                assert chunk.offset == writer.offset
                await writer.write(chunk.view, expected_chunk_digest=chunk.digest)
            assert await writer.commit(DIGEST) == DIGEST
        assert list(blob.chunk_offsets(CHUNK_BYTES)) == [CHUNK_BYTES, 2 * CHUNK_BYTES]
        for wrong in (-CHUNK_BYTES, 1, 3 * CHUNK_BYTES):
            with pytest.raises(UsageError):
                await blob.chunk(wrong)


async def test_the_same_bytes_are_kept_once(store: BlobStore) -> None:
    await keep(store, DATA)
    inode = files(store)[0].stat().st_ino
    async with store.create(len(DATA)) as first, store.create(len(DATA)) as second:
        for writer in (first, second):
            await writer.write(DATA)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.commit)
            nursery.start_soon(second.commit)
    assert [path.stat().st_ino for path in files(store)] == [inode]
    assert store.used_bytes == len(DATA)


async def test_a_map_outlives_close_and_delete(store: BlobStore) -> None:
    await keep(store, DATA)
    blob = await store.open(DIGEST)
    view = blob.view[5:]
    blob.close()
    with pytest.raises(ValueError, match="closed"):
        _ = blob.view
    await store.delete(DIGEST)
    assert not store.contains(DIGEST)
    assert files(store) == []
    assert view == DATA[5:]
    await store.delete(DIGEST)
    assert store.used_bytes == 0


async def test_memory_and_dirty_pages_stay_bounded_while_spooling(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushes: list[int] = []
    monkeypatch.setattr(os, "fdatasync", flushes.append)
    piece = bytes(CHUNK_BYTES)
    tracemalloc.start()
    try:
        async with store.create(32 * CHUNK_BYTES) as writer:
            for _ in range(32):
                await writer.write(piece)
            digest = await writer.commit()
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < CHUNK_BYTES
    assert len(flushes) == 4
    await store.verify(digest)


async def test_it_finds_its_blobs_again_and_clears_left_overs(store: BlobStore) -> None:
    await keep(store, DATA)
    await keep(store, b"small")
    (store.directory / "incoming" / "killed.part").write_bytes(DATA)
    (store.directory / "incoming" / "readme").write_bytes(b"not ours")
    (store.directory / DIGEST.hex()[:2] / "notes.txt").write_bytes(b"not ours")
    again = await open_blobs(store.directory)
    assert again.digests() == {DIGEST, partition_digest(b"small")}
    assert again.used_bytes == len(DATA) + len(b"small")
    assert not (store.directory / "incoming" / "killed.part").exists()


async def test_changed_bytes_are_found_and_named(store: BlobStore) -> None:
    await keep(store, DATA)
    (path,) = files(store)
    with path.open("r+b") as file:
        file.seek(CHUNK_BYTES)
        file.write(bytes([DATA[CHUNK_BYTES] ^ 1]))
    with pytest.raises(BytesCorrupt, match=path.name):
        await store.verify(DIGEST)


@pytest.mark.parametrize("left_bytes", [0, 4096, None])
async def test_a_cut_or_missing_file_is_refused_before_it_is_mapped(
    store: BlobStore, left_bytes: int | None
) -> None:
    await keep(store, DATA)
    (path,) = files(store)
    if left_bytes is None:
        path.unlink()
    else:
        os.truncate(path, left_bytes)
    with pytest.raises(BytesCorrupt, match=path.name):
        await store.open(DIGEST)


async def test_a_blob_that_was_cut_is_replaced_by_a_whole_one(store: BlobStore) -> None:
    await keep(store, DATA)
    os.truncate(files(store)[0], 4096)
    again = await open_blobs(store.directory)
    await keep(again, DATA)
    await again.verify(DIGEST)
    assert again.used_bytes == len(DATA)


async def test_an_unknown_blob_is_an_error_and_an_empty_one_too(store: BlobStore) -> None:
    with pytest.raises(BytesCorrupt):
        await store.open(bytes(32))
    with pytest.raises(UsageError):
        async with store.create(0):
            pass


async def test_a_blob_begins_at_a_page(store: BlobStore) -> None:
    numpy = pytest.importorskip("numpy")
    await keep(store, DATA)
    array = numpy.frombuffer((await store.open(DIGEST)).view, dtype=numpy.uint8)
    assert array.ctypes.data % mmap.PAGESIZE == 0


async def test_space_is_that_of_the_file_system(store: BlobStore) -> None:
    space = await store.space()
    assert 0 <= space.free_bytes <= space.total_bytes
    assert space.total_bytes > 0
