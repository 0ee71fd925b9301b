"""One blob as it is read: mapped for those who compute with it, or straight from the disk for those who check it."""

from __future__ import annotations

import errno
import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import trio

from sedmad.errors import BytesCorrupt, UsageError
from sedmad.store.digests import CHUNK_BYTES, PartitionHasher, chunk_digest, partition_digest


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a blob as it travels: at most 1 MiB at `offset`, and its own digest."""

    offset: int
    view: memoryview
    digest: bytes


@dataclass(frozen=True, slots=True)
class FileState:
    """What changes when anybody writes to a file: blobs never change, so the same state means the same bytes.

    It says nothing of bits that rot on the disk.
    """

    inode: int
    size_bytes: int
    written_ns: int
    touched_ns: int

    @classmethod
    def of(cls, path: Path) -> FileState | None:
        """Return the state of a file, None where there is none."""
        try:
            status = os.stat(path)
        except FileNotFoundError:
            return None
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def holds(self, path: str) -> bool:
        """Whether a file is in this state. Products ask for each partition: it makes no objects."""
        try:
            status = os.stat(path)
        except FileNotFoundError:
            return False
        return (
            status.st_ctime_ns == self.touched_ns
            and status.st_mtime_ns == self.written_ns
            and status.st_ino == self.inode
            and status.st_size == self.size_bytes
        )


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
            raise changed(self.path, found)

    def close(self) -> None:
        """Let go of the map. Arrays made from `view` stay valid and keep it."""
        self._view = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class DiskReader:
    """Digests a file chunk by chunk as the disk has it, past the page cache where the file system lets us.

    So rot is found behind a good cached page, what others cached stays cached, and a sector that cannot be read is
    an error where a map would end the process. Everything but `digest` is for worker threads.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hasher = PartitionHasher()
        self._offset = 0
        # Anonymous maps begin at a page, as reads past the cache must.
        self._buffer = memoryview(mmap.mmap(-1, CHUNK_BYTES))
        with self._reading():
            self._descriptor = self._open()

    @property
    def digest(self) -> bytes:
        """The partition digest of what was read."""
        return self._hasher.digest()

    def read_chunk(self) -> tuple[int, float]:
        """Read on; return how many bytes there were, 0 at the end, and the CPU seconds they took.

        Raises BytesCorrupt when the disk does not give them.
        """
        began_s = time.thread_time()
        with self._reading():
            size_bytes = os.preadv(self._descriptor, [self._buffer], self._offset)
        if size_bytes:
            self._hasher.update(self._buffer[:size_bytes])
            self._offset += size_bytes
        return size_bytes, time.thread_time() - began_s

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _open(self) -> int:
        flags = os.O_RDONLY | os.O_CLOEXEC
        try:
            return os.open(self._path, flags | os.O_DIRECT)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return os.open(self._path, flags)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BytesCorrupt(
                f"The stored bytes at {self._path} cannot be read", why=f"{error.strerror or error}."
            ) from error


def changed(path: Path, found: bytes) -> BytesCorrupt:
    """Return the error for bytes that are not what they are named after."""
    return BytesCorrupt(
        f"The stored bytes at {path} have changed",
        why=f"Their digest is {found.hex()}.",
        hint="The disk may be failing. The bytes are fetched again from another copy where there is one.",
    )
