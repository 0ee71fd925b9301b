"""What this node serves: protocols by name, bounds on their streams, and a fence around their handlers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import structlog
import trio
from libp2p.abc import INetConn, INetStream
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.protocol_muxer.multiselect import Multiselect
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator

from sedmad.errors import SedmadError
from sedmad.net.rate_limit import RateLimit
from sedmad.net.stream import ByteStream

log = structlog.get_logger("sedmad.net")

Handler = Callable[[ByteStream, str, str], Awaitable[None]]
Key = TypeVar("Key")

# Streams of one connection whose protocol is not agreed on yet; agreeing takes two round trips.
NEGOTIATING_PER_CONNECTION_MAX = 16
NEGOTIATE_TIMEOUT_S = 5
# Every member's session, and a few that replace one another.
STREAMS_MAX = 1024
STREAMS_PER_PEER_MAX = 8


@dataclass(slots=True)
class _Service:
    """A protocol that is served here, and who has streams of it now."""

    handler: Handler
    streams_max: int
    streams_per_peer_max: int
    streams: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def place_for(self, peer_id: str) -> Iterator[bool]:
        """Take a place while the body runs, if there is one."""
        if self.streams[peer_id] >= self.streams_per_peer_max or self.streams.total() >= self.streams_max:
            yield False
            return
        with _counted(self.streams, peer_id):
            yield True


class Protocols:
    """Takes every stream that peers open, agrees on its protocol, and runs the protocol's handler."""

    def __init__(self) -> None:
        self._services: dict[str, _Service] = {}
        self._multiselect = Multiselect()
        self._negotiating: Counter[INetConn] = Counter()
        self._failures = RateLimit(rate_per_s=0.1, burst=10)

    def add(self, protocol: str, handler: Handler, streams_max: int, streams_per_peer_max: int) -> None:
        """Serve a protocol; see PeerHost.serve."""
        self._services[protocol] = _Service(handler, streams_max, streams_per_peer_max)
        self._multiselect.add_handler(TProtocol(protocol), None)

    async def accept(self, stream: INetStream) -> None:
        """Negotiate and handle a stream. No exception escapes: it would end libp2p's swarm and all
        connections.
        """
        peer_id = str(stream.muxed_conn.peer_id)
        try:
            service = await self._negotiate(stream)
            if service is not None:
                await self._handle(service, stream, peer_id)
        except Exception:
            if self._failures.allow(trio.current_time()):
                log.exception("stream_failed", peer=peer_id)
        finally:
            # Nothing happens where both directions have ended in order.
            stream.muxed_stream.abort()

    async def _negotiate(self, stream: INetStream) -> _Service | None:
        if self._negotiating[stream.swarm_conn] >= NEGOTIATING_PER_CONNECTION_MAX:
            return None
        with _counted(self._negotiating, stream.swarm_conn):
            try:
                protocol, _ = await self._multiselect.negotiate(
                    MultiselectCommunicator(stream), NEGOTIATE_TIMEOUT_S
                )
            except (BaseLibp2pError, UnicodeDecodeError):
                return None
        return self._services.get(str(protocol))

    async def _handle(self, service: _Service, stream: INetStream, peer_id: str) -> None:
        with service.place_for(peer_id) as there_is_one:
            if not there_is_one:
                return
            byte_stream = ByteStream(stream.muxed_stream, peer_id)
            try:
                await service.handler(byte_stream, peer_id, byte_stream.remote_address)
            except* SedmadError as errors:
                log.debug("stream_ended", peer=peer_id, why=str(errors.exceptions[0]))
            else:
                await byte_stream.close()


@contextmanager
def _counted(counter: Counter[Key], key: Key) -> Iterator[None]:
    counter[key] += 1
    try:
        yield
    finally:
        counter[key] -= 1
        if not counter[key]:
            del counter[key]
