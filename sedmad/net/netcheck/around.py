"""All probes at once, each within its time and all within WITHIN_S."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import trio

from sedmad.errors import PortMappingFailed
from sedmad.net.mapping.default_route import local_address
from sedmad.net.mapping.gateway import why_useless
from sedmad.net.mapping.nat_pmp_gateway import find_nat_pmp
from sedmad.net.mapping.upnp import find_upnp
from sedmad.net.netcheck import tcp, udp
from sedmad.net.netcheck.asking import (
    SERVERS_MAX,
    ServerName,
    answers_over_ipv6,
    ask_all,
    global_ipv6_host,
)
from sedmad.net.netcheck.findings import (
    Admitted,
    Findings,
    GatewayFinding,
    Observed,
    Peer,
    PeerFinding,
    ServerFinding,
)
from sedmad.net.stun.endpoint import Endpoint

# First who answers, then what they see; silence is what some of it has to wait for (client.SHORT_WAITS_S).
ASK_WITHIN_S = 2.6
OBSERVE_WITHIN_S = 3.2
WITHIN_S = ASK_WITHIN_S + OBSERVE_WITHIN_S
# As many as tell something; the first ones count.
PEERS_MAX = 16


class AskedGateway(Protocol):
    """A gateway that maps ports, and is asked for its address only."""

    protocol: str

    async def external_address(self) -> ipaddress.IPv4Address:
        """Return its address outside. Raises PortMappingFailed."""


Finder = Callable[[], Awaitable[AskedGateway]]
FINDERS: tuple[Finder, ...] = (find_nat_pmp, find_upnp)


async def look_around(
    servers: Sequence[ServerName], peers: Sequence[Peer] = (), finders: Sequence[Finder] = FINDERS
) -> Findings:
    """Return what the network around this machine is like, after WITHIN_S at the latest.

    Args:
        servers: STUN servers to ask; one with two addresses, or two, tell how ports are mapped.
        peers: nodes to dial.
        finders: ways to find a gateway that maps ports.
    """
    servers, peers = servers[:SERVERS_MAX], peers[:PEERS_MAX]
    dialled: list[PeerFinding] = []
    gateways: list[GatewayFinding] = []
    ipv6: list[bool | None] = [None]
    about: list[Findings] = []

    async def dial() -> None:
        dialled.extend(await tcp.dial_all(peers, ASK_WITHIN_S))

    async def ask_over_ipv6() -> None:
        ipv6[0] = await answers_over_ipv6(servers, ASK_WITHIN_S)

    async def observe() -> None:
        about.append(await _observe(await ask_all(servers, ASK_WITHIN_S)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(observe)
        nursery.start_soon(dial)
        nursery.start_soon(ask_over_ipv6)
        nursery.start_soon(_find_gateway, finders, gateways)
    found = about[0]
    return Findings(
        servers=found.servers,
        peers=tuple(dialled),
        local_host=found.local_host,
        udp=found.udp,
        tcp=found.tcp,
        admitted=found.admitted,
        hairpin=found.hairpin,
        ipv6_host=global_ipv6_host(),
        ipv6_answered=ipv6[0],
        gateway=gateways[0] if gateways else None,
    )


async def _observe(servers: Sequence[ServerFinding]) -> Findings:
    """Have those who answered look at sockets of ours."""
    over_udp: list[tuple[Endpoint, Endpoint]] = []
    over_tcp: list[tuple[Endpoint, Endpoint]] = []
    admitted = [Admitted()]
    hairpin: list[bool | None] = [None]
    local_host = _local_host(servers)
    first = next((server for server in servers if server.udp), None)
    able = next((server for server in servers if server.udp and server.udp.other), None)

    async def find_admitted(server: Endpoint) -> None:
        admitted[0] = await udp.admitted(server)

    async def try_hairpin(server: Endpoint) -> None:
        hairpin[0] = await udp.hairpin(server)

    with trio.move_on_after(OBSERVE_WITHIN_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(udp.observe, udp.places_to_ask(servers, "udp"), over_udp)
            nursery.start_soon(tcp.observe, udp.places_to_ask(servers, "tcp"), over_tcp)
            if able and able.endpoint:
                nursery.start_soon(find_admitted, able.endpoint)
            if first and first.udp and first.endpoint and str(first.udp.mapped.host) != local_host:
                nursery.start_soon(try_hairpin, first.endpoint)
    return Findings(
        servers=tuple(servers),
        local_host=local_host,
        udp=Observed(tuple(over_udp)),
        tcp=Observed(tuple(over_tcp)),
        admitted=admitted[0],
        hairpin=hairpin[0],
    )


def _local_host(servers: Sequence[ServerFinding]) -> str:
    for server in servers:
        if server.answered and server.endpoint is not None:
            try:
                return local_address(server.endpoint.to_socket())
            except PortMappingFailed:
                # The way is gone since it answered.
                continue
    return ""


async def _find_gateway(finders: Sequence[Finder], found: list[GatewayFinding]) -> None:
    """Append what the first gateway says that maps ports. Nothing is mapped."""

    async def find(finder: Finder, nursery: trio.Nursery) -> None:
        try:
            gateway = await finder()
            address = await gateway.external_address()
        except PortMappingFailed:
            # Most networks have none.
            return
        found.append(GatewayFinding(gateway.protocol, str(address), why_useless(address)))
        nursery.cancel_scope.cancel()

    with trio.move_on_after(WITHIN_S):
        async with trio.open_nursery() as nursery:
            for finder in finders:
                nursery.start_soon(find, finder, nursery)
