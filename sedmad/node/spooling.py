"""A matrix as it streams in: cut into partitions, checked for values that are no numbers, written to disk."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager

import numpy as np
import trio

from sedmad.core.capacity import CapacityLedger
from sedmad.core.partitioning import Partitioning
from sedmad.errors import NonFiniteValues, ProtocolViolation
from sedmad.net.calls import Chunk
from sedmad.node.put import Put
from sedmad.store.blobs import BlobStore
from sedmad.store.digests import PartitionHasher
from sedmad.store.spool import BlobWriter

# Partitions spooled here that their holders do not have yet, 512 MiB as a rule: enough to keep several holders busy,
# and a bound on what a client that is faster than they are takes of this disk.
AHEAD_MAX = 64

Keep = Callable[[int, BlobWriter], Awaitable[None]]


@contextmanager
def spool_room(ledger: CapacityLedger, put: Put, own_peer_id: str) -> Iterator[int]:
    """Set room aside for partitions that only pass through this node; yield how many may be here at once.

    Raises:
        InsufficientCapacity: the disk pledge has no room for one, and this node does not keep all of them.
    """
    cut = put.partitioning
    passing = sum(own_peer_id not in put.copies_of(index) for index in range(cut.count))
    if not passing:
        yield AHEAD_MAX
        return
    places = min(AHEAD_MAX, passing, max(1, ledger.disk.available_bytes // cut.size_bytes(0)))
    key = ("spool", put.put_id)
    ledger.reserve(key, disk_bytes=places * cut.size_bytes(0))
    try:
        yield places
    finally:
        ledger.release(key)


async def spool(
    chunks: AsyncIterator[Chunk],
    partitioning: Partitioning,
    dtype: str,
    blobs: BlobStore,
    *,
    name: str,
    allow_nonfinite: bool,
    keep: Keep,
    on_progress: Callable[[int], None],
) -> list[bytes]:
    """Write a stream of values, C order, as blobs; return the partitions' digests.

    Args:
        keep: awaited with (index, writer) when all bytes of a partition are written; it commits them.
        on_progress: called with the bytes received so far.

    Raises:
        NonFiniteValues: with the row of the first one.
        ProtocolViolation: too few or too many bytes came.
    """
    source = _Source(chunks, on_progress)
    digests = []
    checker = _FiniteCheck(partitioning, dtype, name)
    for index in range(partitioning.count):
        size_bytes = partitioning.size_bytes(index)
        async with blobs.create(size_bytes) as writer:
            while writer.offset < size_bytes:
                piece = await source.take(size_bytes - writer.offset)
                if not allow_nonfinite and dtype != "int8":
                    await checker.check(piece)
                await writer.write(piece)
            await keep(index, writer)
        digests.append(writer.digest)
    await source.expect_end()
    return digests


async def hash_stream(chunks: AsyncIterator[Chunk], partitioning: Partitioning) -> list[bytes]:
    """Return the digests of a stream's partitions, and keep nothing of it."""
    source = _Source(chunks, lambda received_bytes: None)
    digests = []
    for index in range(partitioning.count):
        hasher, rest_bytes = PartitionHasher(), partitioning.size_bytes(index)
        while rest_bytes:
            piece = await source.take(rest_bytes)
            await trio.to_thread.run_sync(hasher.update, piece)
            rest_bytes -= len(piece)
        digests.append(hasher.digest())
    await source.expect_end()
    return digests


class _Source:
    """Bytes of the stream in pieces that never cross a partition's end."""

    def __init__(self, chunks: AsyncIterator[Chunk], on_progress: Callable[[int], None]) -> None:
        self._chunks = chunks
        self._on_progress = on_progress
        self._rest = memoryview(b"")
        self._received_bytes = 0

    async def take(self, most_bytes: int) -> memoryview:
        if not self._rest:
            await self._next()
        piece, self._rest = self._rest[:most_bytes], self._rest[most_bytes:]
        return piece

    async def expect_end(self) -> None:
        if self._rest:
            raise ProtocolViolation("more values came than the matrix has")
        async for chunk in self._chunks:
            if len(chunk.payload):
                raise ProtocolViolation("more values came than the matrix has")

    async def _next(self) -> None:
        async for chunk in self._chunks:
            if chunk.offset != self._received_bytes:
                raise ProtocolViolation("the values did not come in order")
            self._rest = memoryview(chunk.payload)
            self._received_bytes += len(chunk.payload)
            self._on_progress(self._received_bytes)
            if self._rest:
                return
        raise ProtocolViolation("fewer values came than the matrix has", why=f"{self._received_bytes} bytes")


class _FiniteCheck:
    """Finds NaN and Inf in a stream of bytes whose pieces need not end with a value."""

    def __init__(self, partitioning: Partitioning, dtype: str, name: str) -> None:
        self._columns = partitioning.columns
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._name = name
        self._checked_values = 0
        self._rest = b""

    async def check(self, piece: memoryview) -> None:
        data: bytes | memoryview = self._rest + bytes(piece) if self._rest else piece
        whole = len(data) // self._dtype.itemsize
        values = np.frombuffer(data, self._dtype, count=whole)
        finite = await trio.to_thread.run_sync(lambda: bool(np.isfinite(values).all()))
        if not finite:
            first = self._checked_values + int(np.argmin(np.isfinite(values)))
            row, column = divmod(first, self._columns)
            raise NonFiniteValues(
                f"{self._name} holds NaN or Inf",
                why=f"the first is in row {row}, column {column}",
                matrix=self._name,
            )
        self._checked_values += whole
        self._rest = bytes(data[whole * self._dtype.itemsize :])
