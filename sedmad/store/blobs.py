"""Partition bytes as files named by their digest, read through memory maps.

A blob is whole or absent, and never changes; one that did is set aside and told. All disk work runs in worker
threads; which blobs there are is kept in memory, so that asking costs the event loop nothing. Does not know why a
blob is kept: `holdings.py` counts that.
"""

from __future__ import annotations

import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog
import trio

from sedmad.errors import BytesCorrupt, StoreUnusable, UsageError
from sedmad.store.blob import Blob, DiskReader, FileState, changed
from sedmad.store.digests import DIGEST_BYTES
from sedmad.store.disk import DiskSpace, disk_space, fsync_directory, require_room, writing
from sedmad.store.spool import TEMPORARY_SUFFIX, BlobWriter, create_temporary

log = structlog.get_logger("sedmad.blobs")

# Enough to keep a disk busy while another thread hashes; more would only take cores from products.
DISK_THREADS = 4
# Bytes that changed are kept for whoever wants to know what happened: some 64 MiB of them, the latest.
CORRUPT_KEPT_MAX = 8

CORRUPT_SUFFIX = ".corrupt"
# Temporaries share the file system with the blobs, so that putting one in place is a rename.
_INCOMING = "incoming"
_BLOB_NAME = re.compile(rf"[0-9a-f]{{{2 * DIGEST_BYTES}}}")

# Awaited with the bytes of a chunk that was read and the CPU seconds it took.
Pause = Callable[[int, float], Awaitable[None]]


def is_blob_name(name: str) -> bool:
    """Return whether a file's name is the digest of a blob."""
    return _BLOB_NAME.fullmatch(name) is not None


class BlobStore:
    """The blobs below one directory. `open_blobs` makes it.

    `delete` and a new use of the same digest must not overlap: a caller that deletes what `holdings.release`
    returned, and one that relies on `contains`, hold one lock around both steps.

    Attributes:
        on_corrupt: called with the digest of a blob whose file was found changed, cut or gone; by then the store
            contains it no more, and its bytes may be fetched again.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.on_corrupt: Callable[[bytes], None] = lambda digest: None
        self._limiter = trio.CapacityLimiter(DISK_THREADS)
        self._creating = threading.Lock()  # what is free is looked at and taken in one step
        self._naming = threading.Lock()  # one rename or unlink at a time, with the index in step
        self._sizes: dict[bytes, int] = {}
        # The path of each file whose bytes this process has seen right, and its state then.
        self._checked: dict[bytes, tuple[str, FileState]] = {}
        self._committed_bytes = 0
        self._writers: set[BlobWriter] = set()

    @property
    def used_bytes(self) -> int:
        """The bytes of all blobs; those being written count at their full size, which is allocated."""
        return self._committed_bytes + sum(w.size_bytes for w in self._writers if not w.committed)

    def contains(self, digest: bytes) -> bool:
        return digest in self._sizes

    def digests(self) -> frozenset[bytes]:
        """The digests of all blobs. At start, those that no holding references are left-overs to delete."""
        return frozenset(self._sizes)

    def size_bytes(self, digest: bytes) -> int:
        """Return the size of a blob, 0 where there is none."""
        return self._sizes.get(digest, 0)

    def unchanged(self, digest: bytes) -> bool:
        """Whether the bytes of a blob were right once and nobody wrote to its file since.

        It asks for nothing but the file's state, which the kernel has at hand: 3 us.
        """
        checked = self._checked.get(digest)
        return checked is not None and checked[1].holds(checked[0])

    async def space(self) -> DiskSpace:
        """Return the total and free bytes of the file system."""
        return await trio.to_thread.run_sync(disk_space, self.directory, limiter=self._limiter)

    def require_room(self, needed_bytes: int) -> None:
        """Raise DiskFull, with the arithmetic, when blobs of so many bytes would not leave the reserve (disk.py).

        It asks for nothing but the counters of the file system, which the kernel has at hand.
        """
        require_room(self.directory, needed_bytes)

    @asynccontextmanager
    async def create(self, size_bytes: int) -> AsyncIterator[BlobWriter]:
        """Begin a blob of `size_bytes` (> 0): `async with store.create(n) as writer`.

        The room is allocated first: raises DiskFull before a byte is moved, also when less than the reserve would
        stay free (disk.py). Leaving without `commit` deletes what was written.
        """
        if size_bytes <= 0:
            raise UsageError("A blob needs at least one byte")
        descriptor, path = await trio.to_thread.run_sync(self._create, size_bytes, limiter=self._limiter)
        writer = BlobWriter(descriptor, path, size_bytes, self._place, self._limiter)
        self._writers.add(writer)
        try:
            yield writer
        finally:
            self._writers.discard(writer)
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(writer.discard, limiter=self._limiter)

    async def open(self, digest: bytes) -> Blob:
        """Map a blob; its bytes are read and checked unless they are known to be `unchanged`.

        Raises BytesCorrupt when they are not what they were; the blob is set aside then.
        """
        state, size_bytes = await trio.to_thread.run_sync(self._entry, digest, limiter=self._limiter)
        try:
            blob = await trio.to_thread.run_sync(self._open, digest, state, size_bytes, limiter=self._limiter)
            if state is None or (str(blob.path), state) != self._checked.get(digest):
                await blob.populate()
                self._note_checked(digest, state)
        except BytesCorrupt as error:
            await self._set_aside(digest, state, error.why)
            raise
        return blob

    async def is_whole(self, digest: bytes) -> bool:
        """Whether the file of a blob has the size that it should have; its bytes are not read."""
        state = await trio.to_thread.run_sync(FileState.of, self._path(digest), limiter=self._limiter)
        return state is not None and state.size_bytes == self._sizes.get(digest)

    async def written_s(self, digest: bytes) -> float:
        """Return when the file of a blob was written, in Unix seconds; 0 where there is none."""
        state = await trio.to_thread.run_sync(FileState.of, self._path(digest), limiter=self._limiter)
        return state.written_ns / 1e9 if state is not None else 0.0

    async def verify(self, digest: bytes, pause: Pause | None = None) -> None:
        """Read a whole blob from the disk itself and check it; `pause` is awaited after each chunk.

        Raises BytesCorrupt naming the file; the blob is set aside then. One that is deleted meanwhile is fine.
        """
        path = self._path(digest)
        state = await trio.to_thread.run_sync(FileState.of, path, limiter=self._limiter)
        try:
            found = await self._digest_on_disk(path, pause)
            if found != digest:
                # The disk may hold the right bytes and have given others on their way: it is asked twice.
                found = await self._digest_on_disk(path, pause)
            if found != digest:
                raise changed(path, found)
        except BytesCorrupt as error:
            if await self._set_aside(digest, state, error.why):
                raise
        else:
            self._note_checked(digest, state)

    async def delete(self, digest: bytes) -> None:
        """Delete a blob durably; no error when there is none. Maps of it stay valid.

        A disk that takes no changes keeps it: that is said, and the blob is found unneeded again at the next start.
        """
        try:
            await trio.to_thread.run_sync(self._delete, digest, limiter=self._limiter)
        except StoreUnusable as error:
            log.error("blob_not_deleted", digest=digest.hex()[:16], why=str(error))

    def load(self) -> None:
        """Make the directories, delete what was never committed, learn which blobs there are; once, first."""
        incoming = self.directory / _INCOMING
        incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        for temporary in incoming.glob(f"*{TEMPORARY_SUFFIX}"):
            temporary.unlink()
        for path in self.directory.glob("[0-9a-f][0-9a-f]/*"):
            if is_blob_name(path.name):
                self._sizes[bytes.fromhex(path.name)] = path.stat().st_size
        self._committed_bytes = sum(self._sizes.values())

    def _path(self, digest: bytes) -> Path:
        name = digest.hex()
        return self.directory / name[:2] / name

    def _place(self, temporary: Path, digest: bytes, size_bytes: int) -> None:
        path = self._path(digest)
        with self._naming:
            if not path.parent.exists():
                path.parent.mkdir(mode=0o700)
                fsync_directory(self.directory)
            old_bytes = self._sizes.get(digest, 0)
            if old_bytes != size_bytes or not self.unchanged(digest):  # absent, or not known to be right
                temporary.rename(path)
                fsync_directory(path.parent)
                self._sizes[digest] = size_bytes
                self._committed_bytes += size_bytes - old_bytes
                self._note_checked(digest, FileState.of(path))

    def _create(self, size_bytes: int) -> tuple[int, Path]:
        with self._creating:
            return create_temporary(self.directory / _INCOMING, size_bytes)

    async def _digest_on_disk(self, path: Path, pause: Pause | None) -> bytes:
        reader = await trio.to_thread.run_sync(DiskReader, path, limiter=self._limiter)
        try:
            while True:
                size_bytes, cpu_s = await trio.to_thread.run_sync(reader.read_chunk, limiter=self._limiter)
                if not size_bytes:
                    return reader.digest
                if pause is not None:
                    await pause(size_bytes, cpu_s)
        finally:
            reader.close()

    def _note_checked(self, digest: bytes, state: FileState | None) -> None:
        # A blob that was deleted meanwhile is none that was checked.
        if state is not None and digest in self._sizes:
            self._checked[digest] = (str(self._path(digest)), state)

    async def _set_aside(self, digest: bytes, state: FileState | None, why: str) -> bool:
        """Let go of a blob whose file was found bad in that state; False if it is gone or another took its place."""
        with trio.CancelScope(shield=True):
            gone = await trio.to_thread.run_sync(self._rename_corrupt, digest, state, limiter=self._limiter)
        if gone:
            log.error("blob_corrupt", path=str(self._path(digest)), why=why)
            self.on_corrupt(digest)
        return gone

    def _rename_corrupt(self, digest: bytes, state: FileState | None) -> bool:
        path = self._path(digest)
        with self._naming:
            if digest not in self._sizes or FileState.of(path) != state:
                return False
            self._committed_bytes -= self._sizes.pop(digest)
            self._checked.pop(digest, None)
            # On a disk that takes no more writes the blob is left where it is, found again at the next start.
            with suppress(OSError):
                path.rename(path.with_suffix(CORRUPT_SUFFIX))
                fsync_directory(path.parent)
                kept = sorted(
                    self.directory.glob(f"[0-9a-f][0-9a-f]/*{CORRUPT_SUFFIX}"),
                    key=lambda corrupt: corrupt.stat().st_ctime_ns,
                )
                for old in kept[:-CORRUPT_KEPT_MAX]:
                    old.unlink()
            return True

    def _entry(self, digest: bytes) -> tuple[FileState | None, int]:
        """Return the state of a blob's file and the size that it should have, 0 where there is none.

        Both of one moment: a file that is just being put in its place must not pass for one that is wrong there.
        """
        with self._naming:
            return FileState.of(self._path(digest)), self._sizes.get(digest, 0)

    def _open(self, digest: bytes, state: FileState | None, expected_bytes: int) -> Blob:
        path = self._path(digest)
        found_bytes = state.size_bytes if state is not None else 0
        # A shorter file would be found by SIGBUS, in the middle of a product.
        if not expected_bytes or found_bytes != expected_bytes:
            raise BytesCorrupt(
                f"The stored bytes at {path} are missing or incomplete",
                why=f"The file has {found_bytes:,} bytes instead of {expected_bytes:,}.",
            )
        return Blob(path, digest, self._limiter)

    def _delete(self, digest: bytes) -> None:
        path = self._path(digest)
        with self._naming:
            if digest in self._sizes:
                with writing(path, 0):
                    path.unlink(missing_ok=True)
                    fsync_directory(path.parent)
                self._committed_bytes -= self._sizes.pop(digest)
                self._checked.pop(digest, None)


async def open_blobs(directory: Path) -> BlobStore:
    """Return the store of the blobs below `directory`, which is made when it is missing.

    Temporary files of a daemon that was killed are deleted. One process at a time: see `lock.py`.
    """
    store = BlobStore(directory)
    await trio.to_thread.run_sync(store.load)
    return store
