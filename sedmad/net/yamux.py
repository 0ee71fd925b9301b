"""Yamux over a Noise session: many streams over one connection, wire-compatible with libp2p's own muxer.

Written anew because libp2p 0.8.1's muxer does not enforce windows (a stranger fills the memory), hangs at the
256th stream, breaks a stream after five seconds of a full window, and takes four times the processor time per
byte (scripts/bench/transport.py --stock).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import structlog
import trio
from cryptography.exceptions import InvalidTag
from libp2p.abc import ConnectionType, IMuxedConn
from libp2p.io.exceptions import ConnectionClosedError, IOException
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamReset
from multiaddr import Multiaddr

from sedmad.net.noise import PLAINTEXT_BYTES_MAX, NoiseSession
from sedmad.net.pipe import Pipe
from sedmad.net.rate_limit import RateLimit
from sedmad.net.yamux_frame import HEADER, VERSION, Bodies, Flag, Frames, FrameType, pack, records
from sedmad.net.yamux_stream import BODY_BYTES_MAX, WindowExceeded, YamuxStream, YamuxViolation
from sedmad.wire.frame import Buffer

log = structlog.get_logger("sedmad.net")

# Written at once: long enough to amortise a system call, short enough that others wait 3 ms at 80 MB/s.
WRITE_BYTES_MAX = 4 * BODY_BYTES_MAX
# Written without a turn of the event loop in between: a joined panel of 24 columns of 4096 float32, in 0.4 ms.
SEND_NOW_BYTES_MAX = 512 << 10
# Session, join and what comes with relays and punching need a handful; libp2p peers accept 256.
OUTBOUND_STREAMS_MAX = 200
INBOUND_STREAMS_MAX = 256
# Answers to a peer that sends and does not read.
CONTROL_BYTES_MAX = 64 << 10
# A peer that does not take a byte for so long is gone.
SEND_STALL_S = 30.0
GOODBYE_S = 0.25

_failures = RateLimit(rate_per_s=0.1, burst=10)


class YamuxConnection(IMuxedConn):
    """A connection of streams.

    Args:
        conn: the Noise session.
        peer_id: who is at the other end.

    Attributes:
        idle_since: trio's time since when there has been no stream; None while there is one.
    """

    def __init__(self, conn: NoiseSession, peer_id: ID) -> None:
        self.secured_conn = conn
        self.peer_id = peer_id
        self.event_started = trio.Event()
        self.idle_since: float | None = trio.current_time()
        self._streams: dict[int, YamuxStream] = {}
        self._next_stream_id = 1 if conn.is_initiator else 2
        self._outbound = trio.Semaphore(OUTBOUND_STREAMS_MAX)
        self._inbound_count = 0
        self._accept_send, self._accept_receive = trio.open_memory_channel[YamuxStream](INBOUND_STREAMS_MAX)
        self._write_lock = trio.Lock()
        self._control = bytearray()
        self._control_waits = trio.Event()
        self._closed = False
        # The frame that is arriving: a header in part, then a body for a stream (None: of a stream that is no
        # more).
        self._partial_header = b""
        self._body_left = 0
        self._body_flags = Flag.NONE
        self._body_stream: YamuxStream | None = None

    @property
    def is_initiator(self) -> bool:
        return self.secured_conn.is_initiator

    @property
    def is_established(self) -> bool:
        return self.event_started.is_set() and not self._closed

    @property
    def is_closed(self) -> bool:
        return self._closed

    @property
    def pipe(self) -> Pipe:
        """What carries it."""
        return self.secured_conn.pipe

    def get_remote_address(self) -> tuple[str, int] | None:
        return self.secured_conn.get_remote_address()

    def get_transport_addresses(self) -> list[Multiaddr]:
        return self.secured_conn.get_transport_addresses()

    def get_connection_type(self) -> ConnectionType:
        return self.secured_conn.get_connection_type()

    async def start(self) -> None:
        """Carry the streams until the connection ends; the swarm runs this in a task of its own."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write_control, nursery.cancel_scope)
                self.event_started.set()
                await self._receive()
                nursery.cancel_scope.cancel()
        except Exception:
            # Whatever a stranger's bytes led to must not end the swarm, in whose task this runs.
            if _failures.allow(trio.current_time()):
                log.exception("connection_failed", peer=str(self.peer_id))
        finally:
            self._end()
            self.secured_conn.abort()

    async def close(self) -> None:
        """Say goodbye and close; streams that are open break."""
        if self._closed:
            return
        with trio.move_on_after(GOODBYE_S) as goodbye:
            goodbye.shield = True
            self.post(FrameType.GO_AWAY, Flag.NONE, 0, 0)
            try:
                await self._write([])
            except IOException:
                log.debug("goodbye_failed", peer=str(self.peer_id))
        self._end()
        self.secured_conn.abort()

    def _end(self) -> None:
        self._closed = True
        self._accept_send.close()
        for stream in list(self._streams.values()):
            stream.peer_reset()

    # Streams.

    async def open_stream(self) -> YamuxStream:
        """Begin a stream; waits where OUTBOUND_STREAMS_MAX are open.

        Raises:
            MuxedConnUnavailable: the connection has ended.
        """
        await self._outbound.acquire()
        if self._closed:
            self._outbound.release()
            raise MuxedConnUnavailable("the connection has ended")
        stream = YamuxStream(self, self._next_stream_id, self._forget_outbound)
        self._next_stream_id += 2
        self._add(stream)
        self.post(FrameType.WINDOW_UPDATE, Flag.SYN, stream.stream_id, 0)
        return stream

    async def accept_stream(self) -> YamuxStream:
        """Return the next stream that the peer began.

        Raises:
            MuxedConnUnavailable: the connection has ended.
        """
        try:
            return await self._accept_receive.receive()
        except trio.EndOfChannel:
            raise MuxedConnUnavailable("the connection has ended") from None

    def _add(self, stream: YamuxStream) -> None:
        self._streams[stream.stream_id] = stream
        self.idle_since = None

    def _forget_outbound(self, stream: YamuxStream) -> None:
        if self._forget(stream):
            self._outbound.release()

    def _forget_inbound(self, stream: YamuxStream) -> None:
        if self._forget(stream):
            self._inbound_count -= 1

    def _forget(self, stream: YamuxStream) -> bool:
        if self._streams.pop(stream.stream_id, None) is None:
            return False
        if not self._streams:
            self.idle_since = trio.current_time()
        return True

    # Sending.

    def post(self, frame_type: FrameType, flags: int, stream_id: int, length: int) -> None:
        """Send a frame without a body soon, in its order among what is sent later."""
        if self._closed:
            return
        self._control += pack(frame_type, flags, stream_id, length)
        self._control_waits.set()
        if len(self._control) > CONTROL_BYTES_MAX:
            log.debug("peer_does_not_read", peer=str(self.peer_id))
            self.secured_conn.abort()

    async def send(self, stream: YamuxStream, pieces: Sequence[Buffer]) -> None:
        """Send pieces on a stream as its window allows. Errors: see `YamuxStream.send`."""
        bodies = Bodies(pieces)
        with trio.CancelScope() as stall:
            while bodies.left_bytes:
                stall.deadline = trio.current_time() + SEND_STALL_S
                await stream.wait_for_window()
                try:
                    await self._write(stream.frames(bodies, WRITE_BYTES_MAX))
                except IOException as error:
                    raise MuxedStreamReset(f"the connection broke: {error}") from error
        if stall.cancelled_caught:
            raise MuxedStreamReset(f"the peer took nothing for {SEND_STALL_S:.0f} s")

    async def send_some(self, stream: YamuxStream, data: memoryview) -> int:
        """Send the beginning of `data` as the window allows, at least a byte; return how many bytes went.

        Where this is cancelled, none went. Errors: see `YamuxStream.send`.
        """
        with trio.move_on_after(SEND_STALL_S):
            await stream.wait_for_window()
            try:
                async with self._write_lock:
                    await self.secured_conn.flush()
                    stream.check_may_send()
                    # What is sealed counts as sent: from here on nothing is awaited.
                    size = min(len(data), stream.send_window_bytes, SEND_NOW_BYTES_MAX)
                    self.secured_conn.seal(self._take_records(stream.frames(Bodies([data[:size]]), size)))
                    self._flush_soon()
                    return size
            except IOException as error:
                raise MuxedStreamReset(f"the connection broke: {error}") from error
        raise MuxedStreamReset(f"the peer took nothing for {SEND_STALL_S:.0f} s")

    def _flush_soon(self) -> None:
        """Send what the connection takes now; the rest leaves with what is sent next, or by itself."""
        if not self.secured_conn.flush_now():
            self._control_waits.set()

    def send_now(self, stream: YamuxStream, pieces: Sequence[Buffer]) -> bool:
        """Send pieces without waiting. False: something is in the way, nothing was sent. Errors: as `send`."""
        bodies = Bodies(pieces)
        if bodies.left_bytes > min(stream.send_window_bytes, SEND_NOW_BYTES_MAX) or self._write_lock.locked():
            return False
        try:
            if not self.secured_conn.flush_now():
                return False
            stream.check_may_send()
            self.secured_conn.seal(self._take_records(stream.frames(bodies, SEND_NOW_BYTES_MAX)))
            self._flush_soon()
        except IOException as error:
            raise MuxedStreamReset(f"the connection broke: {error}") from error
        return True

    async def _write(self, frames: Frames) -> None:
        """Write what waits, then frames, which are made only when nothing that was begun is unsent."""
        async with self._write_lock:
            await self.secured_conn.flush()
            self.secured_conn.seal(self._take_records(frames))
            await self.secured_conn.flush()

    def _take_records(self, frames: Frames) -> Iterator[bytes]:
        control, self._control = bytes(self._control), bytearray()
        return records(control, frames, PLAINTEXT_BYTES_MAX)

    async def _write_control(self, scope: trio.CancelScope) -> None:
        try:
            while True:
                await self._control_waits.wait()
                self._control_waits = trio.Event()
                await self._write([])
        except IOException as error:
            log.debug("connection_broke", peer=str(self.peer_id), why=str(error))
            scope.cancel()

    # Receiving.

    async def _receive(self) -> None:
        try:
            while True:
                for data in await self.secured_conn.receive():
                    self._take(data)
        except (IOException, YamuxViolation, WindowExceeded, InvalidTag) as error:
            log.debug("connection_ended", peer=str(self.peer_id), why=repr(error))

    def _take(self, data: bytes) -> None:
        start, end = 0, len(data)
        while start < end:
            if self._body_left:
                stop = min(end, start + self._body_left)
                self._body_left -= stop - start
                if self._body_stream is not None:
                    self._body_stream.peer_sent(data[start:stop])
                start = stop
                if not self._body_left:
                    self._apply_end(self._body_stream, self._body_flags)
                continue
            stop = start + HEADER.size - len(self._partial_header)
            header = self._partial_header + data[start:stop]
            start = stop
            if len(header) < HEADER.size:
                self._partial_header = header
                return
            self._partial_header = b""
            self._take_header(*HEADER.unpack(header))

    def _take_header(self, version: int, frame_type: int, flags: int, stream_id: int, length: int) -> None:
        if version != VERSION:
            raise YamuxViolation(f"version {version}")
        if frame_type == FrameType.PING:
            if flags & Flag.SYN:
                self.post(FrameType.PING, Flag.ACK, 0, length)
            return
        if frame_type == FrameType.GO_AWAY:
            raise ConnectionClosedError("the peer said goodbye")
        if frame_type not in (FrameType.DATA, FrameType.WINDOW_UPDATE):
            raise YamuxViolation(f"frame type {frame_type}")
        if flags & Flag.SYN:
            self._accept(stream_id)
        stream = self._streams.get(stream_id)
        if frame_type == FrameType.DATA and length:
            self._body_left, self._body_flags, self._body_stream = length, Flag(flags & 0xF), stream
            return
        if stream is not None and frame_type == FrameType.WINDOW_UPDATE and length:
            stream.peer_allows(length)
        self._apply_end(stream, flags)

    def _accept(self, stream_id: int) -> None:
        if stream_id in self._streams or not stream_id or (stream_id % 2 == 1) == self.is_initiator:
            raise YamuxViolation(f"stream {stream_id} cannot be begun")
        if self._inbound_count >= INBOUND_STREAMS_MAX:
            self.post(FrameType.WINDOW_UPDATE, Flag.RST, stream_id, 0)
            return
        stream = YamuxStream(self, stream_id, self._forget_inbound)
        try:
            self._accept_send.send_nowait(stream)
        except trio.WouldBlock:
            # Streams that were begun and given up before anybody looked at them.
            self.post(FrameType.WINDOW_UPDATE, Flag.RST, stream_id, 0)
            return
        self._inbound_count += 1
        self._add(stream)
        self.post(FrameType.WINDOW_UPDATE, Flag.ACK, stream_id, 0)

    def _apply_end(self, stream: YamuxStream | None, flags: int) -> None:
        if stream is None:
            return
        if flags & Flag.RST:
            stream.peer_reset()
        elif flags & Flag.FIN:
            stream.peer_ended()
