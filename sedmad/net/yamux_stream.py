"""One stream of a yamux connection: its buffer, its two windows, how it ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import trio
from libp2p.abc import IMuxedStream
from libp2p.stream_muxer.exceptions import MuxedStreamClosed, MuxedStreamEOF, MuxedStreamReset

from sedmad.net.noise import PLAINTEXT_BYTES_MAX
from sedmad.net.yamux_frame import HEADER, INITIAL_WINDOW_BYTES, Bodies, Flag, FrameType, pack
from sedmad.wire.frame import Buffer

if TYPE_CHECKING:
    from sedmad.net.yamux import YamuxConnection

# A frame fills one Noise record exactly.
BODY_BYTES_MAX = PLAINTEXT_BYTES_MAX - HEADER.size
# 80 MB/s over 100 ms. Only a reader that keeps up gets there: the window doubles each time half of it was
# read within GROW_WITHIN_S, so a stream of a stranger, of whom little is read, never holds more than the
# initial window.
WINDOW_BYTES_MAX = 8 << 20
GROW_WITHIN_S = 0.25
# Sent without a turn of the event loop in between: four records of a connection inside this stream, in 0.4 ms.
NOW_BYTES_MAX = 512 << 10
# A reader whose data is always there lets others run this often.
READ_BYTES_PER_TURN = 1 << 20
# libp2p's negotiation reads as much as the other side announces.
NEGOTIATION_READ_BYTES_MAX = 4096


class YamuxViolation(Exception):
    """The peer does not speak yamux."""


class WindowExceeded(Exception):
    """The peer sent more than it was allowed to: it does not speak yamux."""


class YamuxStream(IMuxedStream):
    """A stream. One task reads and one writes at a time.

    Attributes:
        stream_id: odd where the connection's initiator opened it.
        muxed_conn: the connection.
        send_window_bytes: what may be sent until the peer allows more.
        window_bytes_max: up to where the window of what may arrive unread grows.
        is_reset: whether either side has given it up.
    """

    def __init__(
        self, connection: YamuxConnection, stream_id: int, on_ended: Callable[[YamuxStream], None]
    ) -> None:
        self.muxed_conn = connection
        self.stream_id = stream_id
        self.send_window_bytes = INITIAL_WINDOW_BYTES
        self.window_bytes_max = WINDOW_BYTES_MAX
        self.is_reset = False
        self._on_ended = on_ended
        self._chunks: deque[bytes] = deque()
        self._receive_window_bytes = INITIAL_WINDOW_BYTES
        self._window_bytes = INITIAL_WINDOW_BYTES
        self._read_bytes = 0
        self._read_since_yield = 0
        self._updated_at = float("-inf")
        self._receive_ended = False
        self._send_ended = False
        self._discarding = False
        self._changed = trio.lowlevel.ParkingLot()

    async def receive_some(self, max_bytes: int) -> bytes:
        """Return what has arrived, up to `max_bytes`; b"" when the peer has ended its direction.

        Raises:
            MuxedStreamReset: the peer gave up the stream, or the connection broke.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._chunks:
            if self.is_reset:
                raise MuxedStreamReset("the stream was reset")
            if self._receive_ended:
                return b""
            await self._changed.park()
        data = self._chunks.popleft()
        if len(data) > max_bytes:
            self._chunks.appendleft(data[max_bytes:])
            data = data[:max_bytes]
        self._account(len(data))
        if self._read_since_yield >= READ_BYTES_PER_TURN:
            self._read_since_yield = 0
            await trio.lowlevel.cancel_shielded_checkpoint()
        return data

    def _account(self, read_bytes: int) -> None:
        """Allow the peer to send more, half a window at a time."""
        self._read_since_yield += read_bytes
        self._read_bytes += read_bytes
        if self._read_bytes < self._window_bytes // 2 or self._receive_ended:
            return
        now = trio.current_time()
        increment = self._read_bytes
        if now - self._updated_at < GROW_WITHIN_S and self._window_bytes < self.window_bytes_max:
            increment += self._window_bytes
            self._window_bytes *= 2
        self._updated_at = now
        self._read_bytes = 0
        self._receive_window_bytes += increment
        self.muxed_conn.post(FrameType.WINDOW_UPDATE, Flag.NONE, self.stream_id, increment)

    async def send(self, pieces: Sequence[Buffer]) -> None:
        """Send all pieces, one after another. Where this is cancelled, abort the stream: nobody knows what
        went.

        Raises:
            MuxedStreamClosed: this direction was ended here.
            MuxedStreamReset: the peer gave up the stream, or the connection broke.
        """
        await self.muxed_conn.send(self, pieces)

    async def send_some(self, data: memoryview) -> int:
        """Send the beginning of `data`, at least a byte; return how much. Cancelled: none went. Errors: as `send`."""
        return await self.muxed_conn.send_some(self, data)

    def send_now(self, pieces: Sequence[Buffer]) -> bool:
        """Send all pieces without waiting. False: that cannot be done, and nothing was sent. Errors: as `send`."""
        return self.muxed_conn.send_now(self, pieces)

    def send_some_now(self, data: memoryview) -> int:
        """Send the beginning of `data` without waiting; return how much went, which may be none. Errors: as `send`."""
        self.check_may_send()
        size = min(len(data), self.send_window_bytes, NOW_BYTES_MAX)
        return size if size and self.muxed_conn.send_now(self, [data[:size]]) else 0

    def frames(self, bodies: Bodies, limit_bytes: int) -> Iterator[list[Buffer]]:
        """Yield frames with what the window allows of the bodies, each made when it is asked for."""
        for _ in range(-(-limit_bytes // BODY_BYTES_MAX)):
            # It may be reset while earlier records leave: raising here would lose what other streams have waiting.
            size = 0 if self.is_reset else min(BODY_BYTES_MAX, self.send_window_bytes, bodies.left_bytes)
            if not size:
                return
            self.send_window_bytes -= size
            yield [pack(FrameType.DATA, Flag.NONE, self.stream_id, size), *bodies.take(size)]

    async def wait_for_window(self) -> None:
        """Wait until something may be sent.

        Raises:
            MuxedStreamClosed, MuxedStreamReset: it never may.
        """
        self.check_may_send()
        while not self.send_window_bytes:
            await self._changed.park()
            self.check_may_send()

    def check_may_send(self) -> None:
        if self.is_reset:
            raise MuxedStreamReset("the stream was reset")
        if self._send_ended:
            raise MuxedStreamClosed("the stream was ended here")

    async def wait_for_end(self) -> None:
        """Drop what still arrives until the peer has ended its direction too."""
        self._discarding = True
        while self._chunks:
            self._account(len(self._chunks.popleft()))
        while not (self._receive_ended or self.is_reset):
            await self._changed.park()

    def end(self) -> None:
        """End this direction after what was sent."""
        if not (self._send_ended or self.is_reset):
            self._send_ended = True
            self.muxed_conn.post(FrameType.WINDOW_UPDATE, Flag.FIN, self.stream_id, 0)
            self._settle()

    def abort(self) -> None:
        """Give up both directions at once."""
        if not (self.is_reset or (self._send_ended and self._receive_ended)):
            self.muxed_conn.post(FrameType.WINDOW_UPDATE, Flag.RST, self.stream_id, 0)
        self.peer_reset()

    # What the connection tells.

    def peer_sent(self, data: bytes) -> None:
        self._receive_window_bytes -= len(data)
        if self._receive_window_bytes < 0:
            raise WindowExceeded
        if self._receive_ended or self.is_reset:
            return
        if self._discarding:
            self._account(len(data))
            return
        self._chunks.append(data)
        self._changed.unpark_all()

    def peer_allows(self, increment_bytes: int) -> None:
        self.send_window_bytes += increment_bytes
        self._changed.unpark_all()

    def peer_ended(self) -> None:
        self._receive_ended = True
        self._settle()

    def peer_reset(self) -> None:
        self.is_reset = True
        self._settle()

    def _settle(self) -> None:
        self._changed.unpark_all()
        if self.is_reset or (self._send_ended and self._receive_ended):
            self._on_ended(self)

    # What libp2p calls while it negotiates, and when it closes.

    async def read(self, n: int | None = None) -> bytes:
        data = await self.receive_some(min(n or NEGOTIATION_READ_BYTES_MAX, NEGOTIATION_READ_BYTES_MAX))
        if not data:
            raise MuxedStreamEOF("the peer ended the stream")
        return data

    async def write(self, data: bytes) -> None:
        await self.send([data])

    async def close(self) -> None:
        self.end()
        await trio.lowlevel.checkpoint()

    async def reset(self) -> None:
        self.abort()
        await trio.lowlevel.checkpoint()

    async def __aenter__(self) -> YamuxStream:
        return self

    def set_deadline(self, ttl: int) -> None:
        raise NotImplementedError("time-outs are the caller's cancel scopes")

    def get_remote_address(self) -> tuple[str, int] | None:
        return self.muxed_conn.get_remote_address()
