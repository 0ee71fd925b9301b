from __future__ import annotations

import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from sedmad.errors import (
    HoldersUnreachable,
    MatrixNotFound,
    NodeUnreachable,
    ProtocolViolation,
    SedmadError,
    SessionLost,
)
from sedmad.net.calls import Chunk
from sedmad.node.fetching import SESSIONS_LOST_MAX, fetch_chunks, fetch_partition
from sedmad.store.blobs import BlobStore, open_blobs
from sedmad.store.digests import CHUNK_BYTES, chunk_digest, partition_digest

DATA = random.Random(1).randbytes(3 * CHUNK_BYTES + 1000)
DIGEST = partition_digest(memoryview(DATA))
LOST = SessionLost("it was restarted")


@dataclass
class Source:
    """A holder that ends each call as its script says: (pieces that it gives first, the error then)."""

    script: list[tuple[int, SedmadError]] = field(default_factory=list)
    piece_bytes: int = CHUNK_BYTES
    is_attached: bool = True
    offsets: list[int] = field(default_factory=list)

    @asynccontextmanager
    async def open_call(self, method: str, request: Any, *, deadline: float) -> AsyncIterator[Any]:
        self.offsets.append(request.offset)
        async with aclosing(self._chunks(request.offset)) as chunks:
            yield chunks

    async def _chunks(self, offset: int) -> AsyncGenerator[Chunk, None]:
        pieces, error = self.script.pop(0) if self.script else (10**9, LOST)
        while offset < len(DATA) and pieces:
            await trio.lowlevel.checkpoint()
            start = offset - offset % CHUNK_BYTES
            whole = DATA[start : start + CHUNK_BYTES]
            stop = min(offset + self.piece_bytes, start + len(whole))
            digest = chunk_digest(memoryview(whole)) if stop == start + len(whole) else b""
            yield Chunk(offset, bytearray(DATA[offset:stop]), digest)
            offset, pieces = stop, pieces - 1
        if offset < len(DATA):
            raise error


class Sources:
    """What fetching uses of Sessions."""

    def __init__(self, **sources: Source) -> None:
        self._sources = sources
        self.asked: list[str] = []

    def attached(self, peer_id: str) -> Source | None:
        return self._sources[peer_id] if self._sources[peer_id].is_attached else None

    async def reach(self, peer_id: str, *, deadline: float) -> Source:
        await trio.lowlevel.checkpoint()
        self.asked.append(peer_id)
        return self._sources[peer_id]


@pytest.fixture
async def blobs(tmp_path: Path) -> BlobStore:
    return await open_blobs(tmp_path / "blobs")


async def fetch(blobs: BlobStore, sources: Sources, *names: str) -> None:
    await fetch_partition(sources, blobs, DIGEST, len(DATA), names)  # type: ignore[arg-type]
    with await blobs.open(DIGEST) as blob:
        assert bytes(blob.view) == DATA


async def test_a_fetch_goes_on_at_its_offset_with_the_same_source(blobs: BlobStore) -> None:
    source = Source([(2, LOST), (0, LOST)])
    await fetch(blobs, Sources(ann=source), "ann")
    assert source.offsets == [0, 2 * CHUNK_BYTES, 2 * CHUNK_BYTES]


async def test_another_source_gives_the_rest_before_the_first_is_asked_again(blobs: BlobStore) -> None:
    ann, ben = Source([(1, LOST)]), Source([(1, LOST)])
    sources = Sources(ann=ann, ben=ben)
    await fetch(blobs, sources, "ann", "ben")
    assert sources.asked == ["ann", "ben", "ann"]
    assert (ann.offsets, ben.offsets) == ([0, 2 * CHUNK_BYTES], [CHUNK_BYTES])


async def test_sources_with_a_connection_are_asked_first(blobs: BlobStore) -> None:
    sources = Sources(ann=Source(is_attached=False), ben=Source())
    await fetch(blobs, sources, "ann", "ben")
    assert sources.asked == ["ben"]


@pytest.mark.parametrize(
    "error", [MatrixNotFound("not here"), NodeUnreachable("dead"), ProtocolViolation("wrong")]
)
async def test_a_source_that_has_it_not_is_asked_once(error: SedmadError, blobs: BlobStore) -> None:
    sources = Sources(ann=Source([(1, error)]))
    with pytest.raises(HoldersUnreachable, match="fetched"):
        await fetch(blobs, sources, "ann")
    assert sources.asked == ["ann"]
    assert blobs.used_bytes == 0


async def test_other_bytes_with_digests_of_their_own_are_not_kept(blobs: BlobStore) -> None:
    sessions: Any = Sources(a=Source())
    other = partition_digest(b"what was asked for")
    with pytest.raises(HoldersUnreachable, match="could not be fetched"):
        await fetch_partition(sessions, blobs, other, len(DATA), ["a"])
    assert not blobs.digests()


async def test_a_source_that_is_lost_again_and_again_is_given_up(blobs: BlobStore) -> None:
    sources = Sources(ann=Source([(0, LOST)] * 10))
    with pytest.raises(HoldersUnreachable, match="fetched"):
        await fetch(blobs, sources, "ann")
    assert sources.asked == ["ann"] * SESSIONS_LOST_MAX


@pytest.mark.parametrize("piece_bytes", [16 << 10, 300_000])
async def test_chunks_that_come_in_pieces_are_put_together(piece_bytes: int, blobs: BlobStore) -> None:
    source = Source([(5, LOST)], piece_bytes)
    await fetch(blobs, Sources(ann=source), "ann")
    # What was not a whole chunk comes again.
    assert [offset % CHUNK_BYTES for offset in source.offsets] == [0, 0]


@pytest.mark.parametrize(
    "pieces",
    [
        [Chunk(0, bytearray(10))],
        [Chunk(0, bytearray(10)), Chunk(11, bytearray(10), b"digest")],
        [Chunk(0, bytearray(CHUNK_BYTES)), Chunk(CHUNK_BYTES, bytearray(1), b"digest")],
    ],
)
async def test_pieces_that_are_no_chunk_are_refused(pieces: list[Chunk]) -> None:
    class Odd(Source):
        async def _chunks(self, offset: int) -> AsyncGenerator[Chunk, None]:
            for piece in pieces:
                await trio.lowlevel.checkpoint()
                yield piece

    sources: Any = Sources(ann=Odd())
    with pytest.raises(ProtocolViolation):
        async for _ in fetch_chunks(sources, "ann", DIGEST, 0):
            pass
