"""Probes on this machine's own loopback: no NAT, servers that answer, are silent, or say strange things."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from sedmad.errors import PortMappingFailed, UsageError
from sedmad.net.netcheck.around import PEERS_MAX, WITHIN_S, look_around
from sedmad.net.netcheck.asking import SERVERS_MAX, STUN_PORT, ServerName, parse_server
from sedmad.net.netcheck.findings import Admitted, GatewayFinding, Peer
from sedmad.net.stun import message as stun
from sedmad.net.stun.endpoint import Endpoint, from_socket
from sedmad.net.stun.message import Message
from sedmad.net.stun.responder import Place, ServerPlaces
from sedmad.net.stun.server import serve_stun
from sedmad.net.stun.tcp_server import serve_stun_over_tcp

LOOPBACK = "127.0.0.1"


@asynccontextmanager
async def stun_server(*hosts: str) -> AsyncIterator[ServerName]:
    """Serve on one or two addresses, with as many ports."""
    sockets: dict[Place, trio.socket.SocketType] = {}
    listeners: dict[Place, trio.SocketListener] = {}
    ports: list[int] = []
    for port_number in range(len(hosts)):
        ports.append(0)
        for host_number, host in enumerate(hosts):
            place = Place(host_number, port_number)
            sockets[place] = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
            await sockets[place].bind((host, ports[port_number]))
            ports[port_number] = sockets[place].getsockname()[1]
            (listeners[place],) = await trio.open_tcp_listeners(ports[port_number], host=host)
    places = ServerPlaces(tuple(ipaddress.ip_address(host) for host in hosts), tuple(ports))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_stun, places, sockets)
        nursery.start_soon(serve_stun_over_tcp, places, listeners)
        yield ServerName(hosts[0], ports[0])
        nursery.cancel_scope.cancel()
    for socket in sockets.values():
        socket.close()


async def silent_port() -> tuple[trio.socket.SocketType, int]:
    socket = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
    await socket.bind((LOOPBACK, 0))
    return socket, socket.getsockname()[1]


async def test_a_server_with_two_addresses_tells_everything() -> None:
    async with stun_server(LOOPBACK, "127.0.0.2") as server:
        found = await look_around([server], finders=())
    (answered,) = found.servers
    assert answered.answered
    assert answered.udp_rtt_s is not None
    assert answered.tcp_rtt_s is not None
    assert found.local_host == LOOPBACK
    for observed in (found.udp, found.tcp):
        assert {place.host for place, _ in observed.sightings} == {
            ipaddress.ip_address(LOOPBACK),
            ipaddress.ip_address("127.0.0.2"),
        }
        assert len(observed.sightings) == 4
        assert len({mapped.port for _, mapped in observed.sightings}) == 1
    assert found.admitted == Admitted(from_other_port=True, from_other_address=True)
    # There is no NAT to turn round at.
    assert found.hairpin is None
    assert found.gateway is None


async def test_a_server_with_one_address_cannot_tell_who_is_admitted() -> None:
    async with stun_server(LOOPBACK) as server:
        found = await look_around([server], finders=())
    assert found.admitted == Admitted()
    assert len(found.udp.sightings) == len(found.tcp.sightings) == 1


async def test_it_ends_in_time_though_nobody_answers(autojump_clock: MockClock) -> None:
    autojump_clock.autojump_threshold = 0.05
    socket, port = await silent_port()

    async def find_nothing() -> None:
        await trio.sleep_forever()

    began = trio.current_time()
    with socket:
        found = await look_around(
            [ServerName(LOOPBACK, port)], [Peer("nobody", LOOPBACK, 1)], finders=[find_nothing]
        )
    assert trio.current_time() - began <= WITHIN_S + 0.1
    assert WITHIN_S < 6
    assert [server.problem for server in found.servers] == ["it gave no answer"]
    assert [peer.rtt_s for peer in found.peers] == [None]


async def test_a_name_that_is_none_is_said_so() -> None:
    (server,) = (await look_around([ServerName("no-such-host.invalid", 1)], finders=())).servers
    assert server.problem == "it has no IPv4 address"


async def test_peers_are_dialled_and_no_more_than_the_bound() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host=LOOPBACK)
    port = listener.socket.getsockname()[1]
    found = await look_around([], [Peer(f"n{n}", LOOPBACK, port) for n in range(PEERS_MAX + 3)], finders=())
    assert len(found.peers) == PEERS_MAX
    assert all(peer.rtt_s is not None for peer in found.peers)
    await listener.aclose()


async def test_no_more_servers_are_asked_than_the_bound() -> None:
    many = [ServerName(LOOPBACK, 9)] * (SERVERS_MAX + 5)
    assert len((await look_around(many, finders=())).servers) == SERVERS_MAX


class Router:
    protocol = "upnp"

    async def external_address(self) -> ipaddress.IPv4Address:
        return ipaddress.IPv4Address("10.9.8.7")


async def test_the_first_gateway_that_answers_is_told_and_why_it_is_of_no_use() -> None:
    async def find_none() -> Router:
        raise PortMappingFailed("there is no gateway")

    async def find_router() -> Router:
        await trio.lowlevel.checkpoint()
        return Router()

    found = await look_around([], finders=[find_none, find_router])
    assert found.gateway is not None
    assert found.gateway == GatewayFinding("upnp", "10.9.8.7", found.gateway.useless)
    assert "another NAT" in found.gateway.useless


@pytest.mark.parametrize("answers_change", [True, False])
async def test_a_server_that_claims_places_it_has_not_proves_nothing(
    autojump_clock: MockClock, answers_change: bool
) -> None:
    """It names a second address at which nobody is, and ignores what it is asked, or all of it."""
    autojump_clock.autojump_threshold = 0.05
    socket, port = await silent_port()
    elsewhere = Endpoint(ipaddress.ip_address("127.0.0.9"), 9)

    async def serve() -> None:
        while True:
            request, sender = await socket.recvfrom(1000)
            message = stun.parse(request)
            assert message is not None
            if not answers_change and message.value_of(stun.CHANGE_REQUEST):
                continue
            mapped = stun.encode_endpoint(from_socket(sender), message.transaction_id)
            attributes = (
                (stun.XOR_MAPPED_ADDRESS, mapped),
                (stun.OTHER_ADDRESS, stun.encode_endpoint(elsewhere)),
            )
            answer = Message(stun.BINDING_SUCCESS, message.transaction_id, attributes)
            await socket.sendto(stun.serialise(answer), sender)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        found = await look_around([ServerName(LOOPBACK, port)], finders=())
        nursery.cancel_scope.cancel()
    socket.close()
    expected = None if answers_change else False
    assert found.admitted == Admitted(expected, expected)
    assert [place.port for place, _ in found.udp.sightings] == [port]


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("stun.example.org:3479", "stun.example.org", 3479),
        ("stun.example.org", "stun.example.org", STUN_PORT),
        ("192.0.2.1:1", "192.0.2.1", 1),
        ("[2001:db8::1]:99", "2001:db8::1", 99),
        ("[2001:db8::1]", "2001:db8::1", STUN_PORT),
        ("2001:db8::1", "2001:db8::1", STUN_PORT),
    ],
)
def test_servers_are_written_as_people_write_them(text: str, host: str, port: int) -> None:
    assert parse_server(text) == ServerName(host, port)
    assert parse_server(str(parse_server(text))) == ServerName(host, port)


@pytest.mark.parametrize(
    "text", ["", ":1", "host:", "host:0", "host:65536", "host:x", "stun://host:1", "a b:1"]
)
def test_what_names_no_server_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="names no STUN server"):
        parse_server(text)


@given(st.text(max_size=40))
def test_any_text_names_a_server_or_is_refused(text: str) -> None:
    try:
        parse_server(text)
    except UsageError:
        return
