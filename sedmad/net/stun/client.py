"""Asks a STUN server under which address it sees one of our sockets."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from sedmad.errors import NodeUnreachable, ProtocolViolation
from sedmad.net.exchange import Exchange, SocketAddress, ask
from sedmad.net.stun import message as stun
from sedmad.net.stun.endpoint import Endpoint, from_socket
from sedmad.net.stun.message import Message

# RFC 8489, section 6.2.1: 500 ms, doubled, seven sendings, and sixteen times the first wait after the last: 39.5 s.
WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 8.0)
# Where silence is an answer too, as when a NAT's filter is explored: three sendings in 2.5 s.
SHORT_WAITS_S = (0.5, 1.0, 1.0)

# As long as the longest answer to it (three IPv6 addresses, 92 bytes), as servers may answer with no more than they
# were sent.
_SOFTWARE = b"sedmad".ljust(92 - stun.HEADER_BYTES - 4)


@dataclass(frozen=True, slots=True)
class Binding:
    """What a STUN server said.

    Attributes:
        mapped: where the request came from, as the server saw it.
        answered_by: where the answer came from.
        origin: where the server says that it sent the answer from.
        other: the server's second address and port, where it has them: it can be asked to answer from there.
    """

    mapped: Endpoint
    answered_by: Endpoint
    origin: Endpoint | None
    other: Endpoint | None


def binding_request(transaction_id: bytes, *, change_host: bool = False, change_port: bool = False) -> bytes:
    """Return a binding request; with `change_...` the answer is to come from another address or port (RFC 5780)."""
    change = stun.CHANGE_HOST * change_host | stun.CHANGE_PORT * change_port
    changes = [(stun.CHANGE_REQUEST, change.to_bytes(4, "big"))] if change else []
    return stun.serialise(
        Message(stun.BINDING_REQUEST, transaction_id, (*changes, (stun.SOFTWARE, _SOFTWARE)))
    )


def read_response(datagram: bytes, sender: SocketAddress, transaction_id: bytes) -> Binding | int | None:
    """Return what a response says, an error's code, or None for any other datagram."""
    response = stun.parse(datagram)
    if response is None or response.transaction_id != transaction_id:
        return None
    if response.kind == stun.BINDING_ERROR:
        return stun.decode_error(response.value_of(stun.ERROR_CODE) or b"")
    mapped = response.endpoint_of(stun.XOR_MAPPED_ADDRESS) or response.endpoint_of(stun.MAPPED_ADDRESS)
    if response.kind != stun.BINDING_SUCCESS or mapped is None:
        return None
    return Binding(
        mapped,
        from_socket(sender),
        response.endpoint_of(stun.RESPONSE_ORIGIN),
        response.endpoint_of(stun.OTHER_ADDRESS),
    )


async def ask_binding(
    socket: trio.socket.SocketType,
    server: Endpoint,
    *,
    change_host: bool = False,
    change_port: bool = False,
    waits_s: Sequence[float] = WAITS_S,
) -> Binding:
    """Ask a server where it sees a socket.

    Args:
        socket: a bound UDP socket of the server's family, which nobody else reads meanwhile.
        server: whom to ask.
        change_host: have it answer from its other address.
        change_port: have it answer from its other port.
        waits_s: seconds to wait after each sending.

    Raises:
        NodeUnreachable: no answer came.
        ProtocolViolation: the server refused, as one does that has no other address to answer from.
    """
    transaction_id = secrets.token_bytes(stun.TRANSACTION_ID_BYTES)
    anywhere = change_host or change_port

    def read(datagram: bytes, sender: SocketAddress) -> Binding | int | None:
        # The transaction id is a secret of 96 bits; the address is checked where it is known all the same.
        known = anywhere or from_socket(sender) == server
        return read_response(datagram, sender, transaction_id) if known else None

    request = binding_request(transaction_id, change_host=change_host, change_port=change_port)
    exchange: Exchange[Binding | int] = Exchange(request, waits_s, read, trio.current_time())
    try:
        answer = await ask(socket, exchange, server.to_socket())
    except OSError as error:
        raise NodeUnreachable(f"the STUN server {server} cannot be asked", why=str(error)) from error
    if answer is None:
        raise NodeUnreachable(f"the STUN server {server} gave no answer", why=f"asked {len(waits_s)} times")
    if isinstance(answer, int):
        raise ProtocolViolation(
            f"the STUN server {server} refused to say where it sees us", why=f"error {answer}"
        )
    return answer
