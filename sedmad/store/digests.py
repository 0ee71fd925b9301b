"""How the bytes of a partition are digested: so that they are hashed once, and every chunk can be checked
alone.

    chunk digest     = SHA-256(chunk), chunks of 1 MiB, the last may be shorter
    partition digest = SHA-256(the chunk digests, one after another)

Owns the definition; touches no file.
"""

from __future__ import annotations

import hashlib

from sedmad.errors import LocalError

CHUNK_BYTES = 1 << 20
DIGEST_BYTES = 32


def chunk_digest(chunk: bytes | memoryview) -> bytes:
    """Return the 32 bytes of SHA-256 over one chunk (FIPS 180-4)."""
    return hashlib.sha256(chunk).digest()


def partition_digest(data: bytes | memoryview) -> bytes:
    """Return the 32-byte digest of a whole partition that is in memory or mapped."""
    hasher = PartitionHasher()
    hasher.update(data)
    return hasher.digest()


class PartitionHasher:
    """The partition digest of bytes that arrive in pieces of any size, in order."""

    def __init__(self) -> None:
        self._chunks = hashlib.sha256()
        self._chunk = hashlib.sha256()
        self._chunk_filled_bytes = 0
        self._ended = False

    @property
    def at_chunk_boundary(self) -> bool:
        return self._chunk_filled_bytes == 0

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes: `data` is contiguous, of item size 1."""
        self._refuse_after_the_last_chunk()
        view = memoryview(data)
        while len(view):
            piece = view[: CHUNK_BYTES - self._chunk_filled_bytes]
            self._chunk.update(piece)
            self._chunk_filled_bytes += len(piece)
            if self._chunk_filled_bytes == CHUNK_BYTES:
                self._chunks.update(self._chunk.digest())
                self._chunk = hashlib.sha256()
                self._chunk_filled_bytes = 0
            view = view[len(piece) :]

    def append_chunk(self, digest: bytes, size_bytes: int) -> None:
        """Take the next whole chunk by its digest; a shorter one is the last."""
        self._refuse_after_the_last_chunk()
        if not self.at_chunk_boundary:
            raise LocalError("A whole chunk was appended in the middle of another")
        self._chunks.update(digest)
        self._ended = size_bytes < CHUNK_BYTES

    def digest(self) -> bytes:
        """Return the digest of the bytes so far; more may follow."""
        chunks = self._chunks.copy()
        if not self.at_chunk_boundary:
            chunks.update(self._chunk.digest())
        return chunks.digest()

    def _refuse_after_the_last_chunk(self) -> None:
        if self._ended:
            raise LocalError("Bytes were appended after the last, shorter chunk of a partition")
