"""Writing one blob while its bytes stream in: a temporary file that becomes a blob at `commit`, or nothing.

Memory stays at the piece being written, however large the blob. Knows nothing of where blobs lie: the store
passes in how a finished file is put in its place.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path

import trio

from sedmad.errors import BytesCorrupt, LocalError, StoreUnusable
from sedmad.store.digests import CHUNK_BYTES, PartitionHasher, chunk_digest
from sedmad.store.disk import require_room, writing

TEMPORARY_SUFFIX = ".part"

# Dirty pages of one blob are bounded, so that a stream faster than the disk waits here and not in one long
# fsync.
FLUSH_BYTES = 8 << 20


class BlobWriter:
    """One blob being written, in order, by one task. `BlobStore.create` makes it."""

    def __init__(
        self,
        descriptor: int,
        path: Path,
        size_bytes: int,
        place: Callable[[Path, bytes, int], None],
        limiter: trio.CapacityLimiter,
    ) -> None:
        self.size_bytes = size_bytes
        self._descriptor = descriptor
        self._path = path
        self._place = place
        self._limiter = limiter
        self._hasher = PartitionHasher()
        self._offset = 0
        self._flushed = 0
        self._committed = False
        self._unsafe = False

    @property
    def offset(self) -> int:
        """How many bytes are written: where a broken transfer goes on."""
        return self._offset

    @property
    def digest(self) -> bytes:
        """The digest of what is written so far; all of it is hashed already."""
        return self._hasher.digest()

    @property
    def committed(self) -> bool:
        return self._committed

    async def write(self, data: bytes | memoryview, *, expected_chunk_digest: bytes | None = None) -> None:
        """Append `data`; when it returns, the bytes are with the kernel, not yet safe.

        Args:
            data: contiguous bytes; the caller leaves them unchanged until this returns.
            expected_chunk_digest: then `data` must be exactly the next chunk, and is checked before it is
            written.

        Raises BytesCorrupt when the digest differs or more bytes come than announced, DiskFull, StoreUnusable:
        `offset` stays as it was, and the right bytes may follow.
        """
        await trio.to_thread.run_sync(self._write, data, expected_chunk_digest, limiter=self._limiter)

    async def commit(self, expected_digest: bytes | None = None) -> bytes:
        """Make the blob durable under its digest, which is returned; a blob that exists already is kept.

        Raises BytesCorrupt when bytes are missing or the digest is not the expected one, DiskFull, StoreUnusable.
        """
        digest = await trio.to_thread.run_sync(self._commit, expected_digest, limiter=self._limiter)
        self._committed = True
        return digest

    def rewind(self) -> None:
        """Forget what was written: other bytes may follow from the first one on."""
        self._hasher = PartitionHasher()
        self._offset = self._flushed = 0
        self._unsafe = False

    def discard(self) -> None:
        """Close the file and delete what `commit` did not put in place; for a worker thread."""
        os.close(self._descriptor)
        self._path.unlink(missing_ok=True)

    def _write(self, data: bytes | memoryview, expected_chunk_digest: bytes | None) -> None:
        self._refuse_when_unsafe()
        view = memoryview(data).cast("B")
        if self._offset + len(view) > self.size_bytes:
            raise BytesCorrupt(
                "A partition has more bytes than announced",
                why=f"{self.size_bytes:,} bytes were announced, {self._offset + len(view):,} came.",
            )
        if expected_chunk_digest is not None:
            self._check_chunk(view, expected_chunk_digest)
        with writing(self._path, self.size_bytes - self._offset):
            self._write_file(view)
        # Only now: after a failed write the hasher and the offset are those of the bytes before.
        if expected_chunk_digest is None:
            self._hasher.update(view)
        else:
            self._hasher.append_chunk(expected_chunk_digest, len(view))
        self._offset += len(view)

    def _check_chunk(self, chunk: memoryview, expected_digest: bytes) -> None:
        if len(chunk) != min(CHUNK_BYTES, self.size_bytes - self._offset):
            raise LocalError("A chunk was written that is not the next whole one")
        digest = chunk_digest(chunk)
        if digest != expected_digest:
            raise BytesCorrupt(
                f"The chunk at byte {self._offset:,} of a partition is not what its sender digested",
                why=f"Its digest is {digest.hex()}, not {expected_digest.hex()}.",
            )

    def _write_file(self, view: memoryview) -> None:
        position = self._offset
        while len(view):
            written = os.pwrite(self._descriptor, view, position)
            position += written
            view = view[written:]
        if position - self._flushed >= FLUSH_BYTES:
            self._flush(os.fdatasync)
            self._flushed = position

    def _flush(self, flush: Callable[[int], None]) -> None:
        try:
            flush(self._descriptor)
        except OSError:
            # The kernel drops pages that it could not write and tells it once: the next flush would succeed.
            self._unsafe = True
            raise

    def _refuse_when_unsafe(self) -> None:
        if self._unsafe:
            raise StoreUnusable(
                f"What was written below {self._path.parent} did not reach the disk", hint="Begin it again."
            )

    def _commit(self, expected_digest: bytes | None) -> bytes:
        self._refuse_when_unsafe()
        if self._offset != self.size_bytes:
            raise BytesCorrupt(
                "A partition has fewer bytes than announced",
                why=f"{self.size_bytes:,} bytes were announced, {self._offset:,} came.",
            )
        digest = self._hasher.digest()
        if expected_digest is not None and digest != expected_digest:
            raise BytesCorrupt(
                "The bytes of a partition are not what its manifest says",
                why=f"Their digest is {digest.hex()}, not {expected_digest.hex()}.",
            )
        with writing(self._path, self.size_bytes):
            self._flush(os.fsync)
            self._place(self._path, digest, self.size_bytes)
        return digest


def create_temporary(directory: Path, size_bytes: int) -> tuple[int, Path]:
    """Make a temporary file of mode 0600 at its full size; return its descriptor and path.

    For a worker thread, one at a time. Raises DiskFull now, before a byte is moved, and leaves nothing; also when
    less than the reserve would stay free.
    """
    path = directory / f"{uuid.uuid4().hex}{TEMPORARY_SUFFIX}"
    with writing(path, size_bytes):
        require_room(directory, size_bytes)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size_bytes)
        except BaseException:
            os.close(descriptor)
            path.unlink()
            raise
    return descriptor, path
