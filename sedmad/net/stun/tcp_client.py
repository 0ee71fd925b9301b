"""Asks a STUN server over TCP under which address it sees a connection of ours (RFC 8489, section 6.2.2)."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from sedmad.errors import NodeUnreachable, ProtocolViolation
from sedmad.net.stun import message as stun
from sedmad.net.stun.client import Binding, binding_request, read_response
from sedmad.net.stun.endpoint import Endpoint
from sedmad.net.stun.tcp_server import receive_message

_ANY = {4: "0.0.0.0", 6: "::"}  # noqa: S104 - a port to dial from, not to listen on


@asynccontextmanager
async def shared_port(version: int) -> AsyncIterator[int]:
    """Have a TCP port that several connections may be dialled from.

    Args:
        version: of IP, 4 or 6.
    """
    with _socket(version) as held:
        await held.bind((_ANY[version], 0))
        yield held.getsockname()[1]


async def ask_binding_over_tcp(server: Endpoint, local_port: int = 0) -> Binding:
    """Dial a server and ask it where it sees the connection. The caller sets the time.

    Args:
        server: whom to ask.
        local_port: dialled from there; 0 for any.

    Raises:
        NodeUnreachable: it cannot be dialled, or ends the connection.
        ProtocolViolation: it answered something else.
    """
    transaction_id = secrets.token_bytes(stun.TRANSACTION_ID_BYTES)
    try:
        with _socket(server.host.version) as socket:
            await socket.bind((_ANY[server.host.version], local_port))
            await socket.connect(server.to_socket())
            stream = trio.SocketStream(socket)
            await stream.send_all(binding_request(transaction_id))
            message = await receive_message(stream)
    except (OSError, trio.BrokenResourceError) as error:
        raise NodeUnreachable(
            f"the STUN server {server} cannot be asked over TCP", why=str(error.__cause__ or error)
        ) from error
    if not message:
        raise NodeUnreachable(f"the STUN server {server} gave no answer over TCP")
    answer = read_response(message, server.to_socket(), transaction_id)
    if not isinstance(answer, Binding):
        raise ProtocolViolation(f"the STUN server {server} did not say over TCP where it sees us")
    return answer


def _socket(version: int) -> trio.socket.SocketType:
    family = trio.socket.AF_INET if version == 4 else trio.socket.AF_INET6
    made = trio.socket.socket(family, trio.socket.SOCK_STREAM)
    # One port for several connections, to several servers.
    made.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
    made.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEPORT, 1)
    return made
