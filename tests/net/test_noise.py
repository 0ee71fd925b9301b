"""The record layer: wire-compatible with libp2p's, whole after a cancelled send, closed by tampering."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
from cryptography.exceptions import InvalidTag
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from libp2p.io.exceptions import ConnectionClosedError

SIZES = st.lists(
    st.sampled_from([0, 1, 12, 65506, 65507, 65518, 65519, 65520, 131038]) | st.integers(0, 200_000),
    max_size=5,
)


@given(sizes=SIZES)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_what_is_written_is_read_on_the_other_side(
    kinds: Any, noise_pair: Any, sizes: list[int]
) -> None:
    async with noise_pair(*kinds) as sessions:
        for writer, reader in (sessions, sessions[::-1]):
            messages = [random.Random(size).randbytes(size) for size in sizes]

            async def write(writer: Any = writer, messages: list[bytes] = messages) -> None:
                for message in messages:
                    await writer.write(message)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(write)
                for message in messages:
                    received = bytearray()
                    while len(received) < len(message):
                        received += await reader.read(len(message) - len(received))
                    assert received == message


async def test_both_sides_know_each_other(kinds: Any, noise_pair: Any) -> None:
    async with noise_pair(*kinds) as (dialled, accepted):
        assert dialled.get_remote_peer() == accepted.get_local_peer()
        assert accepted.get_remote_peer() == dialled.get_local_peer()


async def test_a_cancelled_send_goes_on_in_the_middle_of_its_record(noise_pair: Any) -> None:
    async with noise_pair("ours", "ours") as (writer, reader):
        big = random.Random(1).randbytes(24 << 20)
        with trio.move_on_after(0.2) as scope:
            await writer.write(big)  # more than the sockets hold, and nobody reads
        assert scope.cancelled_caught

        received = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer.write, b"afterwards")
            while len(received) < len(big) + 10:
                for plaintext in await reader.receive():
                    received += plaintext
        assert received == big + b"afterwards"


async def test_a_record_that_was_tampered_with_is_not_opened(noise_pair: Any) -> None:
    async with noise_pair("ours", "ours") as (writer, reader):
        writer.seal([b"pay me 10"])
        damaged = bytearray(writer._unsent)
        damaged[-1] ^= 1
        writer._unsent = memoryview(damaged)
        await writer.flush()
        with pytest.raises(InvalidTag):
            await reader.receive()


async def test_the_end_of_the_connection_is_told(noise_pair: Any) -> None:
    async with noise_pair("ours", "ours") as (writer, reader):
        await writer.write(b"last words")
        await writer.close()
        assert await reader.receive() == [b"last words"]
        with pytest.raises(ConnectionClosedError):
            await reader.receive()
