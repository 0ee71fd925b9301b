from __future__ import annotations

import tempfile
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from sedmad.core.partitioning import Partitioning
from sedmad.errors import NonFiniteValues, ProtocolViolation
from sedmad.net.calls import Chunk
from sedmad.node.spooling import hash_stream, spool
from sedmad.store.blobs import BlobStore, open_blobs
from sedmad.store.digests import partition_digest
from sedmad.store.spool import BlobWriter

# More than one partition would be 8 MiB and more; this one is cut as a large one is, but every 64 rows.
CUT = Partitioning(200, 7, 8)
object.__setattr__(CUT, "partition_rows", 64)
VALUES = np.random.default_rng(0).standard_normal((200, 7))
DATA = VALUES.tobytes()
DIGESTS = [partition_digest(VALUES[start : start + 64].tobytes()) for start in range(0, 200, 64)]


class Chunks:
    """Chunks at these offsets, of these bytes, one after the other."""

    def __init__(self, *chunks: tuple[int, bytes]) -> None:
        self._chunks = list(chunks)

    def __aiter__(self) -> Chunks:
        return self

    async def __anext__(self) -> Chunk:
        if not self._chunks:
            raise StopAsyncIteration
        return Chunk(*self._chunks.pop(0))


def chunked(data: bytes, sizes: list[int]) -> Chunks:
    ends = [*accumulate(sizes), *range(sum(sizes) + 1000, len(data) + 1000, 1000)]
    starts = [0, *ends]
    return Chunks(
        *((start, data[start:end]) for start, end in zip(starts, ends, strict=False) if start < len(data))
    )


async def spooled(
    data: Any, blobs: BlobStore, *, allow_nonfinite: bool = False, dtype: str = "float64"
) -> Any:
    kept: list[tuple[int, bytes]] = []
    progress: list[int] = []

    async def keep(index: int, writer: BlobWriter) -> None:
        kept.append((index, await writer.commit()))

    digests = await spool(
        chunked(data, [999] * 20) if isinstance(data, bytes) else data,
        CUT if dtype == "float64" else Partitioning(200, 14, 4),
        dtype,
        blobs,
        name="w",
        allow_nonfinite=allow_nonfinite,
        keep=keep,
        on_progress=progress.append,
    )
    assert kept == list(enumerate(digests))
    assert progress == sorted(progress)
    return digests


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(1, 3000), max_size=40), allow_nonfinite=st.booleans())
def test_however_it_is_cut_the_same_partitions_come_out(sizes: list[int], allow_nonfinite: bool) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as directory:
            blobs = await open_blobs(Path(directory) / "blobs")
            digests = await spooled(chunked(DATA, list(sizes)), blobs, allow_nonfinite=allow_nonfinite)
            assert digests == DIGESTS
            assert blobs.digests() == set(DIGESTS)
            assert await hash_stream(chunked(DATA, list(sizes)), CUT) == DIGESTS

    trio.run(run)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 6, 7, 447, 448, 449, 1399])
async def test_what_is_no_number_is_found_by_row_and_column(value: float, place: int, tmp_path: Path) -> None:
    blobs = await open_blobs(tmp_path)
    values = VALUES.copy()
    values.flat[place] = value
    with pytest.raises(NonFiniteValues) as raised:
        await spooled(values.tobytes(), blobs)
    assert f"row {place // 7}, column {place % 7}" in raised.value.why
    assert raised.value.matrix == "w"
    assert len(await spooled(values.tobytes(), blobs, allow_nonfinite=True)) == 4


async def test_float32_is_checked_as_float32(tmp_path: Path) -> None:
    # The same bytes hold a NaN of 32 bits that is no NaN of 64.
    values = np.ones((200, 14), np.float32)
    values[3, 5] = np.nan
    blobs = await open_blobs(tmp_path)
    with pytest.raises(NonFiniteValues, match="w") as raised:
        await spooled(values.tobytes(), blobs, dtype="float32")
    assert "row 3, column 5" in raised.value.why


@pytest.mark.parametrize("data", [b"", DATA[:-1], DATA[:-8], DATA[: 64 * 56], DATA + b"x", DATA + DATA])
async def test_too_few_or_too_many_bytes_are_refused(data: bytes, tmp_path: Path) -> None:
    blobs = await open_blobs(tmp_path)
    with pytest.raises(ProtocolViolation):
        await spooled(data, blobs)
    with pytest.raises(ProtocolViolation):
        await hash_stream(chunked(data, [999]), CUT)
    assert not list((tmp_path / "incoming").iterdir())


async def test_bytes_out_of_order_are_refused() -> None:
    with pytest.raises(ProtocolViolation, match="order"):
        await hash_stream(Chunks((0, DATA[:100]), (200, DATA[200:300])), CUT)


async def test_empty_chunks_change_nothing() -> None:
    chunks = Chunks((0, b""), (0, DATA), (len(DATA), b""))
    assert await hash_stream(chunks, CUT) == DIGESTS
