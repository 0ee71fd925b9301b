"""Calls for coroutines, over whatever carries frames: a control socket, or a session with a peer.

The channel knows no streams. Whoever drives it delivers the frames that arrive (`deliver`) and writes the frames that
wait (`take`, `wait_for_frames`); `serve` runs the handlers of the other side's calls.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
import trio
from google.protobuf.message import DecodeError, Message

from sedmad.errors import LocalError, NotPermitted, ProtocolViolation, SedmadError, SessionLost
from sedmad.net.calls import IncomingCall, OutgoingCall, deadline_exceeded
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
from sedmad.wire.frame import PAYLOAD_BYTES_MAX, Buffer, Frame, Priority
from sedmad.wire.methods import Method, MethodTable
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
        self.methods = methods
        self.remote = remote
        self.remote_name = remote_name
        self.on_message = on_message
        self._calls = Calls()
        self._outbox = Outbox()
        self._outgoing: dict[int, OutgoingCall] = {}
        self._incoming: dict[int, IncomingCall] = {}
        self._nursery: trio.Nursery | None = None
        self._closed: SedmadError | None = None
        self._frames_waiting = trio.Event()
        self._senders = trio.lowlevel.ParkingLot()

    @property
    def outgoing_count(self) -> int:
        """Calls that began here and have no answer yet."""
        return len(self._outgoing)

    @property
    def has_frames(self) -> bool:
        """Whether something waits for the writer."""
        return len(self._outbox) > 0

    async def serve(self) -> None:
        """Run handlers for the other side's calls until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await trio.sleep_forever()

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
            payload: of any length; goes out in chunks.
            into: where the response's payload belongs; it must fill it exactly.

        Raises:
            DeadlineExceeded: no answer by the deadline.
            SedmadError: what the other side answered with.
        """
        view = memoryview(payload)
        first, rest = view[:PAYLOAD_BYTES_MAX], len(view) > PAYLOAD_BYTES_MAX
        async with self.open_call(method, message, deadline=deadline, payload=first, end=not rest) as call:
            if rest:
                await call.send_all(view, PAYLOAD_BYTES_MAX)
            return await call.finish(into)

    @asynccontextmanager
    async def open_call(
        self, method: str, message: Message, *, deadline: float, payload: Buffer = b"", end: bool = True
    ) -> AsyncIterator[OutgoingCall]:
        """Begin a call whose payload or response streams. Leaving before its response cancels it."""
        if self._closed is not None:
            raise self._closed
        remaining_s = deadline - trio.current_time()
        if remaining_s <= 0:
            raise deadline_exceeded(method, self.remote_name)
        call_id = self._calls.start(
            method,
            message.SerializeToString(),
            remaining_ms=max(1, min(int(min(remaining_s, 1e9) * 1000), REMAINING_MS_MAX)),
            payload=payload,
            end=end,
        )
        call = self._outgoing[call_id] = OutgoingCall(self, call_id, method)
        self._flush()
        try:
            with trio.CancelScope(deadline=deadline) as scope:
                yield call
            if scope.cancelled_caught:
                raise deadline_exceeded(method, self.remote_name)
        finally:
            del self._outgoing[call_id]
            self._calls.cancel(call_id)
            self._flush()

    def send_message(self, method: str, message: bytes) -> None:
        """Send a one-way message; it is lost where nothing carries it."""
        if self._closed is None and self._outbox.has_room(Priority.PROBE):
            self._calls.send_message(method, message)
            self._flush()

    def close(self, error: SedmadError) -> None:
        """End every call: those that began here raise `error`, those of the other side are cancelled."""
        self._closed = error
        for outgoing in self._outgoing.values():
            outgoing.deliver(error)
        for incoming in self._incoming.values():
            incoming.scope.cancel()
        self._outbox.clear()
        self._senders.unpark_all()

    def forget_calls(self) -> None:
        """End every call because the other side has forgotten them; the channel goes on."""
        error = SessionLost(f"{self.remote_name} was restarted in mid-call", node=self.remote_name)
        self.close(error)
        self._closed = None
        self._calls = Calls()
        for incoming in self._incoming.values():
            incoming.forgotten = True
        self._incoming = {}

    # What the driver calls.

    def take(self, allowed: Priority = Priority.BULK) -> Frame | None:
        """Return the next frame to write, or None."""
        frame = self._outbox.take(allowed)
        if frame is None:
            if self._frames_waiting.is_set():
                self._frames_waiting = trio.Event()
        elif self._senders:
            self._senders.unpark_all()
        return frame

    async def wait_for_frames(self) -> None:
        """Wait until something is queued, or `wake` is called."""
        await self._frames_waiting.wait()

    def wake(self) -> None:
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
                if self.on_message is not None:
                    self.on_message(event.method, event.message)
        self._flush()

    # What calls call.

    async def wait_to_send(self, call_id: int, payload_bytes: int, method: str, *, outgoing: bool) -> None:
        """Wait until the call has credit for a chunk and the outbox has room for it."""
        priority = priority_of(method)
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._calls.is_open(call_id, outgoing=outgoing) and not (
            self._outbox.has_room(priority)
            and self._calls.credit(call_id, outgoing=outgoing) >= payload_bytes
        ):
            await self._senders.park()

    def send_request(
        self, call_id: int, payload: Buffer, *, offset: int, end: bool, payload_digest: bytes
    ) -> None:
        self._calls.send_request(call_id, payload, offset=offset, end=end, payload_digest=payload_digest)
        self._flush()

    def send_response(
        self, call_id: int, message: bytes, payload: Buffer, *, offset: int, payload_digest: bytes
    ) -> None:
        self._calls.send_response(call_id, message, payload, offset=offset, payload_digest=payload_digest)
        self._flush()

    def respond(self, call_id: int, message: bytes, payload: Buffer, *, offset: int) -> None:
        self._calls.respond(call_id, message, payload, offset=offset)
        self._flush()

    def consume(self, call_id: int, consumed_bytes: int, *, outgoing: bool) -> None:
        self._calls.consume(call_id, consumed_bytes, outgoing=outgoing)
        self._flush()

    def _flush(self) -> None:
        frames = self._calls.collect()
        for frame in frames:
            self._outbox.put(frame)
        if frames:
            self._frames_waiting.set()

    def _begin(self, event: RequestReceived) -> None:
        if self._nursery is None:
            raise LocalError("a call arrived before the channel was served")
        remaining_s = event.remaining_ms / 1000 if event.remaining_ms else float("inf")
        call = IncomingCall(self, event.call_id, event.method, trio.current_time() + remaining_s)
        call.deliver(RequestData(event.call_id, 0, event.payload, event.payload_digest, event.end))
        self._incoming[event.call_id] = call
        self._nursery.start_soon(self._handle, call, event.message)

    async def _handle(self, call: IncomingCall, encoded: bytes) -> None:
        error: SedmadError | None = None
        try:
            with call.scope:
                error = await self._answer(call, encoded)
            if call.scope.cancelled_caught:
                error = deadline_exceeded(call.method, "this node")
        finally:
            if not call.forgotten:
                self._incoming.pop(call.call_id, None)
        if error is not None and not call.forgotten:
            self._calls.respond(call.call_id, status=to_status(error))
            self._flush()

    async def _answer(self, call: IncomingCall, encoded: bytes) -> SedmadError | None:
        method = self.methods.get(call.method)
        if method is None:
            return NotPermitted(f"there is no method {call.method[:100]!r} here")
        try:
            request = _parse(method, encoded)
            await call.respond(await method.handler(request, call))
        except SedmadError as error:
            return error
        except ExceptionGroup as group:
            if known := first_known(group):
                return known
            log.exception("handler_failed", method=call.method, remote=self.remote)
            return LocalError(f"{call.method.rpartition('/')[2]} failed", why=str(group))
        except Exception as error:
            # The last resort: a bug in a handler is told to the asker and the log, and ends nothing else.
            log.exception("handler_failed", method=call.method, remote=self.remote)
            return LocalError(
                f"{call.method.rpartition('/')[2]} failed", why=f"{type(error).__name__}: {error}"
            )
        return None


def first_known(group: BaseExceptionGroup[BaseException]) -> SedmadError | None:
    """Return the first typed error in a group, as tasks that ran side by side raise them; None where there is none."""
    for error in group.exceptions:
        if isinstance(error, SedmadError):
            return error
        if isinstance(error, BaseExceptionGroup) and (found := first_known(error)):
            return found
    return None


def _parse(method: Method, encoded: bytes) -> Message:
    request = method.request_class()
    try:
        request.ParseFromString(encoded)
    except DecodeError as error:
        raise ProtocolViolation("the request is malformed", why=str(error)) from error
    return request
