"""A STUN server over TCP (RFC 8489, section 6.2.2): for NATs that treat TCP otherwise, or let nothing else out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import trio

from sedmad.net.stun.endpoint import from_socket
from sedmad.net.stun.message import HEADER_BYTES, MESSAGE_BYTES_MAX
from sedmad.net.stun.responder import Place, Responder, ServerLimits, ServerPlaces

# What a machine can have open besides its sessions without noticing; whoever comes beyond is sent away at once.
CONNECTIONS_MAX = 64
# A request is one packet, and comes with the connection. After it clients close.
CONNECTION_S_MAX = 5.0
REQUESTS_MAX = 4
_LENGTH = slice(2, 4)


@dataclass(slots=True)
class _Served:
    """What one server has open."""

    responder: Responder
    connections: int = 0


async def serve_stun_over_tcp(
    places: ServerPlaces, listeners: Mapping[Place, trio.SocketListener], limits: ServerLimits | None = None
) -> None:
    """Answer binding requests until cancelled. Over TCP nobody is answered from elsewhere (RFC 5780, section 6).

    Args:
        places: where the server is, as others see it.
        listeners: a listener for each of the places.
        limits: how much to answer.
    """
    served = _Served(Responder(places, limits))
    async with trio.open_nursery() as nursery:
        for place in places.all():
            nursery.start_soon(_accept, served, place, listeners[place])


async def _accept(served: _Served, place: Place, listener: trio.SocketListener) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            if served.connections >= CONNECTIONS_MAX:
                return
            served.connections += 1
            try:
                with trio.move_on_after(CONNECTION_S_MAX):
                    await _serve(served.responder, place, stream)
            except (OSError, trio.BrokenResourceError):
                # The other side is gone, which is its right.
                return
            finally:
                served.connections -= 1

    await trio.serve_listeners(serve, [listener])


async def _serve(responder: Responder, place: Place, stream: trio.SocketStream) -> None:
    source = from_socket(stream.socket.getpeername())
    for _ in range(REQUESTS_MAX):
        request = await receive_message(stream)
        answer = responder.answer(request, source, place, trio.current_time()) if request else None
        if answer is None or answer.origin != place:
            return
        await stream.send_all(answer.datagram)


async def receive_message(stream: trio.SocketStream) -> bytes:
    """Return the next message of a connection, as its header says how long it is; empty where none comes whole.

    Raises:
        trio.BrokenResourceError: the connection broke.
    """
    message = await _receive(stream, HEADER_BYTES)
    body_bytes = int.from_bytes(message[_LENGTH], "big")
    if len(message) < HEADER_BYTES or HEADER_BYTES + body_bytes > MESSAGE_BYTES_MAX:
        return b""
    body = await _receive(stream, body_bytes)
    return message + body if len(body) == body_bytes else b""


async def _receive(stream: trio.SocketStream, size_bytes: int) -> bytes:
    """Return as many bytes, fewer at the end of the connection."""
    received = b""
    while len(received) < size_bytes:
        piece = await stream.receive_some(size_bytes - len(received))
        if not piece:
            break
        received += bytes(piece)
    return received
