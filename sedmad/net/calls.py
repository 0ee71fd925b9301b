"""One call as a coroutine sees it, from either end: `OutgoingCall` for the asker, `IncomingCall` for the
handler.

Payloads arrive in chunks; asking for the next one gives a chunk's credit back, so a slow reader slows its
sender and nobody else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio
from google.protobuf.message import Message

from sedmad.errors import DeadlineExceeded, ProtocolViolation, SedmadError
from sedmad.net.inbox import Inbox
from sedmad.wire.calls import RequestData, ResponseData, ResponseReceived
from sedmad.wire.frame import PAYLOAD_BYTES_MAX, Buffer, flat
from sedmad.wire.status import to_error

if TYPE_CHECKING:
    from sedmad.net.channel import Channel

# A handler that keeps the deadline itself knows better what was missing than whoever cancels it; the asker waits
# 0.25 s longer than it said.
LAST_WORD_S = 0.1


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of payload, or a message on the way, or both."""

    offset: int
    payload: Buffer
    payload_digest: bytes = b""
    message: bytes = b""


class OutgoingCall:
    """A call that began here. Iterate over what comes before the response, then take `response`.

    Attributes:
        response: the response's encoded message once it is there.
    """

    def __init__(self, channel: Channel, call_id: int, method: str) -> None:
        self.channel = channel
        self.call_id = call_id
        self.method = method
        self.response: bytes | None = None
        self._unconsumed_bytes = 0
        self._arrived: Inbox[ResponseData | ResponseReceived | SedmadError] = Inbox()

    @property
    def is_open(self) -> bool:
        """Whether the other side may still be told something."""
        return self.channel.is_open(self.call_id, outgoing=True)

    def deliver(self, event: ResponseData | ResponseReceived | SedmadError) -> None:
        """Take what arrived for this call, or the error that ends it.

        Raises:
            ProtocolViolation: more waits here than anybody may send.
        """
        if isinstance(event, ResponseData):
            self._arrived.put_one_of_many(event)
        else:
            self._arrived.put(event)

    async def send(
        self, payload: Buffer, offset: int, *, end: bool = False, payload_digest: bytes = b""
    ) -> None:
        """Send a chunk of at most 1 MiB when the other side has room for it; drop it if the call has ended.

        The payload stays as it is until the call has ended.
        """
        view = flat(payload)
        await self.channel.wait_to_send(self, len(view), outgoing=True)
        self.channel.send_request(self.call_id, view, offset=offset, end=end, payload_digest=payload_digest)

    async def send_all(self, payload: Buffer, offset: int) -> None:
        """Send the rest of a payload from `offset` on, and end it; stop early if the call has ended."""
        view = flat(payload)
        while offset < len(view) and self.is_open:
            stop = min(offset + PAYLOAD_BYTES_MAX, len(view))
            await self.send(view[offset:stop], offset, end=stop == len(view))
            offset = stop

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self

    async def __anext__(self) -> Chunk:
        """Return the next chunk until the response is there.

        Raises:
            SedmadError: what the other side answered with, or SessionLost.
        """
        self.channel.consume(self.call_id, self._unconsumed_bytes, outgoing=True)
        self._unconsumed_bytes = 0
        if self.response is not None:
            raise StopAsyncIteration
        event = await self._arrived.take()
        if isinstance(event, SedmadError):
            raise event
        if isinstance(event, ResponseData):
            self._unconsumed_bytes = len(event.payload)
            return Chunk(event.offset, event.payload, event.payload_digest, event.message)
        if event.status is not None:
            error = to_error(event.status)
            error.node = error.node or self.channel.remote_name
            raise error
        self.response = event.message
        if not len(event.payload):
            raise StopAsyncIteration
        return Chunk(event.offset, event.payload, event.payload_digest)

    async def finish(self, into: memoryview | None = None) -> bytes:
        """Wait for the response and return its message; its payload is written into `into`, which it must
        fill.

        Raises:
            ProtocolViolation: the payload is longer, shorter, or out of order.
            SedmadError: what the other side answered with, or SessionLost.
        """
        target = flat(b"" if into is None else into)
        received_bytes = 0
        async for chunk in self:
            stop = chunk.offset + len(chunk.payload)
            if chunk.offset != received_bytes or stop > len(target):
                raise self._violation("sent payload that nobody asked for", f"bytes {chunk.offset}-{stop}")
            target[chunk.offset : stop] = chunk.payload
            received_bytes = stop
        if received_bytes != len(target):
            raise self._violation("sent too little", f"{received_bytes} of {len(target)} bytes")
        assert self.response is not None
        return self.response

    def _violation(self, what: str, why: str) -> ProtocolViolation:
        name = self.channel.remote_name
        return ProtocolViolation(f"{name} {what}", why=why, node=name)


class IncomingCall:
    """A call of the other side, as its handler sees it.

    Attributes:
        deadline: trio's clock; the handler is cancelled soon after.
        scope: around the handler.
        forgotten: the other side was restarted: nobody waits for the answer, and the id may mean another call
            by now.
    """

    def __init__(self, channel: Channel, call_id: int, method: str, deadline: float) -> None:
        self.channel = channel
        self.call_id = call_id
        self.method = method
        self.deadline = deadline
        self.scope = trio.CancelScope(deadline=deadline + LAST_WORD_S)
        self.forgotten = False
        self._chunks = _RequestChunks(self)

    @property
    def remote(self) -> str:
        """Peer id of the asker; "" on the control socket."""
        return self.channel.remote

    @property
    def is_complete(self) -> bool:
        """Whether the whole request has arrived."""
        return self._chunks.complete

    @property
    def is_open(self) -> bool:
        """Whether the asker still waits for the answer."""
        return not self.forgotten and self.channel.is_open(self.call_id, outgoing=False)

    def deliver(self, event: RequestData) -> None:
        """Take payload that arrived for this call.

        Raises:
            ProtocolViolation: more waits here than anybody may send.
        """
        self._chunks.deliver(event)

    def chunks(self) -> AsyncIterator[Chunk]:
        """Iterate over the request's payload; asking for the next chunk gives back the credit of the last."""
        return self._chunks

    async def read_into(self, view: memoryview) -> None:
        """Fill `view` with the request's payload.

        Raises:
            ProtocolViolation: the payload is longer, shorter, or out of order.
        """
        target = flat(view)
        received_bytes = 0
        async for chunk in self.chunks():
            stop = chunk.offset + len(chunk.payload)
            if chunk.offset != received_bytes or stop > len(target):
                raise _misfit(stop, len(target))
            target[chunk.offset : stop] = chunk.payload
            received_bytes = stop
        if received_bytes != len(target):
            raise _misfit(received_bytes, len(target))

    async def send(
        self,
        message: Message | None = None,
        payload: Buffer = b"",
        *,
        offset: int = 0,
        payload_digest: bytes = b"",
    ) -> None:
        """Send a message or a chunk of at most 1 MiB before the response; drop it if nobody waits for it.

        The payload stays as it is until the other side has it; the buffer is best not used again.
        """
        view = flat(payload)
        encoded = b"" if message is None else message.SerializeToString()
        await self.channel.wait_to_send(self, len(view), outgoing=False)
        if self.is_open:
            self.channel.send_response(
                self.call_id, encoded, view, offset=offset, payload_digest=payload_digest
            )

    async def respond(self, result: Any) -> None:
        """Send what a handler returned: a message, or a message and a payload of any length."""
        message, payload = result if isinstance(result, tuple) else (result, b"")
        encoded = message.SerializeToString()
        view = flat(payload)
        offset = 0
        while len(view) - offset > PAYLOAD_BYTES_MAX and self.is_open:
            stop = offset + PAYLOAD_BYTES_MAX
            await self.send(payload=view[offset:stop], offset=offset)
            offset = stop
        await self.channel.wait_for_room(self.method)
        if self.is_open:
            self.channel.respond(self.call_id, encoded, view[offset:], offset=offset)


class _RequestChunks:
    """A request's payload as it arrives."""

    def __init__(self, call: IncomingCall) -> None:
        self._call = call
        self._unconsumed_bytes = 0
        self._ended = False
        self.complete = False
        self._arrived: Inbox[RequestData] = Inbox()

    def deliver(self, event: RequestData) -> None:
        self.complete = event.end
        self._arrived.put_one_of_many(event)

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self

    async def __anext__(self) -> Chunk:
        while True:
            if not self._call.forgotten:
                self._call.channel.consume(self._call.call_id, self._unconsumed_bytes, outgoing=False)
            self._unconsumed_bytes = 0
            if self._ended:
                raise StopAsyncIteration
            event = await self._arrived.take()
            self._ended = event.end
            self._unconsumed_bytes = len(event.payload)
            if len(event.payload):
                return Chunk(event.offset, event.payload, event.payload_digest)


def _misfit(received_bytes: int, expected_bytes: int) -> ProtocolViolation:
    return ProtocolViolation(
        "the payload does not fit the request", why=f"{received_bytes} of {expected_bytes} bytes"
    )


def deadline_exceeded(method: str, remote_name: str) -> DeadlineExceeded:
    """Return the error of a call that had no answer in time."""
    verb = method.rpartition("/")[2]
    return DeadlineExceeded(f"{verb} had no answer in time", why=f"{remote_name} was asked", node=remote_name)
