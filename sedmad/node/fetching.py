"""The bytes of a partition from whoever has them: chunk by chunk, each checked, going on elsewhere where one stops."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import structlog

from sedmad.errors import DiskFull, HoldersUnreachable, ProtocolViolation, SedmadError
from sedmad.net.calls import Chunk
from sedmad.net.sessions import Sessions
from sedmad.node.clock import monotonic_s
from sedmad.store.blobs import BlobStore
from sedmad.wire import messages as wire

log = structlog.get_logger("sedmad.fetching")

FETCH = "sedma.v1.HoldingService/FetchPartition"
# A chunk of 1 MiB over 1 Mbit/s takes 8 s; a partition has eight, and waits behind another.
FETCH_TIMEOUT_S = 600.0


async def fetch_partition(
    sessions: Sessions, blobs: BlobStore, digest: bytes, size_bytes: int, sources: Sequence[str]
) -> None:
    """Put a partition into the blob store.

    Raises:
        HoldersUnreachable: no source gave all of it.
        DiskFull: there is no room for it.
    """
    failures: list[str] = []
    async with blobs.create(size_bytes) as writer:
        for source in sources:
            try:
                chunks = fetch_chunks(sessions, source, digest, writer.offset)
                async with aclosing(chunks):
                    async for chunk in chunks:
                        if chunk.offset != writer.offset:
                            raise ProtocolViolation("a chunk is not the next one", node=source)
                        await writer.write(
                            memoryview(chunk.payload), expected_chunk_digest=chunk.payload_digest
                        )
                await writer.commit(digest)
            except DiskFull:
                raise
            except SedmadError as error:
                failures.append(f"{source}: {error.what}")
                log.warning("fetch_failed", source=source, digest=digest.hex()[:16], why=str(error))
                continue
            return
    raise HoldersUnreachable("a partition could not be fetched", why="; ".join(failures) or "nobody has it")


async def fetch_chunks(
    sessions: Sessions, source: str, digest: bytes, offset: int
) -> AsyncGenerator[Chunk, None]:
    """Yield the chunks of a partition from `offset` on, as a peer gives them."""
    request = wire.FetchPartitionRequest(digest=digest, offset=offset)
    deadline = monotonic_s() + FETCH_TIMEOUT_S
    async with sessions.channel(source).open_call(FETCH, request, deadline=deadline) as call:
        async for chunk in call:
            yield chunk
