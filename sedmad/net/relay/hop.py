"""This node as a relay: gives members reservations, and carries circuits to those who have one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
import trio
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Status, StopMessage
from multiaddr import Multiaddr

from sedmad.errors import NodeUnreachable, ProtocolViolation, SedmadError
from sedmad.net.addresses import ADDRESSES_PER_PEER_MAX
from sedmad.net.pipe import PathKind
from sedmad.net.rate_limit import RateLimit
from sedmad.net.relay.circuit import Circuit
from sedmad.net.relay.limits import Admission, AdmittedCircuit, CircuitLimit, Refusal, RelayLimits
from sedmad.net.relay.messages import (
    HOP_PROTOCOL,
    PEER_ID_BYTES_MAX,
    STOP_PROTOCOL,
    receive_message,
    send_message,
    tell_limit,
)
from sedmad.net.stream import ByteStream

if TYPE_CHECKING:
    from sedmad.net.host import PeerHost

log = structlog.get_logger("sedmad.net")

# Whoever opens the stream has something to say.
REQUEST_TIMEOUT_S = 5.0
# The other end's answer: two round trips on a slow path.
STOP_TIMEOUT_S = 5.0
# Streams of strangers that have not said what they want: they can make up any number of peer ids.
SILENT_STRANGERS_MAX = 32
# Requests beside the circuits that stand.
REQUESTS_MAX = 64
REQUESTS_PER_PEER_MAX = 8

_STATUS = {
    Refusal.TOO_MANY: Status.RESOURCE_LIMIT_EXCEEDED,
    Refusal.NO_RESERVATION: Status.NO_RESERVATION,
    Refusal.NOT_PERMITTED: Status.PERMISSION_DENIED,
}


class Relay:
    """Serves as a relay.

    Args:
        host: where requests come in and circuits go out.
        is_member: whether a peer may reserve, and its circuits last.
        wall_time: Unix seconds.
        limits: what it gives.

    Attributes:
        is_serving: whether anything is given now; circuits that stand go on.
        carried_bytes: by circuits that have ended, both ways.
    """

    def __init__(
        self,
        host: PeerHost,
        *,
        is_member: Callable[[str], bool],
        wall_time: Callable[[], float],
        limits: RelayLimits | None = None,
    ) -> None:
        self.is_serving = True
        self.carried_bytes = 0
        self._host = host
        self._is_member = is_member
        self._wall_time = wall_time
        self._limits = limits or RelayLimits()
        self._admission = Admission(self._limits)
        self._silent_strangers = 0
        self._failures = RateLimit(rate_per_s=0.1, burst=10)
        host.keep_idle(lambda peer_id: self._admission.has_reserved(peer_id, trio.current_time()))
        host.serve(
            HOP_PROTOCOL,
            self._handle,
            streams_max=self._limits.circuits_max + REQUESTS_MAX,
            streams_per_peer_max=self._limits.circuits_per_peer_max + REQUESTS_PER_PEER_MAX,
        )

    @property
    def circuit_count(self) -> int:
        """How many circuits stand or are being set up."""
        return self._admission.circuit_count

    @property
    def reservation_count(self) -> int:
        """How many peers are reached through this node."""
        self._admission.forget_absent(self._host.connected_peers(), trio.current_time())
        return self._admission.reservation_count

    async def _handle(self, stream: ByteStream, peer_id: str, address: str) -> None:
        try:
            request = await self._read(stream, peer_id)
        except ProtocolViolation as error:
            self._tell(peer_id, error)
            await self._refuse(stream, Status.MALFORMED_MESSAGE)
            return
        # A circuit within a circuit would cost twice; and this node would pay for what others promised.
        if not self.is_serving or stream.path == PathKind.RELAYED:
            await self._refuse(stream, Status.PERMISSION_DENIED)
        elif request.type == HopMessage.RESERVE:
            await self._reserve(stream, peer_id, address)
        elif request.type == HopMessage.CONNECT:
            await self._connect(stream, request, peer_id, address)
        else:
            await self._refuse(stream, Status.UNEXPECTED_MESSAGE)

    async def _read(self, stream: ByteStream, peer_id: str) -> HopMessage:
        is_stranger = not self._is_member(peer_id)
        if is_stranger and self._silent_strangers >= SILENT_STRANGERS_MAX:
            raise NodeUnreachable("too many strangers want something", node=peer_id)
        self._silent_strangers += is_stranger
        try:
            with trio.move_on_after(REQUEST_TIMEOUT_S):
                return await receive_message(stream, HopMessage)
        finally:
            self._silent_strangers -= is_stranger
        raise NodeUnreachable("a peer opened a stream and said nothing", node=peer_id)

    async def _reserve(self, stream: ByteStream, peer_id: str, address: str) -> None:
        now = trio.current_time()
        self._admission.forget_absent(self._host.connected_peers(), now)
        refusal = self._admission.reserve(
            peer_id, _host_in(address), is_member=self._is_member(peer_id), now=now
        )
        if refusal is not None:
            is_full = refusal is Refusal.TOO_MANY
            await self._refuse(stream, Status.RESERVATION_REFUSED if is_full else _STATUS[refusal])
            return
        answer = HopMessage(type=HopMessage.STATUS, status=Status.OK)
        answer.reservation.expire = int(self._wall_time() + self._limits.reservation_s)
        addresses = self._host.own_addresses[:ADDRESSES_PER_PEER_MAX]
        answer.reservation.addrs.extend(Multiaddr(text).to_bytes() for text in addresses)
        tell_limit(answer, self._limits.member)
        await send_message(stream, answer)

    async def _connect(self, stream: ByteStream, request: HopMessage, peer_id: str, address: str) -> None:
        if not 0 < len(request.peer.id) <= PEER_ID_BYTES_MAX:
            await self._refuse(stream, Status.MALFORMED_MESSAGE)
            return
        admitted = self._admission.begin(
            peer_id,
            str(ID(request.peer.id)),
            _host_in(address),
            is_member=self._is_member(peer_id),
            now=trio.current_time(),
        )
        if isinstance(admitted, Refusal):
            await self._refuse(stream, _STATUS[admitted])
            return
        try:
            await self._carry(stream, admitted)
        finally:
            self._admission.end(admitted)

    async def _carry(self, stream: ByteStream, admitted: AdmittedCircuit) -> None:
        try:
            onward = await self._open_onward(admitted)
        except SedmadError as error:
            self._tell(admitted.target, error)
            await self._refuse(stream, Status.CONNECTION_FAILED)
            return
        circuit = Circuit((stream, onward), admitted.limit)
        try:
            answer = HopMessage(type=HopMessage.STATUS, status=Status.OK)
            tell_limit(answer, admitted.limit)
            await send_message(stream, answer)
            why = await circuit.run()
        finally:
            onward.abort()
            self.carried_bytes += circuit.copied_bytes
        log.debug("circuit_ended", source=admitted.source, target=admitted.target, why=why)

    async def _open_onward(self, admitted: AdmittedCircuit) -> ByteStream:
        """Open the second half of a circuit. Errors: NodeUnreachable, ProtocolViolation."""
        target = admitted.target
        connection = self._host.direct_connection(target)
        if connection is None:
            raise NodeUnreachable("it is not connected any more", node=target)
        with trio.move_on_after(STOP_TIMEOUT_S):
            stream = await connection.open_stream(STOP_PROTOCOL, STOP_TIMEOUT_S)
            accepted = False
            try:
                await send_message(stream, _stop_request(admitted.source, admitted.limit))
                answer = await receive_message(stream, StopMessage)
                accepted = answer.type == StopMessage.STATUS and answer.status == Status.OK
                if not accepted:
                    raise NodeUnreachable(
                        "it did not take the circuit", why=f"status {answer.status}", node=target
                    )
                return stream
            finally:
                if not accepted:
                    stream.abort()
        raise NodeUnreachable("it did not answer in time", node=target)

    async def _refuse(self, stream: ByteStream, status: Status.ValueType) -> None:
        await send_message(stream, HopMessage(type=HopMessage.STATUS, status=status))

    def _tell(self, peer_id: str, error: SedmadError) -> None:
        if self._failures.allow(trio.current_time()):
            log.info("relaying_failed", peer=peer_id, why=error.why or error.what)


def _stop_request(source: str, limit: CircuitLimit | None) -> StopMessage:
    request = StopMessage(type=StopMessage.CONNECT)
    request.peer.id = ID.from_string(source).to_bytes()
    tell_limit(request, limit)
    return request


def _host_in(address: str) -> str:
    """Return the host part of a multiaddress, "" where there is none."""
    return address.split("/", 3)[2] if address else ""
