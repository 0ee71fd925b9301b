"""A circuit's end: a stream to a relay, which passes its bytes on, as something that carries a connection."""

from __future__ import annotations

import trio
from libp2p.io.exceptions import ConnectionClosedError

from sedmad.errors import NodeUnreachable
from sedmad.net.pipe import PathKind, Pipe
from sedmad.net.relay.limits import CircuitLimit
from sedmad.net.stream import ByteStream


class CircuitPipe(Pipe):
    """A circuit to a peer.

    Args:
        stream: to the relay; the circuit's bytes begin with the next one.
        address: the peer's circuit address.
        limit: when the relay ends the circuit, as far as it said.
    """

    def __init__(self, stream: ByteStream, address: str, limit: CircuitLimit | None) -> None:
        super().__init__(PathKind.RELAYED)
        self.limit = limit
        self.is_limited = limit is not None
        self._stream = stream
        self._address = address

    @property
    def remote_address(self) -> str:
        return self._address

    async def receive_into(self, buffer: memoryview) -> int:
        try:
            data = await self._stream.receive_some(len(buffer))
        except NodeUnreachable as error:
            raise ConnectionClosedError(error.why, transport="relay") from error
        buffer[: len(data)] = data
        return len(data)

    async def send_some(self, data: memoryview) -> int:
        try:
            return await self._stream.send_some(data)
        except NodeUnreachable as error:
            raise ConnectionClosedError(error.why, transport="relay") from error

    def send_now(self, data: memoryview) -> int:
        try:
            return self._stream.send_some_now(data)
        except NodeUnreachable as error:
            raise ConnectionClosedError(error.why, transport="relay") from error

    async def close(self) -> None:
        self.abort()
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        self._stream.abort()
        self._on_closed()
