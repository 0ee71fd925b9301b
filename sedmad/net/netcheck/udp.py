"""What the way to the internet does with UDP (RFC 5780, section 4), seen from sockets of our own."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress

import trio

from sedmad.errors import NodeUnreachable, ProtocolViolation
from sedmad.net.exchange import DATAGRAM_BYTES_MAX
from sedmad.net.netcheck.asking import binding_over_udp, udp_socket
from sedmad.net.netcheck.findings import Admitted, ServerFinding
from sedmad.net.stun.client import SHORT_WAITS_S, Binding, ask_binding
from sedmad.net.stun.endpoint import Endpoint

# Two addresses with two ports tell everything; more servers than two would only say it again.
PLACES_MAX = 6
# A datagram across the gateway and back takes a millisecond; it may be lost.
HAIRPIN_SENDINGS = 3
HAIRPIN_EVERY_S = 0.25
_TOKEN_BYTES = 16


def places_to_ask(servers: Sequence[ServerFinding], binding_of: str) -> list[Endpoint]:
    """Return whom to speak to from one socket: the servers that answered, and the other places of the first that has.

    Args:
        servers: what is known of them.
        binding_of: the protocol, `udp` or `tcp`.
    """
    places: list[Endpoint] = []
    for server in servers:
        if server.endpoint is not None and getattr(server, binding_of) is not None:
            places.append(server.endpoint)
    for server in servers:
        binding = server.udp or server.tcp
        if server.endpoint in places and server.endpoint and binding and (other := binding.other):
            places += [Endpoint(other.host, server.endpoint.port), Endpoint(server.endpoint.host, other.port)]
            places.append(other)
            break
    unique = list(dict.fromkeys(place for place in places if place.host.version == 4))
    return unique[:PLACES_MAX]


async def observe(places: Sequence[Endpoint], sightings: list[tuple[Endpoint, Endpoint]]) -> None:
    """Have servers see one socket; each sighting is appended as it comes, so that a cancelled look keeps the others."""
    if not places:
        return
    async with udp_socket(places[0]) as socket:
        for place in places:
            if binding := await binding_over_udp(place, socket):
                sightings.append((place, binding.mapped))


async def from_elsewhere(server: Endpoint, *, change_host: bool) -> bool | None:
    """Return whether a server's answer comes in from another port of its, and with `change_host` another address.

    None where the server cannot do it. The socket is a new one: what was sent from others opens nothing for it.
    """
    async with udp_socket(server) as socket:
        try:
            answer = await ask_binding(
                socket, server, change_host=change_host, change_port=True, waits_s=SHORT_WAITS_S
            )
        except NodeUnreachable:
            return False
        except ProtocolViolation:
            return None
    by = answer.answered_by
    moved = by.port != server.port and (by.host != server.host) == change_host
    return True if moved else None


async def admitted(server: Endpoint) -> Admitted:
    """Return whose answers come in; the server has another address and port to answer from."""
    found: dict[bool, bool | None] = {}

    async def ask(change_host: bool) -> None:
        found[change_host] = await from_elsewhere(server, change_host=change_host)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, False)
        nursery.start_soon(ask, True)
    return Admitted(found[False], found[True])


async def hairpin(server: Endpoint) -> bool | None:
    """Return whether one socket reaches another by where the server sees it; None where it does not see them.

    Both send, so that a filter that admits whom something was sent to is open.
    """
    async with udp_socket(server) as one, udp_socket(server) as other:
        seen = [await binding_over_udp(server, socket) for socket in (one, other)]
        first, second = seen
        if first is None or second is None:
            return None
        return await _meet((one, first), (other, second))


async def _meet(
    one: tuple[trio.socket.SocketType, Binding], other: tuple[trio.socket.SocketType, Binding]
) -> bool:
    token = secrets.token_bytes(_TOKEN_BYTES)
    met = trio.Event()

    async def listen(socket: trio.socket.SocketType) -> None:
        with suppress(OSError):
            while not met.is_set():
                datagram, _ = await socket.recvfrom(DATAGRAM_BYTES_MAX)
                if datagram == token:
                    met.set()

    async def send(socket: trio.socket.SocketType, to: Binding) -> None:
        # A gateway that says that there is no such place has no hairpin, like one that says nothing.
        with suppress(OSError):
            await socket.sendto(token, to.mapped.to_socket())

    async with trio.open_nursery() as nursery:
        for socket, _ in (one, other):
            nursery.start_soon(listen, socket)
        for _ in range(HAIRPIN_SENDINGS):
            await send(one[0], other[1])
            await send(other[0], one[1])
            with trio.move_on_after(HAIRPIN_EVERY_S):
                await met.wait()
                break
        nursery.cancel_scope.cancel()
    return met.is_set()
