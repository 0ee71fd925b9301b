"""The bytes of a partition from whoever has them: chunk by chunk, each checked, going on elsewhere where one stops.

A connection that breaks costs nothing: the session goes on over the next one. Where a session is lost, because its
peer was restarted or away for long, the fetch goes on at its offset, there or at another source.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

import structlog

from sedmad.errors import (
    DiskFull,
    HoldersUnreachable,
    ProtocolViolation,
    SedmadError,
    SessionLost,
)
from sedmad.net.calls import Chunk
from sedmad.net.sessions import Sessions
from sedmad.node.clock import monotonic_s
from sedmad.store.blobs import BlobStore
from sedmad.store.digests import CHUNK_BYTES
from sedmad.store.spool import BlobWriter
from sedmad.wire import messages as wire

log = structlog.get_logger("sedmad.fetching")

FETCH = "sedma.v1.HoldingService/FetchPartition"
# Eight chunks of 1 MiB at the slowest rate that sessions stand, 32 KiB/s, take four minutes; they wait behind another
# partition's.
FETCH_TIMEOUT_S = 600.0
# A source whose session has no stream now is back within this, or others are asked first; as for a session.
SOURCE_WAIT_S = 30.0
# How often a source may lose its session before another one has to give the rest.
SESSIONS_LOST_MAX = 3


async def fetch_partition(
    sessions: Sessions, blobs: BlobStore, digest: bytes, size_bytes: int, sources: Sequence[str]
) -> None:
    """Put a partition into the blob store.

    Raises:
        HoldersUnreachable: no source gave all of it.
        DiskFull: there is no room for it.
    """
    failures: list[str] = []
    # Those that have a connection first; sources that lost their session get another turn after the others.
    waiting = deque(sorted(dict.fromkeys(sources), key=lambda source: sessions.attached(source) is None))
    turns = dict.fromkeys(waiting, SESSIONS_LOST_MAX)
    async with blobs.create(size_bytes) as writer:
        while waiting:
            source = waiting.popleft()
            try:
                await _fetch_rest(sessions, writer, source, digest)
                await writer.commit(digest)
            except DiskFull:
                raise
            except SedmadError as error:
                failures.append(f"{source}: {error.what}")
                log.warning(
                    "fetch_failed",
                    source=source,
                    digest=digest.hex()[:16],
                    offset=writer.offset,
                    why=str(error),
                )
                turns[source] -= 1
                if isinstance(error, SessionLost) and turns[source]:
                    waiting.append(source)
                continue
            return
    raise HoldersUnreachable("a partition could not be fetched", why="; ".join(failures) or "nobody has it")


async def _fetch_rest(sessions: Sessions, writer: BlobWriter, source: str, digest: bytes) -> None:
    async with aclosing(fetch_chunks(sessions, source, digest, writer.offset)) as chunks:
        async for chunk in chunks:
            if chunk.offset != writer.offset:
                raise ProtocolViolation("a chunk is not the next one", node=source)
            await writer.write(memoryview(chunk.payload), expected_chunk_digest=chunk.payload_digest)


async def fetch_chunks(
    sessions: Sessions, source: str, digest: bytes, offset: int
) -> AsyncGenerator[Chunk, None]:
    """Yield the chunks of a partition from `offset` on, whole, as a peer gives them.

    Raises:
        NodeUnreachable: it is held for dead, or not connected and not back in time.
        SedmadError: what it answered with, or SessionLost.
    """
    request = wire.FetchPartitionRequest(digest=digest, offset=offset)
    deadline = monotonic_s() + FETCH_TIMEOUT_S
    channel = await sessions.reach(source, deadline=monotonic_s() + SOURCE_WAIT_S)
    # On a slow path a chunk comes in several frames, and the last one has its digest.
    begun: Chunk | None = None
    async with channel.open_call(FETCH, request, deadline=deadline) as call:
        async for piece in call:
            chunk = piece if begun is None else _joined(begun, piece)
            begun = None if chunk.payload_digest else chunk
            if begun is None:
                yield chunk
    if begun is not None:
        raise ProtocolViolation("a chunk has no digest", node=source)


def _joined(begun: Chunk, piece: Chunk) -> Chunk:
    """Return the beginning of a chunk with the next piece of it."""
    payload = begun.payload if isinstance(begun.payload, bytearray) else bytearray(begun.payload)
    if piece.offset != begun.offset + len(payload) or len(payload) + len(piece.payload) > CHUNK_BYTES:
        raise ProtocolViolation("a chunk is not the next one", why=f"byte {piece.offset}")
    payload += piece.payload
    return replace(piece, offset=begun.offset, payload=payload)
