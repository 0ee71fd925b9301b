"""Bytes that change behind the store's back: found by digest wherever they are read, set aside, never handed out."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sedmad.errors import BytesCorrupt
from sedmad.store import blobs as blobs_module
from sedmad.store.blobs import CORRUPT_KEPT_MAX, BlobStore, open_blobs
from sedmad.store.digests import CHUNK_BYTES, partition_digest
from sedmad.store.disk import fsync_directory

SIZE = CHUNK_BYTES + 12_345
DATA = random.Random(1).randbytes(SIZE)
DIGEST = partition_digest(DATA)
TIMEOUT_S = 30.0
# For a thread to get going; too short only lets a broken store pass.
HEAD_START_S = 0.2


def path_of(store: BlobStore, digest: bytes) -> Path:
    return store.directory / digest.hex()[:2] / digest.hex()


async def keep(store: BlobStore, data: bytes) -> bytes:
    async with store.create(len(data)) as writer:
        await writer.write(data)
        return await writer.commit()


def flip(path: Path, offset: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


def corrupt_files(store: BlobStore) -> list[Path]:
    return sorted(store.directory.glob("*/*.corrupt"))


class Watched:
    """A store with one blob, and what it told."""

    def __init__(self, store: BlobStore, digest: bytes) -> None:
        self.store = store
        self.digest = digest
        self.told: list[bytes] = []
        store.on_corrupt = self.told.append

    @property
    def path(self) -> Path:
        return path_of(self.store, self.digest)


@pytest.fixture
async def watched(tmp_path: Path) -> Watched:
    store = await open_blobs(tmp_path / "blobs")
    return Watched(store, await keep(store, DATA))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("flips") / "blobs"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(offset=st.integers(0, SIZE - 1), bit=st.integers(0, 7), read=st.sampled_from(["open", "verify"]))
def test_a_flipped_bit_is_found_wherever_it_is(offset: int, bit: int, read: str, directory: Path) -> None:
    async def run() -> None:
        store = await open_blobs(directory)
        path = path_of(store, DIGEST)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(DATA)
        found = Watched(await open_blobs(directory), DIGEST)
        flip(path, offset, bit)
        with pytest.raises(BytesCorrupt, match=path.name):
            await getattr(found.store, read)(DIGEST)
        assert found.told == [DIGEST]
        assert not found.store.contains(DIGEST)

    trio.run(run)


@pytest.mark.parametrize("read", ["open", "verify"])
async def test_it_is_set_aside_and_may_come_again(watched: Watched, read: str) -> None:
    store, digest = watched.store, watched.digest
    good = watched.path.read_bytes()
    flip(watched.path, 5, 5)
    with pytest.raises(BytesCorrupt):
        await getattr(store, read)(digest)
    assert not store.contains(digest)
    assert store.used_bytes == 0
    assert [file.name for file in corrupt_files(store)] == [f"{digest.hex()}.corrupt"]
    # It is gone: nobody hears of it twice.
    with pytest.raises(BytesCorrupt):
        await store.open(digest)
    assert watched.told == [digest]
    assert await keep(store, good) == digest
    with await store.open(digest) as blob:
        assert blob.view == good
    again = await open_blobs(store.directory)
    assert again.digests() == {digest}


async def test_what_was_written_to_is_seen_without_reading_it(watched: Watched) -> None:
    store, digest = watched.store, watched.digest
    assert store.unchanged(digest)  # it was digested as it came
    flip(watched.path, 0, 0)
    assert not store.unchanged(digest)
    flip(watched.path, 0, 0)
    assert not store.unchanged(digest)
    with await store.open(digest):
        assert store.unchanged(digest)  # read, and right
    watched.path.unlink()
    assert not store.unchanged(digest)
    assert not store.unchanged(bytes(32))


async def test_after_a_start_bytes_are_read_before_they_are_used(watched: Watched) -> None:
    again = await open_blobs(watched.store.directory)
    assert not again.unchanged(watched.digest)
    (await again.open(watched.digest)).close()
    assert again.unchanged(watched.digest)


@pytest.mark.parametrize("left_bytes", [None, 0, 4096, SIZE - 1])
async def test_a_file_that_is_cut_or_gone_is_told_as_well(watched: Watched, left_bytes: int | None) -> None:
    if left_bytes is None:
        watched.path.unlink()
    else:
        os.truncate(watched.path, left_bytes)
    with pytest.raises(BytesCorrupt):
        await watched.store.open(watched.digest)
    assert watched.told == [watched.digest]
    assert not watched.store.contains(watched.digest)


async def test_the_same_content_put_again_replaces_bytes_that_nobody_checked(watched: Watched) -> None:
    good = watched.path.read_bytes()
    flip(watched.path, 7, 1)
    await keep(watched.store, good)
    assert watched.path.read_bytes() == good
    await watched.store.verify(watched.digest)
    assert watched.told == []


async def test_a_disk_that_gave_other_bytes_once_is_asked_again(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest_on_disk = watched.store._digest_on_disk
    answers = iter([bytes(32), None])

    async def unsteady(path: Path, pause: blobs_module.Pause | None) -> bytes:
        return next(answers) or await digest_on_disk(path, pause)

    monkeypatch.setattr(watched.store, "_digest_on_disk", unsteady)
    await watched.store.verify(watched.digest)
    assert watched.told == []


async def test_a_sector_that_cannot_be_read_is_corrupt(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(BytesCorrupt, match="cannot be read"):
        await watched.store.verify(watched.digest)
    assert watched.told == [watched.digest]


async def test_where_reading_past_the_cache_is_not_possible_it_reads_through_it(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def without_direct(path: str, flags: int, *mode: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(22, "Invalid argument")
        return opened(path, flags, *mode)

    monkeypatch.setattr(os, "open", without_direct)
    await watched.store.verify(watched.digest)
    flip(watched.path, SIZE - 1, 0)
    with pytest.raises(BytesCorrupt):
        await watched.store.verify(watched.digest)


async def test_a_blob_that_took_the_place_of_a_bad_one_is_not_set_aside(watched: Watched) -> None:
    good = watched.path.read_bytes()
    flip(watched.path, 7, 1)
    replaced = False

    async def replace(size_bytes: int, cpu_s: float) -> None:
        nonlocal replaced
        if not replaced:
            replaced = True
            await keep(watched.store, good)

    await watched.store.verify(watched.digest, replace)
    assert watched.told == []
    await watched.store.verify(watched.digest)


async def test_a_blob_that_is_being_put_in_its_place_is_not_taken_for_a_bad_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_blobs(tmp_path / "blobs")
    told: list[bytes] = []
    store.on_corrupt = told.append
    renamed, go_on = threading.Event(), threading.Event()

    def slowly(directory: Path) -> None:
        if path_of(store, DIGEST).exists():
            renamed.set()
            go_on.wait(TIMEOUT_S)
        fsync_directory(directory)

    async def open_it() -> None:
        with await store.open(DIGEST) as blob:
            assert bytes(blob.view) == DATA

    monkeypatch.setattr(blobs_module, "fsync_directory", slowly)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep, store, DATA)
        await trio.to_thread.run_sync(renamed.wait, TIMEOUT_S)
        nursery.start_soon(open_it)
        await trio.sleep(HEAD_START_S)
        go_on.set()
    assert told == []
    assert store.contains(DIGEST)


async def test_bytes_that_changed_are_kept_for_people_and_bounded(tmp_path: Path) -> None:
    store = await open_blobs(tmp_path / "blobs")
    for number in range(CORRUPT_KEPT_MAX + 3):
        digest = await keep(store, number.to_bytes(4, "big"))
        flip(path_of(store, digest), 0, 0)
        with pytest.raises(BytesCorrupt):
            await store.verify(digest)
    assert len(corrupt_files(store)) == CORRUPT_KEPT_MAX


async def test_on_a_disk_that_takes_no_changes_it_is_let_go_all_the_same(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(30, "Read-only file system")

    flip(watched.path, 1, 1)
    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(BytesCorrupt):
        await watched.store.open(watched.digest)
    assert watched.told == [watched.digest]
    assert not watched.store.contains(watched.digest)
