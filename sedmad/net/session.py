"""What two nodes share above connections: a session carries calls over one stream after another.

A stream that breaks takes nothing with it: calls wait, frames that were not acknowledged go out again on the next
stream. Whoever owns the session (sessions.py) opens and accepts streams and hands them to `carry`.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from sedmad.errors import SessionLost
from sedmad.net.certificates import VerifiedCertificate
from sedmad.net.channel import Channel
from sedmad.net.stream import ByteStream
from sedmad.wire.frame import Frame, FrameDecoder, encode
from sedmad.wire.messages import SessionHello
from sedmad.wire.resend import ResendWindow

# Every session is probed once a second: silence this long means a connection that nobody holds any more.
SILENCE_S = 15.0
# The other side has stopped reading.
WRITE_STALL_S = 10.0
# Small frames are written together up to this, so that an answer and an acknowledgement cost one packet.
COALESCE_BYTES = 32 << 10
READ_BYTES = 256 << 10


class Session:
    """One peer's session.

    Args:
        peer_id: the other node.
        channel: the calls it carries.
        session_id: random, not 0.
        on_link: called with True when a stream begins to carry the session, with False when none does any more.
    """

    def __init__(
        self, peer_id: str, channel: Channel, session_id: int, on_link: Callable[[bool], None]
    ) -> None:
        self.peer_id = peer_id
        self.channel = channel
        self._on_link = on_link
        self.certificate: VerifiedCertificate | None = None
        self.window = ResendWindow(session_id)
        self.stream: ByteStream | None = None
        self.opened_here = False
        self.carried_since = float("-inf")
        self.detached_at: float | None = trio.current_time()
        self.detached = trio.Event()
        self.detached.set()
        # Around the task that serves the channel.
        self.serving = trio.CancelScope()
        self._generation = 0
        self._scope: trio.CancelScope | None = None

    @property
    def is_attached(self) -> bool:
        return self.stream is not None

    def detach(self) -> None:
        """Give up the stream under way; the next one takes its place."""
        if self._scope is not None:
            self._scope.cancel()

    async def carry(
        self, stream: ByteStream, hello: SessionHello, decoder: FrameDecoder, *, opened_here: bool
    ) -> None:
        """Carry the session over a stream, hellos done, until it breaks or another takes its place.

        Raises:
            FrameInvalid, ProtocolViolation: the peer broke the format; the stream is reset.
        """
        self.detach()
        self._generation += 1
        generation = self._generation
        if not self.window.attach(hello):
            self.channel.forget_calls()
        self.stream, self.opened_here = stream, opened_here
        self.carried_since, self.detached_at = trio.current_time(), None
        self.detached = trio.Event()
        try:
            self._on_link(True)
            with trio.CancelScope() as self._scope:
                scope = self._scope
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write, stream, generation)
                    try:
                        await self._read(stream, decoder, generation)
                    finally:
                        scope.cancel()
        finally:
            if self._generation == generation:
                self.stream, self._scope = None, None
                self.detached_at = trio.current_time()
                self.detached.set()
                self._on_link(False)
            with trio.CancelScope(shield=True):
                await stream.reset()

    async def _read(self, stream: ByteStream, decoder: FrameDecoder, generation: int) -> None:
        frames = decoder.receive_data(b"")
        while self._generation == generation:
            for frame in frames:
                if self.window.accept(frame, trio.current_time()):
                    self.channel.deliver(frame)
            # The writer has an acknowledgement to send, or room for more bulk.
            if self.window.next_timeout() is not None or self.channel.has_frames:
                self.channel.wake()
            with trio.move_on_after(SILENCE_S) as silence:
                data = await stream.receive_some(READ_BYTES)
            if silence.cancelled_caught or not data:
                return
            frames = decoder.receive_data(data)

    async def _write(self, stream: ByteStream, generation: int) -> None:
        while self._generation == generation:
            frame = self._next_frame()
            if frame is None:
                await self._wait()
                continue
            pieces = encode(frame)
            size_bytes = frame.size_bytes
            while size_bytes < COALESCE_BYTES and (frame := self._next_frame()) is not None:
                pieces += encode(frame)
                size_bytes += frame.size_bytes
            with trio.move_on_after(WRITE_STALL_S) as stall:
                await stream.send_all(pieces)
            if stall.cancelled_caught:
                self.detach()
                return

    def _next_frame(self) -> Frame | None:
        now = trio.current_time()
        if (replayed := self.window.next_replay()) is not None:
            return replayed
        frame = self.channel.take(self.window.allowed())
        if frame is not None:
            return self.window.stamp(frame, now)
        return self.window.acknowledgement(now)

    async def _wait(self) -> None:
        timeout = self.window.next_timeout()
        with trio.CancelScope(deadline=float("inf") if timeout is None else timeout):
            await self.channel.wait_for_frames()

    def close(self) -> None:
        """End the session: the peer is gone, or this node stops."""
        self.detach()
        name = self.channel.remote_name
        self.channel.close(SessionLost(f"the session with {name} ended", node=name))
