"""The muxer: wire-compatible with libp2p's, bounded against peers that do not play by the rules."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamError, MuxedStreamReset

from sedmad.net.yamux import INBOUND_STREAMS_MAX, OUTBOUND_STREAMS_MAX, YamuxConnection, YamuxViolation
from sedmad.net.yamux_frame import INITIAL_WINDOW_BYTES, Bodies, Flag, FrameType, pack
from sedmad.net.yamux_stream import WINDOW_BYTES_MAX, WindowExceeded, YamuxStream

OURS = ("ours", "ours")


async def receive_exactly(stream: Any, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        received += await stream.read(min(size - len(received), 60_000))
    return bytes(received)


async def read_for_ever(stream: Any) -> None:
    while True:
        await stream.read(10)


async def echo(connection: Any) -> None:
    """Send back what comes in on every stream that the other side opens."""

    async def serve(stream: Any) -> None:
        try:
            while True:
                await stream.write(await stream.read(60_000))
        except MuxedStreamError:
            await stream.close()

    async with trio.open_nursery() as nursery:
        while True:
            nursery.start_soon(serve, await connection.accept_stream())


@given(sizes=st.lists(st.integers(1, 600_000), min_size=1, max_size=4), dials=st.booleans())
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_bytes_come_back_whole(kinds: Any, yamux_pair: Any, sizes: list[int], dials: bool) -> None:
    async with yamux_pair(*kinds) as connections, trio.open_nursery() as nursery:
        asking, answering = connections if dials else connections[::-1]
        nursery.start_soon(echo, answering)

        async def exchange(size: int) -> None:
            message = random.Random(size).randbytes(size)
            stream = await asking.open_stream()
            async with trio.open_nursery() as inner:
                inner.start_soon(stream.write, message)
                assert await receive_exactly(stream, size) == message
            await stream.close()

        async with trio.open_nursery() as exchanges:
            for size in sizes:
                exchanges.start_soon(exchange, size)
        nursery.cancel_scope.cancel()


async def test_a_direction_ends_after_what_was_sent(kinds: Any, yamux_pair: Any) -> None:
    async with yamux_pair(*kinds) as (dialler, listener):
        stream = await dialler.open_stream()
        await stream.write(b"question")
        await stream.close()
        other = await listener.accept_stream()
        assert await receive_exactly(other, 8) == b"question"
        with pytest.raises(MuxedStreamError):
            await other.read(1)
        await other.write(b"answer")
        await other.close()
        assert await receive_exactly(stream, 6) == b"answer"
        with pytest.raises(MuxedStreamError):
            await stream.read(1)


async def test_a_reset_reaches_the_other_side(kinds: Any, yamux_pair: Any) -> None:
    async with yamux_pair(*kinds) as (dialler, listener):
        stream = await dialler.open_stream()
        await stream.write(b"x")
        other = await listener.accept_stream()
        await stream.reset()
        with pytest.raises(MuxedStreamError):
            await read_for_ever(other)
        with pytest.raises(MuxedStreamError):
            await stream.write(b"x")


async def test_a_closed_connection_breaks_its_streams(yamux_pair: Any) -> None:
    async with yamux_pair(*OURS) as (dialler, listener):
        stream = await dialler.open_stream()
        await stream.write(b"x")
        other = await listener.accept_stream()
        assert dialler.idle_since is None
        await listener.close()
        for broken in (stream, other):
            with pytest.raises(MuxedStreamReset):
                await read_for_ever(broken)
            with pytest.raises(MuxedStreamReset):
                await broken.send([b"x"])
        with pytest.raises(MuxedConnUnavailable):
            await dialler.open_stream()
        with pytest.raises(MuxedConnUnavailable):
            await dialler.accept_stream()


async def test_a_sender_waits_for_a_slow_reader_and_its_window_grows(yamux_pair: Any) -> None:
    async with yamux_pair(*OURS) as (dialler, listener):
        stream = await dialler.open_stream()
        data = random.Random(2).randbytes(3 * WINDOW_BYTES_MAX)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send, [data[:100], memoryview(data)[100:]])
            other = await listener.accept_stream()
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert sum(map(len, other._chunks)) == INITIAL_WINDOW_BYTES
            received = bytearray()
            while len(received) < len(data):
                received += await other.receive_some(100_000)
                assert sum(map(len, other._chunks)) <= WINDOW_BYTES_MAX
            assert received == data
        assert other._window_bytes == WINDOW_BYTES_MAX


async def test_a_stream_that_was_cancelled_in_mid_send_harms_no_other(yamux_pair: Any) -> None:
    async with yamux_pair(*OURS) as (dialler, listener), trio.open_nursery() as nursery:
        stuck = await dialler.open_stream()
        with trio.move_on_after(0.05):
            await stuck.send([bytes(16 << 20)])
        stuck.abort()
        nursery.start_soon(echo, listener)
        stream = await dialler.open_stream()
        await stream.send([b"still here"])
        assert await receive_exactly(stream, 10) == b"still here"
        nursery.cancel_scope.cancel()


async def test_streams_are_bounded_and_come_free_again(yamux_pair: Any) -> None:
    async with yamux_pair(*OURS) as (dialler, _):
        streams = [await dialler.open_stream() for _ in range(OUTBOUND_STREAMS_MAX)]
        with trio.move_on_after(0.05) as scope:
            await dialler.open_stream()
        assert scope.cancelled_caught
        for stream in streams:
            stream.abort()
        assert dialler.idle_since is not None
        assert await dialler.open_stream()


async def test_streams_that_a_peer_opens_without_end_are_reset(yamux_pair: Any) -> None:
    async with yamux_pair(*OURS) as (dialler, listener):
        for _ in range(INBOUND_STREAMS_MAX + 10):
            await dialler._outbound.acquire() if dialler._outbound.value else None
            stream = YamuxStream(dialler, dialler._next_stream_id, lambda stream: None)
            dialler._next_stream_id += 2
            dialler._streams[stream.stream_id] = stream
            dialler.post(FrameType.WINDOW_UPDATE, Flag.SYN, stream.stream_id, 0)
        with pytest.raises(MuxedStreamReset):
            await stream.receive_some(1)
        assert len(listener._streams) == INBOUND_STREAMS_MAX


class NoSession:
    """A session whose other side is the test."""

    is_initiator = False

    def abort(self) -> None:
        """Nothing to close."""


def listening() -> YamuxConnection:
    return YamuxConnection(NoSession(), None)


async def test_a_peer_that_exceeds_its_window_is_cut_off() -> None:
    connection = listening()
    connection._take(pack(FrameType.DATA, Flag.SYN, 1, INITIAL_WINDOW_BYTES) + bytes(INITIAL_WINDOW_BYTES))
    with pytest.raises(WindowExceeded):
        connection._take(pack(FrameType.DATA, Flag.NONE, 1, 1) + b"x")


@pytest.mark.parametrize(
    "frame",
    [
        b"\1" + bytes(11),
        pack(FrameType.DATA, Flag.SYN, 0, 0),
        pack(FrameType.DATA, Flag.SYN, 2, 0),
        pack(FrameType.DATA, Flag.SYN, 1, 0) * 2,
        b"\0\x09" + bytes(10),
    ],
    ids=["version", "stream 0", "our stream", "twice", "type"],
)
async def test_a_peer_that_does_not_speak_yamux_is_cut_off(frame: bytes) -> None:
    with pytest.raises(YamuxViolation):
        listening()._take(frame)


async def test_a_peer_that_pings_and_does_not_read_is_cut_off() -> None:
    connection = listening()
    cut: list[bool] = []
    connection.secured_conn.abort = lambda: cut.append(True)
    connection._take(pack(FrameType.PING, Flag.SYN, 0, 7) * 10_000)
    assert cut


@given(st.lists(st.binary(max_size=60), max_size=30))
@settings(max_examples=200)
async def test_garbage_leads_to_nothing_worse_than_a_violation(pieces: list[bytes]) -> None:
    connection = listening()
    try:
        for piece in pieces:
            connection._take(piece)
    except (YamuxViolation, WindowExceeded):
        pass


@given(st.data())
async def test_frames_may_be_cut_anywhere(data: st.DataObject) -> None:
    wire = b"".join(
        [
            pack(FrameType.DATA, Flag.SYN, 1, 5) + b"hello",
            pack(FrameType.WINDOW_UPDATE, Flag.SYN, 3, 1000),
            pack(FrameType.DATA, Flag.NONE, 99, 4) + b"lost",
            pack(FrameType.DATA, Flag.FIN, 1, 6) + b" world",
            pack(FrameType.WINDOW_UPDATE, Flag.RST, 3, 0),
        ]
    )
    connection = listening()
    cuts = sorted(data.draw(st.sets(st.integers(1, len(wire) - 1))))
    for start, stop in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        connection._take(wire[start:stop])
    first, second = await connection.accept_stream(), await connection.accept_stream()
    received = b""
    while piece := await first.receive_some(100):
        received += piece
    assert received == b"hello world"
    assert second.send_window_bytes == INITIAL_WINDOW_BYTES + 1000
    with pytest.raises(MuxedStreamReset):
        await second.receive_some(1)


async def test_a_stream_that_is_reset_while_it_sends_takes_nothing_of_the_others_with_it(
    yamux_pair: Any,
) -> None:
    """What others have waiting is taken up together with a stream's frames; window updates must not be lost then."""
    async with yamux_pair(*OURS) as (dialler, _):
        stream = await dialler.open_stream()
        frames = stream.frames(Bodies([b"late"]), 4)
        dialler._control.clear()
        dialler.post(FrameType.WINDOW_UPDATE, Flag.NONE, 99, 7)
        stream.peer_reset()
        assert list(dialler._take_records(frames)) == [pack(FrameType.WINDOW_UPDATE, Flag.NONE, 99, 7)]
        with pytest.raises(MuxedStreamReset):
            await stream.send([b"later"])


@pytest.mark.parametrize("seed", range(3))
async def test_some_is_sent_or_nothing_where_sending_is_cancelled(seed: int, yamux_pair: Any) -> None:
    """What a connection inside a stream relies on: a record of it is never sent twice or in part."""
    rng = random.Random(seed)
    data = memoryview(rng.randbytes(4 << 20))

    async def send(stream: YamuxStream) -> None:
        rest = data
        while rest:
            with trio.move_on_after(rng.choice([0.0, 0.0005, 0.005])):
                size = rng.randint(1, 300_000)
                sent_bytes = await stream.send_some(rest[:size])
                assert 0 < sent_bytes <= size
                rest = rest[sent_bytes:]
            rest = rest[stream.send_some_now(rest[: rng.randint(0, 100_000)]) :]
        stream.end()

    async with yamux_pair(*OURS) as (dialler, listener), trio.open_nursery() as nursery:
        nursery.start_soon(send, await dialler.open_stream())
        stream = await listener.accept_stream()
        received = b""
        while piece := await stream.receive_some(100_000):
            received += piece
            await trio.sleep(rng.choice([0.0, 0.0, 0.002]))
        assert received == data
