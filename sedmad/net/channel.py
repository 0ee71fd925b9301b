"""Calls for coroutines, over whatever carries frames: a control socket, or a session with a peer.

The channel knows no streams. Whoever drives it delivers the frames that arrive (`deliver`) and writes the
frames that wait (`take`, `wait_for_frames`); `serve` runs the handlers of the other side's calls.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
import trio
from google.protobuf.message import Message

from sedmad.errors import ProtocolViolation, SedmadError, SessionLost
from sedmad.net.calls import IncomingCall, OutgoingCall, deadline_exceeded
from sedmad.net.handlers import Handlers
from sedmad.wire.calls import (
    CallCancelled,
    Calls,
    CreditReceived,
    MessageReceived,
    RequestData,
    RequestReceived,
    ResponseData,
    ResponseReceived,
)
from sedmad.wire.frame import PAYLOAD_BYTES_MAX, Buffer, Frame, Priority, flat
from sedmad.wire.methods import MethodTable
from sedmad.wire.outbox import Outbox
from sedmad.wire.priorities import priority_of
from sedmad.wire.status import to_status

log = structlog.get_logger("sedmad.net")

# A remaining time is a 32-bit number of milliseconds on the wire.
REMAINING_MS_MAX = 2**32 - 1


class Channel:
    """Calls with one other side.

    Args:
        methods: what the other side may ask here.
        remote: peer id of the other side; "" for a client on the control socket.
        remote_name: how errors call it.
        on_message: called with (method, message) for each one-way message.
    """

    def __init__(
        self,
        methods: MethodTable,
        remote: str = "",
        remote_name: str = "the daemon",
        on_message: Callable[[str, bytes], None] | None = None,
    ) -> None:
        self.remote = remote
        self.remote_name = remote_name
        self.on_message = on_message
        self._calls = Calls()
        self._outbox = Outbox()
        self._outgoing: dict[int, OutgoingCall] = {}
        self._incoming: dict[int, IncomingCall] = {}
        self._closed: SedmadError | None = None
        self._frames_waiting = trio.Event()
        self._senders = trio.lowlevel.ParkingLot()
        self._handlers = Handlers(methods, remote, self._handled)

    @property
    def outgoing_count(self) -> int:
        """Calls that began here and have no answer yet."""
        return len(self._outgoing)

    @property
    def has_frames(self) -> bool:
        """Whether something waits for the writer."""
        return len(self._outbox) > 0

    @property
    def incoming_count(self) -> int:
        """Calls of the other side that are under way here."""
        return len(self._incoming)

    def end_requests(self) -> None:
        """The other side sends nothing more: cancel its calls whose requests are not complete."""
        for call in self._incoming.values():
            if not call.is_complete:
                call.scope.cancel()

    async def serve(self) -> None:
        """Run handlers for the other side's calls until cancelled."""
        await self._handlers.serve()

    async def call(
        self,
        method: str,
        message: Message,
        *,
        deadline: float,
        payload: Buffer = b"",
        into: memoryview | None = None,
    ) -> bytes:
        """Ask, and return the encoded response.

        Args:
            method: full name of a method of the contract.
            message: its request.
            deadline: trio's clock.
            payload: of any length; goes out in chunks, and stays as it is until the call has ended and for as
                long as a
                session may have to send it again: do not write into it afterwards.
            into: where the response's payload belongs; it must fill it exactly.

        Raises:
            DeadlineExceeded: no answer by the deadline.
            SedmadError: what the other side answered with.
        """
        view = flat(payload)
        first, rest = view[:PAYLOAD_BYTES_MAX], len(view) > PAYLOAD_BYTES_MAX
        async with self.open_call(method, message, deadline=deadline, payload=first, end=not rest) as call:
            if rest:
                await call.send_all(view, PAYLOAD_BYTES_MAX)
            return await call.finish(into)

    @asynccontextmanager
    async def open_call(
        self, method: str, message: Message, *, deadline: float, payload: Buffer = b"", end: bool = True
    ) -> AsyncIterator[OutgoingCall]:
        """Begin a call whose payload or response streams. Leaving before its response cancels it.

        Raises:
            DeadlineExceeded: the deadline passed inside.
            SedmadError: the channel is closed.
        """
        if deadline <= trio.current_time():
            raise deadline_exceeded(method, self.remote_name)
        with trio.CancelScope(deadline=deadline) as scope:
            await self.wait_for_room(method)
            if self._closed is not None:
                raise copy.copy(self._closed)
            remaining_ms = (deadline - trio.current_time()) * 1000
            call_id = self._calls.start(
                method,
                message.SerializeToString(),
                remaining_ms=int(max(1, min(remaining_ms, REMAINING_MS_MAX))),
                payload=flat(payload),
                end=end,
            )
            call = self._outgoing[call_id] = OutgoingCall(self, call_id, method)
            self._flush()
            try:
                yield call
            finally:
                del self._outgoing[call_id]
                self._calls.cancel(call_id)
                self._flush()
        if scope.cancelled_caught:
            raise deadline_exceeded(method, self.remote_name)

    def send_message(self, method: str, message: bytes) -> None:
        """Send a one-way message; it is lost where nothing carries it."""
        if self._closed is None and self._outbox.has_room(Priority.PROBE):
            self._calls.send_message(method, message)
            self._flush()

    def close(self, error: SedmadError) -> None:
        """End every call: those that began here raise `error`, those of the other side are cancelled."""
        self._closed = error
        self._end_calls(error)

    def forget_calls(self) -> None:
        """End every call because the other side has forgotten them; the channel goes on."""
        self._end_calls(SessionLost(f"{self.remote_name} was restarted in mid-call", node=self.remote_name))

    def _end_calls(self, error: SedmadError) -> None:
        for outgoing in self._outgoing.values():
            # Each task raises an error of its own: tracebacks grow on what is raised.
            outgoing.deliver(copy.copy(error))
        for incoming in self._incoming.values():
            incoming.forgotten = True
            incoming.scope.cancel()
        self._incoming = {}
        self._calls.forget()
        self._outbox.clear()
        self._senders.unpark_all()

    # What the driver calls.

    def take(
        self, allowed: Priority = Priority.BULK, bulk_payload_bytes_max: int = PAYLOAD_BYTES_MAX
    ) -> Frame | None:
        """Return the next frame to write, or None; longer chunks of bulk leave in several frames."""
        frame = self._outbox.take(allowed, bulk_payload_bytes_max)
        if frame is None:
            if self._frames_waiting.is_set():
                self._frames_waiting = trio.Event()
        elif self._senders:
            self._senders.unpark_all()
        return frame

    async def wait_for_frames(self) -> None:
        """Wait until something is queued after `take` returned None, or `wake` is called."""
        await self._frames_waiting.wait()

    def wake(self) -> None:
        """Let the writer look again: what it may send has changed."""
        self._frames_waiting.set()

    def deliver(self, frame: Frame) -> None:
        """Take a frame of the other side.

        Raises:
            ProtocolViolation: close what carries this channel.
        """
        event = self._calls.receive(frame)
        match event:
            case ResponseData() | ResponseReceived():
                if outgoing := self._outgoing.get(event.call_id):
                    outgoing.deliver(event)
                # Whoever still sends payload for a call that has its answer can stop.
                self._senders.unpark_all()
            case RequestReceived():
                self._begin(event)
            case RequestData():
                if incoming := self._incoming.get(event.call_id):
                    incoming.deliver(event)
            case CallCancelled():
                if incoming := self._incoming.get(event.call_id):
                    incoming.scope.cancel()
            case CreditReceived():
                self._senders.unpark_all()
            case MessageReceived():
                self._take_message(event)
        self._flush()

    def _take_message(self, event: MessageReceived) -> None:
        if self.on_message is None:
            return
        try:
            self.on_message(event.method, event.message)
        except Exception:
            # A bug behind one message is told to the log, and ends nothing else.
            log.exception("message_failed", method=event.method[:100], remote=self.remote)

    # What calls call.

    def is_open(self, call_id: int, *, outgoing: bool) -> bool:
        """Whether a call has not ended."""
        return self._calls.is_open(call_id, outgoing=outgoing)

    async def wait_for_room(self, method: str) -> None:
        """Wait until the outbox has room for a frame of a method, or the channel is closed."""
        await trio.lowlevel.checkpoint_if_cancelled()
        priority = priority_of(method)
        while self._closed is None and not self._outbox.has_room(priority):
            await self._senders.park()

    async def wait_to_send(
        self, call: OutgoingCall | IncomingCall, payload_bytes: int, *, outgoing: bool
    ) -> None:
        """Wait until the call has credit and the outbox room for a chunk, or the call has ended."""
        await trio.lowlevel.checkpoint_if_cancelled()
        priority = priority_of(call.method)
        while call.is_open and not (
            self._outbox.has_room(priority)
            and self._calls.credit(call.call_id, outgoing=outgoing) >= payload_bytes
        ):
            await self._senders.park()

    def send_request(
        self, call_id: int, payload: Buffer, *, offset: int, end: bool, payload_digest: bytes
    ) -> None:
        """Queue a further chunk of a call that began here."""
        self._calls.send_request(call_id, payload, offset=offset, end=end, payload_digest=payload_digest)
        self._flush()

    def send_response(
        self, call_id: int, message: bytes, payload: Buffer, *, offset: int, payload_digest: bytes
    ) -> None:
        """Queue a message or a chunk on the way to the response."""
        self._calls.send_response(call_id, message, payload, offset=offset, payload_digest=payload_digest)
        self._flush()

    def respond(self, call_id: int, message: bytes, payload: Buffer, *, offset: int) -> None:
        """Queue the response that ends a call of the other side."""
        self._calls.respond(call_id, message, payload, offset=offset)
        self._flush()

    def consume(self, call_id: int, consumed_bytes: int, *, outgoing: bool) -> None:
        """Give credit back for what has been used up."""
        self._calls.consume(call_id, consumed_bytes, outgoing=outgoing)
        self._flush()

    def _flush(self) -> None:
        frames = self._calls.collect()
        for frame in frames:
            self._outbox.put(frame)
        if frames:
            self._frames_waiting.set()

    def _begin(self, event: RequestReceived) -> None:
        if event.call_id in self._incoming:
            raise ProtocolViolation("the peer used a call id twice", why=f"call {event.call_id}")
        remaining_s = event.remaining_ms / 1000 if event.remaining_ms else float("inf")
        call = IncomingCall(self, event.call_id, event.method, trio.current_time() + remaining_s)
        call.deliver(RequestData(event.call_id, 0, event.payload, event.payload_digest, event.end))
        self._incoming[event.call_id] = call
        self._handlers.begin(call, event.message)

    def _handled(self, call: IncomingCall, error: SedmadError | None) -> None:
        """A handler has ended; it has responded itself where there is no error."""
        if call.forgotten:
            return
        del self._incoming[call.call_id]
        if error is not None:
            self._calls.respond(call.call_id, status=to_status(error))
            self._flush()
