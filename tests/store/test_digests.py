from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sedmad.errors import LocalError
from sedmad.store.digests import CHUNK_BYTES, PartitionHasher, chunk_digest, partition_digest

DATA = bytes(range(256)) * (2 * CHUNK_BYTES // 256) + b"the shorter last chunk"


def chunks(data: bytes) -> list[bytes]:
    return [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]


def test_digest_is_sha256_over_the_digests_of_the_chunks() -> None:
    by_hand = hashlib.sha256(b"".join(hashlib.sha256(chunk).digest() for chunk in chunks(DATA))).digest()
    assert partition_digest(DATA) == by_hand
    assert partition_digest(memoryview(DATA)) == by_hand


def test_known_digest_of_a_short_partition() -> None:
    assert partition_digest(b"abc").hex() == hashlib.sha256(hashlib.sha256(b"abc").digest()).hexdigest()


@given(st.lists(st.integers(0, len(DATA)), max_size=12), st.integers(0, len(DATA)))
def test_any_cutting_gives_the_same_digest(cuts: list[int], length: int) -> None:
    data = memoryview(DATA)[:length]
    edges = [0, *sorted(cut for cut in cuts if cut < length), length]
    hasher = PartitionHasher()
    for start, stop in pairwise(edges):
        hasher.update(data[start:stop])
        hasher.digest()  # looking does not disturb
    assert hasher.digest() == partition_digest(data)


@given(st.lists(st.booleans(), min_size=3, max_size=3))
def test_chunks_may_come_as_bytes_or_as_digests(as_digest: list[bool]) -> None:
    hasher = PartitionHasher()
    for chunk, by_digest in zip(chunks(DATA), as_digest, strict=True):
        if by_digest:
            hasher.append_chunk(chunk_digest(chunk), len(chunk))
        else:
            hasher.update(chunk)
    assert hasher.digest() == partition_digest(DATA)


def test_every_byte_counts() -> None:
    for position in (0, CHUNK_BYTES - 1, CHUNK_BYTES, len(DATA) - 1):
        changed = bytearray(DATA)
        changed[position] ^= 1
        assert partition_digest(bytes(changed)) != partition_digest(DATA)


def test_a_shorter_chunk_is_the_last_and_begins_at_a_boundary() -> None:
    ended = PartitionHasher()
    ended.append_chunk(chunk_digest(b"short"), 5)
    with pytest.raises(LocalError):
        ended.update(b"more")
    amid = PartitionHasher()
    amid.update(b"some")
    with pytest.raises(LocalError):
        amid.append_chunk(chunk_digest(b"short"), 5)
