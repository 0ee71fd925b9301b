"""Partition bytes as files named by their digest, read through memory maps.

A blob is whole or absent, and never changes. All disk work runs in worker threads; which blobs there are is
kept in memory, so that asking costs the event loop nothing. Does not know why a blob is kept: `holdings.py`
counts that.
"""

from __future__ import annotations

import mmap
import os
import re
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import trio

from sedmad.errors import BytesCorrupt, UsageError
from sedmad.store.digests import CHUNK_BYTES, DIGEST_BYTES, chunk_digest, partition_digest
from sedmad.store.disk import DiskSpace, disk_space, fsync_directory
from sedmad.store.spool import TEMPORARY_SUFFIX, BlobWriter, create_temporary

# Enough to keep a disk busy while another thread hashes; more would only take cores from products.
DISK_THREADS = 4

# Temporaries share the file system with the blobs, so that putting one in place is a rename.
_INCOMING = "incoming"
_BLOB_NAME = re.compile(rf"[0-9a-f]{{{2 * DIGEST_BYTES}}}")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a blob as it travels: at most 1 MiB at `offset`, and its own digest."""

    offset: int
    view: memoryview
    digest: bytes


class Blob:
    """The bytes of one blob, mapped read-only and page-aligned. `BlobStore.open` makes it.

    Each open blob takes one file descriptor. The map lasts as long as anything looks through `view`, also
    after `close` and after the blob was deleted.
    """

    def __init__(self, path: Path, digest: bytes, limiter: trio.CapacityLimiter) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._view: memoryview | None = memoryview(mmap.mmap(descriptor, 0, prot=mmap.PROT_READ))
        finally:
            os.close(descriptor)
        self.digest = digest
        self.path = path
        self.size_bytes = self._view.nbytes
        self._limiter = limiter

    @property
    def view(self) -> memoryview:
        """All bytes, read-only."""
        if self._view is None:
            raise ValueError("the blob is closed")
        return self._view

    def chunk_offsets(self, start: int = 0) -> range:
        """The offsets of the chunks from `start` on, which is a multiple of CHUNK_BYTES."""
        return range(start, self.size_bytes, CHUNK_BYTES)

    async def chunk(self, offset: int) -> Chunk:
        """Return the chunk at `offset`; it is read and digested in a worker thread.

        Raises UsageError when no chunk begins there.
        """
        if offset % CHUNK_BYTES or not 0 <= offset < self.size_bytes:
            raise UsageError(f"No chunk of blob {self.digest.hex()} begins at byte {offset}")
        view = self.view[offset : offset + CHUNK_BYTES]
        return Chunk(offset, view, await trio.to_thread.run_sync(chunk_digest, view, limiter=self._limiter))

    async def populate(self) -> None:
        """Read every page into memory, in a worker thread, and check the digest on the way.

        Hashing releases the interpreter's lock while pages come in, which `mmap.madvise` does not. Raises
        BytesCorrupt naming the file.
        """
        found = await trio.to_thread.run_sync(partition_digest, self.view, limiter=self._limiter)
        if found != self.digest:
            raise BytesCorrupt(
                f"The stored bytes at {self.path} have changed",
                why=f"Their digest is {found.hex()}.",
                hint="The disk may be failing: delete the blob and fetch the bytes from another copy.",
            )

    def close(self) -> None:
        """Let go of the map. Arrays made from `view` stay valid and keep it."""
        self._view = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BlobStore:
    """The blobs below one directory. `open_blobs` makes it.

    `delete` and a new use of the same digest must not overlap: a caller that deletes what `holdings.release`
    returned, and one that relies on `contains`, hold one lock around both steps.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._limiter = trio.CapacityLimiter(DISK_THREADS)
        self._naming = threading.Lock()  # one rename or unlink at a time, with the index in step
        self._sizes: dict[bytes, int] = {}
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

    async def space(self) -> DiskSpace:
        """Return the total and free bytes of the file system."""
        return await trio.to_thread.run_sync(disk_space, self.directory, limiter=self._limiter)

    @asynccontextmanager
    async def create(self, size_bytes: int) -> AsyncIterator[BlobWriter]:
        """Begin a blob of `size_bytes` (> 0): `async with store.create(n) as writer`.

        The room is allocated first: raises DiskFull before a byte is moved. Leaving without `commit` deletes
        what was written.
        """
        if size_bytes <= 0:
            raise UsageError("A blob needs at least one byte")
        descriptor, path = await trio.to_thread.run_sync(
            create_temporary, self.directory / _INCOMING, size_bytes, limiter=self._limiter
        )
        writer = BlobWriter(descriptor, path, size_bytes, self._place, self._limiter)
        self._writers.add(writer)
        try:
            yield writer
        finally:
            self._writers.discard(writer)
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(writer.discard, limiter=self._limiter)

    async def open(self, digest: bytes) -> Blob:
        """Map a blob. Raises BytesCorrupt when its file is gone or has another size than it had."""
        return await trio.to_thread.run_sync(self._open, digest, limiter=self._limiter)

    async def verify(self, digest: bytes) -> None:
        """Read a whole blob and check it. Raises BytesCorrupt naming the file."""
        with await self.open(digest) as blob:
            await blob.populate()

    async def delete(self, digest: bytes) -> None:
        """Delete a blob durably; no error when there is none. Maps of it stay valid."""
        await trio.to_thread.run_sync(self._delete, digest, limiter=self._limiter)

    def load(self) -> None:
        """Make the directories, delete what was never committed, learn which blobs there are; once, first."""
        incoming = self.directory / _INCOMING
        incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        for temporary in incoming.glob(f"*{TEMPORARY_SUFFIX}"):
            temporary.unlink()
        for path in self.directory.glob("[0-9a-f][0-9a-f]/*"):
            if _BLOB_NAME.fullmatch(path.name):
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
            if old_bytes != size_bytes:  # absent, or cut short behind our back
                temporary.rename(path)
                fsync_directory(path.parent)
                self._sizes[digest] = size_bytes
                self._committed_bytes += size_bytes - old_bytes

    def _open(self, digest: bytes) -> Blob:
        path = self._path(digest)
        expected_bytes = self._sizes.get(digest, 0)
        try:
            found_bytes = path.stat().st_size
        except FileNotFoundError:
            found_bytes = 0
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
                path.unlink(missing_ok=True)
                fsync_directory(path.parent)
                self._committed_bytes -= self._sizes.pop(digest)


async def open_blobs(directory: Path) -> BlobStore:
    """Return the store of the blobs below `directory`, which is made when it is missing.

    Temporary files of a daemon that was killed are deleted. One process at a time: see `lock.py`.
    """
    store = BlobStore(directory)
    await trio.to_thread.run_sync(store.load)
    return store
