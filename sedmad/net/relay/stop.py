"""The end of a circuit that others dial: takes circuits from relays that this node has reserved at."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
import trio
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import Status, StopMessage

from sedmad.errors import NodeUnreachable, ProtocolViolation, SedmadError
from sedmad.net.pipe import PathKind
from sedmad.net.rate_limit import RateLimit
from sedmad.net.relay.circuit_pipe import CircuitPipe
from sedmad.net.relay.messages import (
    PEER_ID_BYTES_MAX,
    STOP_PROTOCOL,
    limit_in,
    receive_message,
    send_message,
)
from sedmad.net.stream import ByteStream

if TYPE_CHECKING:
    from sedmad.net.host import PeerHost

log = structlog.get_logger("sedmad.net")

# As many as a relay of ours carries for one peer, from three relays.
CIRCUITS_PER_RELAY_MAX = 64
CIRCUITS_MAX = 3 * CIRCUITS_PER_RELAY_MAX
# Circuits whose other end has not proved who it is: relays and those behind them can begin any number.
UPGRADES_MAX = 16
# A relay opens the stream to say this.
REQUEST_TIMEOUT_S = 5.0


class CircuitStop:
    """Accepts circuits.

    Args:
        host: where they come in, and become connections.
        is_relay: whether this node has asked a peer to be its relay.
    """

    def __init__(self, host: PeerHost, is_relay: Callable[[str], bool]) -> None:
        self._host = host
        self._is_relay = is_relay
        self._upgrading = 0
        self._failures = RateLimit(rate_per_s=0.1, burst=10)
        host.serve(
            STOP_PROTOCOL,
            self._accept,
            streams_max=CIRCUITS_MAX,
            streams_per_peer_max=CIRCUITS_PER_RELAY_MAX,
        )

    async def _accept(self, stream: ByteStream, relay_id: str, relay_address: str) -> None:
        try:
            status, peer_id, request = await self._read(stream, relay_id)
        except ProtocolViolation as error:
            self._warn(relay_id, error)
            status = Status.MALFORMED_MESSAGE
        answer = StopMessage(type=StopMessage.STATUS, status=status)
        if status != Status.OK:
            await send_message(stream, answer)
            return
        # Who carries it is known from the connection; what the relay says of itself does not matter.
        address = f"{relay_address}/p2p/{relay_id}/p2p-circuit/p2p/{peer_id}"
        pipe = CircuitPipe(stream, address, limit_in(request))
        closed = trio.Event()
        pipe.watch(lambda: None, closed.set)
        self._upgrading += 1
        try:
            await send_message(stream, answer)
            await self._host.upgrade(pipe, peer_id, initiator=False)
        except NodeUnreachable as error:
            self._warn(relay_id, error)
            raise
        finally:
            self._upgrading -= 1
        # The stream is reset when this returns.
        await closed.wait()

    async def _read(self, stream: ByteStream, relay_id: str) -> tuple[Status.ValueType, str, StopMessage]:
        if stream.path == PathKind.RELAYED or not self._is_relay(relay_id):
            return Status.PERMISSION_DENIED, "", StopMessage()
        with trio.move_on_after(REQUEST_TIMEOUT_S) as limit:
            request = await receive_message(stream, StopMessage)
        if limit.cancelled_caught:
            raise NodeUnreachable("the relay said nothing", node=relay_id)
        if request.type != StopMessage.CONNECT:
            return Status.UNEXPECTED_MESSAGE, "", request
        if not 0 < len(request.peer.id) <= PEER_ID_BYTES_MAX:
            raise ProtocolViolation("the relay names nobody", node=relay_id)
        peer_id = str(ID(request.peer.id))
        if peer_id == self._host.peer_id:
            return Status.CONNECTION_FAILED, "", request
        if self._upgrading >= UPGRADES_MAX:
            return Status.RESOURCE_LIMIT_EXCEEDED, "", request
        return Status.OK, peer_id, request

    def _warn(self, relay_id: str, error: SedmadError) -> None:
        if self._failures.allow(trio.current_time()):
            log.info("circuit_failed", relay=relay_id, why=error.why or error.what)
