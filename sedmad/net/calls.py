"""One call as a coroutine sees it, from either end: `OutgoingCall` for the asker, `IncomingCall` for the handler.

Payloads arrive in chunks; reading one gives its credit back, so a slow reader slows its sender and nobody else.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio
from google.protobuf.message import Message

from sedmad.errors import DeadlineExceeded, ProtocolViolation, SedmadError
from sedmad.wire.calls import RequestData, ResponseData, ResponseReceived
from sedmad.wire.frame import PAYLOAD_BYTES_MAX, Buffer
from sedmad.wire.status import to_error

if TYPE_CHECKING:
    from sedmad.net.channel import Channel


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of payload, or a message on the way, or both."""

    offset: int
    payload: Buffer
    payload_digest: bytes = b""
    message: bytes = b""


class OutgoingCall:
    """A call that began here. Iterate over what comes before the response, then take `response`."""

    def __init__(self, channel: Channel, call_id: int, method: str) -> None:
        self.channel = channel
        self.call_id = call_id
        self.method = method
        self.response: bytes | None = None
        # Bounded by the call's credit: the sender stops when what lies here reaches it.
        self._send, self._receive = trio.open_memory_channel[ResponseData | ResponseReceived | SedmadError](
            math.inf
        )

    def deliver(self, event: ResponseData | ResponseReceived | SedmadError) -> None:
        self._send.send_nowait(event)

    async def send(
        self, payload: Buffer, offset: int, *, end: bool = False, payload_digest: bytes = b""
    ) -> None:
        """Send a chunk of at most 1 MiB when the other side has room for it."""
        await self.channel.wait_to_send(self.call_id, len(payload), self.method, outgoing=True)
        self.channel.send_request(
            self.call_id, payload, offset=offset, end=end, payload_digest=payload_digest
        )

    async def send_all(self, payload: Buffer, offset: int) -> None:
        """Send the rest of a payload from `offset` on, and end it."""
        view = memoryview(payload)
        while offset < len(view):
            stop = min(offset + PAYLOAD_BYTES_MAX, len(view))
            await self.send(view[offset:stop], offset, end=stop == len(view))
            offset = stop

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self._chunks()

    async def _chunks(self) -> AsyncIterator[Chunk]:
        """Yield chunks until the response is there.

        Raises:
            SedmadError: what the other side answered with, or SessionLost.
        """
        while True:
            event = await self._receive.receive()
            if isinstance(event, SedmadError):
                raise event
            if isinstance(event, ResponseReceived) and event.status is not None:
                raise to_error(event.status)
            if len(event.payload) or isinstance(event, ResponseData):
                message = event.message if isinstance(event, ResponseData) else b""
                yield Chunk(event.offset, event.payload, event.payload_digest, message)
                self.channel.consume(self.call_id, len(event.payload), outgoing=True)
            if isinstance(event, ResponseReceived):
                self.response = event.message
                return

    async def finish(self, into: memoryview | None = None) -> bytes:
        """Wait for the response and return its message; its payload is written into `into`, which it must fill."""
        expected_bytes = 0 if into is None else len(into)
        received_bytes = 0
        async for chunk in self:
            stop = chunk.offset + len(chunk.payload)
            if chunk.offset != received_bytes or stop > expected_bytes:
                raise ProtocolViolation(
                    f"{self.channel.remote_name} sent payload that nobody asked for",
                    why=f"bytes {chunk.offset}-{stop}",
                )
            if into is not None:
                into[chunk.offset : stop] = chunk.payload
            received_bytes = stop
        if received_bytes != expected_bytes:
            raise ProtocolViolation(
                f"{self.channel.remote_name} sent too little",
                why=f"{received_bytes} of {expected_bytes} bytes",
            )
        assert self.response is not None
        return self.response


class IncomingCall:
    """A call of the other side, as its handler sees it.

    Attributes:
        remote: peer id of the asker; "" on the control socket.
        deadline: trio's clock; the handler is cancelled there.
    """

    def __init__(self, channel: Channel, call_id: int, method: str, deadline: float) -> None:
        self.channel = channel
        self.call_id = call_id
        self.method = method
        self.deadline = deadline
        self.scope = trio.CancelScope(deadline=deadline)
        # The other side was restarted: nobody waits for the answer.
        self.forgotten = False
        self._send, self._receive = trio.open_memory_channel[RequestData](math.inf)

    @property
    def remote(self) -> str:
        return self.channel.remote

    def deliver(self, event: RequestData) -> None:
        self._send.send_nowait(event)

    async def chunks(self) -> AsyncIterator[Chunk]:
        """Yield the request's payload; each chunk's credit is returned when the next one is asked for."""
        while True:
            event = await self._receive.receive()
            if len(event.payload):
                yield Chunk(event.offset, event.payload, event.payload_digest)
                self.channel.consume(self.call_id, len(event.payload), outgoing=False)
            if event.end:
                return

    async def read_into(self, view: memoryview) -> None:
        """Fill `view` with the request's payload.

        Raises:
            ProtocolViolation: the payload is longer, shorter, or out of order.
        """
        received_bytes = 0
        async for chunk in self.chunks():
            stop = chunk.offset + len(chunk.payload)
            if chunk.offset != received_bytes or stop > len(view):
                raise ProtocolViolation(
                    "the payload does not fit the request", why=f"{stop} of {len(view)} bytes"
                )
            view[chunk.offset : stop] = chunk.payload
            received_bytes = stop
        if received_bytes != len(view):
            raise ProtocolViolation(
                "the payload does not fit the request", why=f"{received_bytes} of {len(view)} bytes"
            )

    async def send(
        self,
        message: Message | None = None,
        payload: Buffer = b"",
        *,
        offset: int = 0,
        payload_digest: bytes = b"",
    ) -> None:
        """Send a message or a chunk of at most 1 MiB before the response."""
        await self.channel.wait_to_send(self.call_id, len(payload), self.method, outgoing=False)
        encoded = b"" if message is None else message.SerializeToString()
        self.channel.send_response(
            self.call_id, encoded, payload, offset=offset, payload_digest=payload_digest
        )

    async def respond(self, result: Any) -> None:
        """Send what a handler returned: a message, or a message and a payload of any length."""
        message, payload = result if isinstance(result, tuple) else (result, b"")
        view = memoryview(payload).cast("B") if len(payload) else memoryview(b"")
        offset = 0
        while len(view) - offset > PAYLOAD_BYTES_MAX:
            stop = offset + PAYLOAD_BYTES_MAX
            await self.send(payload=view[offset:stop], offset=offset)
            offset = stop
        self.channel.respond(self.call_id, message.SerializeToString(), view[offset:], offset=offset)


def deadline_exceeded(method: str, remote_name: str) -> DeadlineExceeded:
    """Return the error of a call that had no answer in time."""
    verb = method.rpartition("/")[2]
    return DeadlineExceeded(f"{verb} had no answer in time", why=f"{remote_name} was asked", node=remote_name)
