"""Which of the servers answer, by UDP and TCP, over IPv4; and whether any does over IPv6."""

from __future__ import annotations

import ipaddress
import socket as plain_socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import trio

from sedmad.errors import NodeUnreachable, ProtocolViolation, UsageError
from sedmad.net.netcheck.findings import ServerFinding
from sedmad.net.stun.client import SHORT_WAITS_S, Binding, ask_binding
from sedmad.net.stun.endpoint import Endpoint, from_socket
from sedmad.net.stun.tcp_client import ask_binding_over_tcp

# An address that belongs to nobody (RFC 3849); connecting a UDP socket to it sends nothing.
_ANYWHERE = ("2001:db8::1", 9)
# RFC 4291, section 2.4: what the world routes. Python's is_global refuses ranges that test networks use.
_GLOBAL = ipaddress.IPv6Network("2000::/3")
# RFC 8489, section 17.4.
STUN_PORT = 3478
# Two tell all there is; some may be out of order. The first ones count.
SERVERS_MAX = 8


@dataclass(frozen=True, slots=True)
class ServerName:
    """A STUN server as users write it: `host:port`, `[::1]:port`; the port may be missing."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_server(text: str) -> ServerName:
    """Return the server that a text names.

    Raises:
        UsageError: it names none.
    """
    host, colon, port = text.rpartition(":")
    if not colon or (host.count(":") and not host.endswith("]")):
        host, port = text, str(STUN_PORT)
    host = host.removeprefix("[").removesuffix("]")
    good_port = port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 1 << 16
    if not host or len(host) > 253 or set(host) & set("/@[] \t\n") or not good_port:
        raise UsageError(f"{text[:80]!r} names no STUN server", hint="Write it like stun.example.org:3478.")
    return ServerName(host, int(port))


async def ask_all(servers: Sequence[ServerName], within_s: float) -> list[ServerFinding]:
    """Ask every server once by either protocol, side by side; what has not come in time is missing."""
    findings = [ServerFinding(str(server)) for server in servers]

    async def ask(number: int) -> None:
        endpoint = await _resolve(servers[number], plain_socket.AF_INET)
        if endpoint is None:
            findings[number] = replace(findings[number], problem="it has no IPv4 address")
            return
        findings[number] = replace(findings[number], endpoint=endpoint, problem="it gave no answer")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(over_udp, number, endpoint)
            nursery.start_soon(over_tcp, number, endpoint)

    async def over_udp(number: int, endpoint: Endpoint) -> None:
        began = trio.current_time()
        if binding := await binding_over_udp(endpoint):
            rtt_s = trio.current_time() - began
            findings[number] = replace(findings[number], udp=binding, udp_rtt_s=rtt_s, problem="")

    async def over_tcp(number: int, endpoint: Endpoint) -> None:
        began = trio.current_time()
        if binding := await binding_over_tcp(endpoint):
            rtt_s = trio.current_time() - began
            findings[number] = replace(findings[number], tcp=binding, tcp_rtt_s=rtt_s, problem="")

    with trio.move_on_after(within_s):
        async with trio.open_nursery() as nursery:
            for number in range(len(servers)):
                nursery.start_soon(ask, number)
    return findings


async def answers_over_ipv6(servers: Sequence[ServerName], within_s: float) -> bool | None:
    """Return whether a server answers over IPv6, None where none of them has an address there."""
    endpoints = []
    answered = False
    with trio.move_on_after(within_s):
        for server in servers:
            if endpoint := await _resolve(server, plain_socket.AF_INET6):
                endpoints.append(endpoint)
        for endpoint in endpoints:
            answered = answered or await binding_over_udp(endpoint) is not None
    return answered if endpoints else None


def global_ipv6_host() -> str:
    """Return this machine's global IPv6 address on the way to the internet, empty without one; sends nothing."""
    try:
        with plain_socket.socket(plain_socket.AF_INET6, plain_socket.SOCK_DGRAM) as probe:
            probe.connect(_ANYWHERE)
            host = str(probe.getsockname()[0])
    except OSError:
        # No IPv6, or no route: which is the answer.
        return ""
    return host if ipaddress.IPv6Address(host) in _GLOBAL else ""


async def binding_over_udp(
    endpoint: Endpoint, socket: trio.socket.SocketType | None = None
) -> Binding | None:
    """Return what a server says of a socket, or of a new one; None where it says nothing of use."""
    try:
        if socket is not None:
            return await ask_binding(socket, endpoint, waits_s=SHORT_WAITS_S)
        async with udp_socket(endpoint) as made:
            return await ask_binding(made, endpoint, waits_s=SHORT_WAITS_S)
    except (NodeUnreachable, ProtocolViolation, OSError):
        return None


async def binding_over_tcp(endpoint: Endpoint, local_port: int = 0) -> Binding | None:
    """Return what a server says of a connection from a port; None where it says nothing of use."""
    try:
        return await ask_binding_over_tcp(endpoint, local_port)
    except (NodeUnreachable, ProtocolViolation, OSError):
        return None


@asynccontextmanager
async def udp_socket(endpoint: Endpoint) -> AsyncIterator[trio.socket.SocketType]:
    """Have a UDP socket bound to any port, of the family of an endpoint."""
    family, anywhere = (
        (trio.socket.AF_INET, "0.0.0.0")  # noqa: S104 - it asks, and serves nobody
        if endpoint.host.version == 4
        else (trio.socket.AF_INET6, "::")
    )
    with trio.socket.socket(family, trio.socket.SOCK_DGRAM) as made:
        await made.bind((anywhere, 0))
        yield made


async def _resolve(server: ServerName, family: int) -> Endpoint | None:
    try:
        found = await trio.socket.getaddrinfo(server.host, server.port, family, plain_socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        # There is no such name, at least not in this family.
        return None
    return from_socket(found[0][4]) if found else None
