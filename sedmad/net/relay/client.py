"""This node as a user of relays: reserves at them, dials others through them, and takes circuits that come in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Status

from sedmad.errors import NodeUnreachable, ProtocolViolation, RelayRefused
from sedmad.net.addresses import CircuitAddress, relay_addresses
from sedmad.net.connection import Connection
from sedmad.net.relay.circuit_pipe import CircuitPipe
from sedmad.net.relay.messages import (
    HOP_PROTOCOL,
    REASONS,
    limit_in,
    receive_message,
    send_message,
)
from sedmad.net.relay.reservation import Reservation, life_s
from sedmad.net.relay.stop import CircuitStop
from sedmad.net.stream import ByteStream

if TYPE_CHECKING:
    from sedmad.net.host import PeerHost

# Of one relay, in the order of hope: three relays and as many addresses of this node's own fit into an advert.
ADDRESSES_PER_RELAY_MAX = 2


class RelayClient:
    """Reservations and circuits of one host.

    Args:
        host: whose.
    """

    def __init__(self, host: PeerHost) -> None:
        self._host = host
        self._reservations: dict[str, Reservation] = {}
        # A relay may pass on a circuit before its answer is read here.
        self._asking: Counter[str] = Counter()
        self._stop = CircuitStop(host, self._is_relay)
        host.keep_idle(self._is_relay)

    @property
    def reservations(self) -> list[Reservation]:
        """Those that hold now: not expired, and their relay is connected."""
        now = trio.current_time()
        return [
            reservation
            for relay_id, reservation in self._reservations.items()
            if now < reservation.expires_at and self._host.direct_connection(relay_id) is not None
        ]

    @property
    def circuit_addresses(self) -> list[str]:
        """Where others reach this node through relays."""
        return [address for reservation in self.reservations for address in reservation.addresses]

    def _is_relay(self, peer_id: str) -> bool:
        reservation = self._reservations.get(peer_id)
        return peer_id in self._asking or (
            reservation is not None and trio.current_time() < reservation.expires_at
        )

    async def reserve(
        self, relay_id: str, addresses: Sequence[str], *, now_s: float, timeout_s: float
    ) -> Reservation:
        """Have a relay pass on connections to this node, or renew that. The relay need not be a member of the mesh.

        Args:
            relay_id: the relay.
            addresses: where it is dialled, unless it is connected.
            now_s: Unix seconds.
            timeout_s: for all of it.

        Raises:
            NodeUnreachable: the relay does not answer, or is none.
            RelayRefused: it does not want to.
            ProtocolViolation: it answered something else.
        """
        self._asking[relay_id] += 1
        try:
            with trio.move_on_after(timeout_s):
                connection = await self._host.connect_directly(relay_id, addresses, timeout_s)
                answer = await _ask_once(connection, HopMessage(type=HopMessage.RESERVE), timeout_s)
                reservation = self._reserved(relay_id, addresses, connection, answer, now_s)
                self._reservations[relay_id] = reservation
                return reservation
            raise NodeUnreachable(
                f"relay {relay_id} did not answer", why=f"no answer within {timeout_s:g} s", node=relay_id
            )
        finally:
            self._asking[relay_id] -= 1
            if not self._asking[relay_id]:
                del self._asking[relay_id]

    def release(self, relay_id: str) -> None:
        """Take no more circuits from a relay; those that stand stay."""
        self._reservations.pop(relay_id, None)

    def _reserved(
        self,
        relay_id: str,
        addresses: Sequence[str],
        connection: Connection,
        answer: HopMessage,
        now_s: float,
    ) -> Reservation:
        if not answer.HasField("reservation"):
            raise ProtocolViolation("the relay's answer has no reservation", node=relay_id)
        told = relay_addresses(answer.reservation.addrs, relay_id)
        # A relay that says nothing useful is where it was dialled.
        dialled = [text.partition("/p2p/")[0] for text in (*addresses, connection.remote_address)]
        circuits = [
            str(CircuitAddress(address, relay_id, self._host.peer_id)) for address in told or dialled[:1]
        ]
        made_at = trio.current_time()
        return Reservation(
            relay_id,
            tuple(circuits[:ADDRESSES_PER_RELAY_MAX]),
            made_at,
            made_at + life_s(answer.reservation.expire, now_s),
            limit_in(answer),
        )

    async def dial(self, addresses: Sequence[CircuitAddress], timeout_s: float) -> Connection:
        """Connect to a peer through a relay, which is dialled first unless it is connected.

        Args:
            addresses: at least one, of one peer through one relay.
            timeout_s: for each step.

        Raises:
            NodeUnreachable: the relay or the peer does not answer, or somebody else does.
            RelayRefused: the relay does not carry a circuit to the peer.
            ProtocolViolation: it answered something else.
        """
        address = addresses[0]
        where = [each.relay_address for each in addresses]
        relay = await self._host.connect_directly(address.relay_id, where, timeout_s)
        stream = await relay.open_stream(HOP_PROTOCOL, timeout_s)
        connection = None
        try:
            request = HopMessage(type=HopMessage.CONNECT)
            request.peer.id = ID.from_string(address.peer_id).to_bytes()
            answer = await _exchange(stream, request, timeout_s)
            pipe = CircuitPipe(stream, str(address), limit_in(answer))
            connection = await self._host.upgrade(pipe, address.peer_id, initiator=True)
        finally:
            if connection is None:
                stream.abort()
        return connection


async def _ask_once(connection: Connection, request: HopMessage, timeout_s: float) -> HopMessage:
    stream = await connection.open_stream(HOP_PROTOCOL, timeout_s)
    try:
        return await _exchange(stream, request, timeout_s)
    finally:
        stream.abort()


async def _exchange(stream: ByteStream, request: HopMessage, timeout_s: float) -> HopMessage:
    """Return the relay's answer where it is a good one. Errors: see `RelayClient.reserve`."""
    relay_id = stream.remote_peer_id
    with trio.move_on_after(timeout_s) as limit:
        await send_message(stream, request)
        answer = await receive_message(stream, HopMessage)
    if limit.cancelled_caught:
        why = f"no answer within {timeout_s:g} s"
        raise NodeUnreachable(f"relay {relay_id} did not answer", why=why, node=relay_id)
    if answer.type != HopMessage.STATUS:
        raise ProtocolViolation("the relay answered something else", node=relay_id)
    if answer.status != Status.OK:
        why = REASONS.get(answer.status, f"status {answer.status}")
        raise RelayRefused(f"relay {relay_id} refused", why=why, node=relay_id)
    return answer
