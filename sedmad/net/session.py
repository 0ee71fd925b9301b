"""What two nodes share above connections: a session carries calls over one stream after another.

A stream that breaks takes nothing with it: calls wait, frames that were not acknowledged go out again on the
next stream. Whoever owns the session (sessions.py) opens and accepts streams and hands them to `carry`.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog
import trio

from sedmad.errors import FrameInvalid, NodeUnreachable, ProtocolViolation, SessionLost, first_known
from sedmad.net.certificates import VerifiedCertificate
from sedmad.net.channel import Channel
from sedmad.net.hello import send_hello
from sedmad.net.stream import ByteStream
from sedmad.wire.frame import Buffer, Frame, FrameDecoder, Priority, encode
from sedmad.wire.messages import SessionHello
from sedmad.wire.pacing import SLOWEST_BYTES_PER_S
from sedmad.wire.resend import ResendWindow

log = structlog.get_logger("sedmad.net")

# Every session is probed once a second: silence this long means a connection that nobody holds any more.
SILENCE_S = 15.0
# The other side has stopped reading, where it takes less than SLOWEST_BYTES_PER_S for so long.
WRITE_STALL_S = 10.0
# Giving up a stream is a matter of a frame; it must not hold a session that ends.
RESET_S = 2.0
# Small frames are written together up to this, so that an answer and an acknowledgement cost one packet.
COALESCE_BYTES = 32 << 10
READ_BYTES = 256 << 10


class Session:
    """One peer's session.

    Args:
        peer_id: the other node.
        channel: the calls it carries.
        session_id: random, not 0.
        on_link: called with True when a stream begins to carry the session, again when another takes its
            place, and
            with False when none carries it any more.

    Attributes:
        certificate: what the peer showed last.
        window: numbers its frames.
        stream: what carries it now; None if nothing does.
        opened_here: whether this side opened that stream.
        carried_since: since when, on trio's clock.
        heard_at: when something arrived last.
        detached_at: since when no stream carries it; None while one does.
        detached: set while no stream carries it.
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
        self.heard_at = float("-inf")
        self.detached_at: float | None = trio.current_time()
        self.detached = trio.Event()
        self.detached.set()
        self._serving = trio.CancelScope()
        # Set where something has arrived that was not acknowledged yet.
        self._untold = trio.Event()
        # Around what the present stream does.
        self._scope = trio.CancelScope()

    @property
    def is_attached(self) -> bool:
        """Whether a stream carries it now."""
        return self.stream is not None

    @property
    def path(self) -> str:
        """How bytes go now: direct, punched, webrtc, relayed; empty without a stream."""
        return self.stream.path if self.stream else ""

    async def serve(self) -> None:
        """Run handlers for the peer's calls until the session is closed."""
        with self._serving:
            await self.channel.serve()

    def detach(self) -> None:
        """Give up the stream under way; the next one takes its place."""
        self._scope.cancel()

    async def carry(
        self,
        stream: ByteStream,
        hello: SessionHello,
        *,
        opened_here: bool,
        answer: Callable[[], SessionHello] | None = None,
    ) -> None:
        """Carry the session over a stream until it breaks or another takes its place; the stream is reset
        then.

        It is attached before anything is awaited: between the peer's hello and this, nothing else may happen
            to the session.

        Args:
            stream: what the hello arrived on.
            hello: the peer's.
            opened_here: whether this side opened the stream and has said its hello.
            answer: where it did not, gives this side's hello, once the session is attached.

        Raises:
            FrameInvalid, ProtocolViolation: the peer broke the format.
        """
        violation = None
        try:
            scope = self._attach(stream, hello, opened_here)
            with scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write, stream, scope, answer() if answer else None)
                    nursery.start_soon(self._acknowledge)
                    await self._read(stream, scope)
        except* NodeUnreachable as group:
            log.debug("stream_broken", peer=self.peer_id, why=str(first_known(group)))
        except* (FrameInvalid, ProtocolViolation) as group:
            violation = first_known(group)
        finally:
            if self.stream is stream:
                self._release()
            with trio.CancelScope(deadline=trio.current_time() + RESET_S, shield=True):
                await stream.reset()
        if violation is not None:
            raise violation

    def _attach(self, stream: ByteStream, hello: SessionHello, opened_here: bool) -> trio.CancelScope:
        goes_on = self.window.attach(hello, opened_here=opened_here)
        self.detach()
        if not goes_on:
            self.channel.forget_calls()
        self.stream, self.opened_here = stream, opened_here
        self.carried_since, self.detached_at = trio.current_time(), None
        if self.detached.is_set():
            self.detached = trio.Event()
        self._scope = trio.CancelScope()
        self._on_link(True)
        return self._scope

    def _release(self) -> None:
        self.stream = None
        self.detached_at = trio.current_time()
        log.info(
            "stream_ended",
            peer=self.peer_id,
            session=f"{self.window.session_id:016x}",
            carried_s=round(self.detached_at - self.carried_since, 3),
            # Of the session so far: what its streams took with them costs the difference.
            sent_bytes=self.window.sent_bytes,
            resent_bytes=self.window.resent_bytes,
        )
        self.detached.set()
        self._on_link(False)

    async def _read(self, stream: ByteStream, scope: trio.CancelScope) -> None:
        decoder = FrameDecoder()
        with trio.CancelScope() as silence:
            while True:
                self.heard_at = trio.current_time()
                silence.deadline = self.heard_at + SILENCE_S
                data = await stream.receive_some(READ_BYTES)
                # What was read at the moment when another stream took over counts as lost; it comes again there.
                if not data or scope.cancel_called:
                    break
                for frame in decoder.receive_data(data):
                    if self.window.accept(frame, trio.current_time()):
                        self.channel.deliver(frame)
                due = self.window.next_timeout()
                if self.channel.has_frames or (due is not None and due <= trio.current_time()):
                    # There is room for more bulk, or an acknowledgement to send.
                    self.channel.wake()
                elif due is not None:
                    self._untold.set()
        scope.cancel()

    async def _acknowledge(self) -> None:
        """Wake the writer when an acknowledgement is due that rode on nothing else."""
        while True:
            await self._untold.wait()
            self._untold = trio.Event()
            while (due := self.window.next_timeout()) is not None:
                if due <= trio.current_time():
                    self.channel.wake()
                    break
                await trio.sleep_until(due)

    async def _write(self, stream: ByteStream, scope: trio.CancelScope, answer: SessionHello | None) -> None:
        if answer is not None:
            await send_hello(stream, answer)
        while True:
            pieces = self._next_pieces()
            if not pieces:
                await self.channel.wait_for_frames()
                continue
            if stream.send_now(pieces):
                if self.channel.has_frames:
                    await trio.lowlevel.checkpoint()
                continue
            limit_s = WRITE_STALL_S + sum(map(len, pieces)) / SLOWEST_BYTES_PER_S
            with trio.move_on_after(limit_s) as stall:
                await stream.send_all(pieces)
            if stall.cancelled_caught:
                scope.cancel()
                return

    def _next_pieces(self) -> list[Buffer]:
        pieces: list[Buffer] = []
        size_bytes = 0
        while size_bytes < COALESCE_BYTES and (frame := self._next_frame()) is not None:
            pieces += encode(frame)
            size_bytes += frame.size_bytes
        return pieces

    def _next_frame(self) -> Frame | None:
        """Return what leaves next: probes, then what is sent again, then the rest as far as it may."""
        now = trio.current_time()
        if (frame := self.channel.take(Priority.PROBE)) is not None:
            return self.window.stamp(frame, now)
        if (frame := self.window.next_replay()) is not None:
            return frame
        if (
            frame := self.channel.take(self.window.allowed(), self.window.bulk_payload_bytes_max)
        ) is not None:
            return self.window.stamp(frame, now)
        return self.window.acknowledgement(now)

    def close(self) -> None:
        """End the session: the peer is gone, or this node stops."""
        self.detach()
        self._serving.cancel()
        name = self.channel.remote_name
        self.channel.close(SessionLost(f"the session with {name} ended", node=name))
