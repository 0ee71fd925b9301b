"""A matrix goes out: its partitions in order, from here or from their holders, every byte checked."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import structlog

from sedmad.errors import BytesCorrupt, HoldersUnreachable, SedmadError
from sedmad.net.calls import Chunk
from sedmad.net.sessions import Sessions
from sedmad.node.fetching import fetch_chunks
from sedmad.node.manifest import Manifest
from sedmad.node.membership import MembershipService
from sedmad.store.blobs import BlobStore
from sedmad.store.digests import CHUNK_BYTES, PartitionHasher, chunk_digest
from sedmad.wire.frame import Buffer

log = structlog.get_logger("sedmad.getting")


class GettingService:
    """Streams matrices to this node's clients."""

    def __init__(self, *, blobs: BlobStore, sessions: Sessions, membership: MembershipService) -> None:
        self._blobs = blobs
        self._sessions = sessions
        self._membership = membership

    async def stream(self, manifest: Manifest, name: str) -> AsyncGenerator[tuple[int, Buffer], None]:
        """Yield (offset in the matrix, bytes), in order.

        Raises:
            HoldersUnreachable: a partition cannot be had from anybody.
        """
        base = 0
        for index in range(len(manifest.digests)):
            async with aclosing(self._partition(manifest, index, name)) as chunks:
                async for chunk in chunks:
                    yield base + chunk.offset, chunk.payload
            base += manifest.size_of(index)

    async def _partition(self, manifest: Manifest, index: int, name: str) -> AsyncGenerator[Chunk, None]:
        digest, size_bytes = manifest.digests[index], manifest.size_of(index)
        hasher, offset = PartitionHasher(), 0
        failures = []
        for source in self._sources(manifest, index):
            try:
                async with aclosing(self._from(source, digest, offset)) as chunks:
                    async for chunk in chunks:
                        self._check(chunk, offset, size_bytes)
                        hasher.append_chunk(chunk.payload_digest, len(chunk.payload))
                        offset += len(chunk.payload)
                        yield chunk
            except SedmadError as error:
                failures.append(
                    f"{self._membership.name_of(source) if source else 'this node'}: {error.what}"
                )
                log.warning("partition_not_read", source=source, index=index, why=str(error))
                continue
            if offset == size_bytes:
                # The chunks were right one by one; this says that they were this partition's.
                if hasher.digest() != digest:
                    raise BytesCorrupt(
                        f"partition {index} of {name} is not what its manifest says", matrix=name
                    )
                return
        raise HoldersUnreachable(
            f"partition {index} of {name} cannot be read",
            why="; ".join(failures) or "no holder is known",
            matrix=name,
        )

    def _sources(self, manifest: Manifest, index: int) -> list[str]:
        """Return "" for this node where it has the bytes, then holders: the connected, the living, the near first."""
        here = [""] if self._blobs.contains(manifest.digests[index]) else []
        order = {"alive": 0, "suspect": 1, "dead": 2}

        def key(peer_id: str) -> tuple[bool, int, float]:
            row = self._membership.row(peer_id)
            state, rtt_s = (order[row.state], row.rtt_s or 1.0) if row else (3, 0.0)
            return self._sessions.attached(peer_id) is None, state, rtt_s

        return here + sorted(manifest.copies[index], key=key)

    async def _from(self, source: str, digest: bytes, offset: int) -> AsyncGenerator[Chunk, None]:
        if source:
            async with aclosing(fetch_chunks(self._sessions, source, digest, offset)) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        with await self._blobs.open(digest) as blob:
            for start in blob.chunk_offsets(offset):
                stored = await blob.chunk(start)
                yield Chunk(start, stored.view, stored.digest)

    @staticmethod
    def _check(chunk: Chunk, offset: int, size_bytes: int) -> None:
        expected_bytes = min(CHUNK_BYTES, size_bytes - offset)
        if chunk.offset != offset or len(chunk.payload) != expected_bytes:
            raise BytesCorrupt("a chunk is not the next one", why=f"byte {chunk.offset} instead of {offset}")
        if chunk_digest(memoryview(chunk.payload)) != chunk.payload_digest:
            raise BytesCorrupt("a chunk is not what its sender digested")
