from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from sedmad.errors import NodeUnreachable, ProtocolViolation
from sedmad.net.exchange import STRAYS_MAX
from sedmad.net.stun import message as stun
from sedmad.net.stun.client import SHORT_WAITS_S, WAITS_S, ask_binding, binding_request, read_response
from sedmad.net.stun.endpoint import Endpoint, from_socket
from sedmad.net.stun.message import Message
from sedmad.net.stun.responder import AMPLIFICATION_MAX, Place, Responder, ServerLimits, ServerPlaces
from sedmad.net.stun.server import serve_stun

# RFC 5769, sections 2.1 to 2.3.
SAMPLE_REQUEST = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74"
    "002400046e0001ff80290008932ff9b151263b36000600096576746a3a68367659202020"
    "000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf"
)
SAMPLE_RESPONSE_IPV4 = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220"
    "002000080001a147e112a643000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
)
SAMPLE_RESPONSE_IPV6 = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220"
    "002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9"
    "00080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c"
)
SAMPLE_TRANSACTION = bytes.fromhex("b7e7a701bc34d686fa87dfae")
SAMPLE_PASSWORD = b"VOkJxbRl1RmTxUk/WvJxBt"

CLIENT = Endpoint(ipaddress.ip_address("198.51.100.7"), 40000)
CLIENT_IPV6 = Endpoint(ipaddress.ip_address("2001:db8::7"), 40000)
PLACES = ServerPlaces(
    (ipaddress.ip_address("203.0.113.10"), ipaddress.ip_address("203.0.113.11")), (3478, 3479)
)
FIRST = Place()
BARE = stun.serialise(Message(stun.BINDING_REQUEST, SAMPLE_TRANSACTION))

endpoints = st.builds(Endpoint, st.ip_addresses(), st.integers(1, 65535))
transactions = st.binary(min_size=12, max_size=12)


@pytest.mark.parametrize("sample", [SAMPLE_REQUEST, SAMPLE_RESPONSE_IPV4, SAMPLE_RESPONSE_IPV6])
def test_samples_of_the_rfc_are_whole_and_their_fingerprints_right(sample: bytes) -> None:
    message = stun.parse(sample)
    assert message is not None
    assert message.transaction_id == SAMPLE_TRANSACTION
    assert stun.parse(sample[:-1] + bytes([sample[-1] ^ 1])) is None
    # The vector's own credentials, to show that it was copied right: 24 bytes and the fingerprint's 8 come after.
    covered = sample[:2] + (len(sample) - 20 - 8).to_bytes(2, "big") + sample[4:-32]
    assert hmac.digest(SAMPLE_PASSWORD, covered, hashlib.sha1) == message.value_of(stun.MESSAGE_INTEGRITY)


def test_samples_of_the_rfc_say_what_they_say() -> None:
    request = stun.parse(SAMPLE_REQUEST)
    assert request is not None
    assert request.kind == stun.BINDING_REQUEST
    assert request.value_of(stun.SOFTWARE) == b"STUN test client"
    assert request.value_of(stun.USERNAME) == b"evtj:h6vY"
    for sample, address in (
        (SAMPLE_RESPONSE_IPV4, "192.0.2.1"),
        (SAMPLE_RESPONSE_IPV6, "2001:db8:1234:5678:11:2233:4455:6677"),
    ):
        binding = read_response(sample, ("203.0.113.10", 3478), SAMPLE_TRANSACTION)
        assert not isinstance(binding, int)
        assert binding is not None
        assert binding.mapped == Endpoint(ipaddress.ip_address(address), 32853)
    assert read_response(SAMPLE_RESPONSE_IPV4, ("203.0.113.10", 3478), bytes(12)) is None


@given(
    st.integers(0, 0x3FFF),
    transactions,
    st.lists(st.tuples(st.integers(0, 0x8027), st.binary(max_size=20)), max_size=9),
)
def test_messages_come_back_as_they_were(
    kind: int, transaction: bytes, attributes: list[tuple[int, bytes]]
) -> None:
    message = Message(kind, transaction, tuple(attributes))
    assert stun.parse(stun.serialise(message)) == message


@given(endpoints, st.none() | transactions)
def test_addresses_come_back_as_they_were(endpoint: Endpoint, transaction: bytes | None) -> None:
    assert stun.decode_endpoint(stun.encode_endpoint(endpoint, transaction), transaction) == endpoint


hostile = st.one_of(
    st.binary(max_size=700),
    st.builds(
        lambda kind, body: (
            kind.to_bytes(2, "big") + len(body).to_bytes(2, "big") + bytes.fromhex("2112a442") + body
        ),
        st.sampled_from([stun.BINDING_REQUEST, stun.BINDING_SUCCESS, stun.BINDING_ERROR]),
        st.binary(max_size=100),
    ),
    st.builds(
        lambda kind, attributes: stun.serialise(Message(kind, SAMPLE_TRANSACTION, tuple(attributes))),
        st.sampled_from([stun.BINDING_REQUEST, stun.BINDING_SUCCESS, stun.BINDING_ERROR]),
        st.lists(
            st.tuples(
                st.sampled_from([0x1, 0x3, 0x9, 0x20, 0x26, 0x7FFF, 0x8022, 0x8028, 0x802C]),
                st.binary(max_size=24),
            ),
            max_size=12,
        ),
    ),
    st.builds(
        lambda sample, at, byte: sample[:at] + bytes([byte]) + sample[at + 1 :],
        st.sampled_from([SAMPLE_REQUEST, SAMPLE_RESPONSE_IPV4, BARE]),
        st.integers(0, 107),
        st.integers(0, 255),
    ),
)


def on_wire(datagram: bytes, source: Endpoint) -> int:
    return len(datagram) + (46 if source.host.version == 4 else 66)


@given(hostile, endpoints, st.sampled_from(PLACES.all()))
def test_no_bytes_break_the_server_and_none_are_amplified(
    datagram: bytes, source: Endpoint, arrived: Place
) -> None:
    answer = Responder(PLACES).answer(datagram, source, arrived, 0.0)
    if answer is not None:
        request, response = stun.parse(datagram), stun.parse(answer.datagram)
        assert request is not None
        assert response is not None
        assert request.kind == stun.BINDING_REQUEST
        assert response.transaction_id == request.transaction_id
        assert on_wire(answer.datagram, source) <= AMPLIFICATION_MAX * on_wire(datagram, source)


@given(hostile)
def test_no_bytes_break_the_client(datagram: bytes) -> None:
    read_response(datagram, ("203.0.113.10", 3478), SAMPLE_TRANSACTION)


def answer_to(
    request: bytes, source: Endpoint = CLIENT, arrived: Place = FIRST, places: ServerPlaces = PLACES
):
    answer = Responder(places).answer(request, source, arrived, 0.0)
    assert answer is not None
    message = stun.parse(answer.datagram)
    assert message is not None
    return message, answer.origin


@pytest.mark.parametrize("source", [CLIENT, CLIENT_IPV6])
def test_our_request_is_answered_in_full(source: Endpoint) -> None:
    message, origin = answer_to(binding_request(SAMPLE_TRANSACTION), source, Place(1, 0))
    assert message.endpoint_of(stun.XOR_MAPPED_ADDRESS) == source
    assert message.endpoint_of(stun.RESPONSE_ORIGIN) == Endpoint(PLACES.hosts[1], 3478)
    assert message.endpoint_of(stun.OTHER_ADDRESS) == Endpoint(PLACES.hosts[0], 3479)
    assert origin == Place(1, 0)


def test_a_bare_request_is_answered_with_the_address_alone_and_over_ipv6_not_at_all() -> None:
    message, _ = answer_to(BARE)
    assert message.attributes == (
        (stun.XOR_MAPPED_ADDRESS, stun.encode_endpoint(CLIENT, SAMPLE_TRANSACTION)),
    )
    assert Responder(PLACES).answer(BARE, CLIENT_IPV6, Place(), 0.0) is None


@pytest.mark.parametrize(("host", "port"), [(True, True), (True, False), (False, True)])
def test_an_answer_comes_from_where_the_client_wants_it(host: bool, port: bool) -> None:
    request = binding_request(SAMPLE_TRANSACTION, change_host=host, change_port=port)
    assert answer_to(request)[1] == Place(int(host), int(port))
    # A server with one address cannot, and says so.
    lone = ServerPlaces(PLACES.hosts[:1], PLACES.ports[:1])
    message, origin = answer_to(request, places=lone)
    assert (message.kind, origin) == (stun.BINDING_ERROR, Place())
    assert stun.decode_error(message.value_of(stun.ERROR_CODE) or b"") == 420
    assert message.value_of(stun.UNKNOWN_ATTRIBUTES) == stun.encode_types([stun.CHANGE_REQUEST])


def test_attributes_that_must_be_understood_and_are_not_are_named() -> None:
    request = Message(stun.BINDING_REQUEST, SAMPLE_TRANSACTION, ((0x7F01, b""), (0x7F02, b""), (0xFF00, b"")))
    message, _ = answer_to(stun.serialise(request))
    assert message.value_of(stun.UNKNOWN_ATTRIBUTES) == stun.encode_types([0x7F01, 0x7F02])


def test_what_is_no_binding_request_gets_no_answer() -> None:
    for kind in (stun.BINDING_SUCCESS, stun.BINDING_ERROR, 0x0011, 0x0003):
        datagram = stun.serialise(Message(kind, SAMPLE_TRANSACTION, ((stun.SOFTWARE, bytes(64)),)))
        assert Responder(PLACES).answer(datagram, CLIENT, Place(), 0.0) is None


def test_a_source_is_answered_at_a_bounded_rate_and_others_as_before() -> None:
    responder = Responder(PLACES, ServerLimits(per_source_rate_per_s=1.0, per_source_burst=3))
    other = Endpoint(ipaddress.ip_address("198.51.100.8"), 1)
    answered = [responder.answer(BARE, Endpoint(CLIENT.host, port), Place(), 0.0) for port in range(1, 10)]
    assert [answer is not None for answer in answered] == [True] * 3 + [False] * 6
    assert responder.answer(BARE, other, Place(), 0.0)
    assert responder.answer(BARE, CLIENT, Place(), 1.0)
    assert not responder.answer(BARE, CLIENT, Place(), 1.0)


def test_a_network_of_ipv6_counts_as_one_source() -> None:
    responder = Responder(PLACES, ServerLimits(per_source_burst=1, per_source_rate_per_s=0.1))
    request = binding_request(SAMPLE_TRANSACTION)
    sources = [Endpoint(ipaddress.ip_address(f"2001:db8::{last}"), 1) for last in (1, 2)]
    assert [responder.answer(request, source, Place(), 0.0) is not None for source in sources] == [
        True,
        False,
    ]


@given(st.lists(st.integers(0, 50), max_size=200))
def test_however_many_sources_the_table_and_the_rate_stay_bounded(hosts: list[int]) -> None:
    limits = ServerLimits(sources_max=8, burst=20, rate_per_s=1.0)
    responder = Responder(PLACES, limits)
    sources = [Endpoint(ipaddress.IPv4Address(f"198.51.100.{host}"), 1) for host in hosts]
    answered = [responder.answer(BARE, source, Place(), 0.0) for source in sources]
    assert len(responder._sources) <= 8
    assert sum(answer is not None for answer in answered) == min(len(hosts), 20)


@asynccontextmanager
async def server_at(hosts: list[str], ports: int) -> AsyncIterator[ServerPlaces]:
    """A server on loopback, whose ports are the system's choice at the first address."""
    sockets: dict[Place, trio.socket.SocketType] = {}
    chosen: list[int] = []
    family = trio.socket.AF_INET6 if ":" in hosts[0] else trio.socket.AF_INET
    for index, host in enumerate(hosts):
        for port in range(ports):
            socket = sockets[Place(index, port)] = trio.socket.socket(family, trio.socket.SOCK_DGRAM)
            await socket.bind((host, chosen[port] if index else 0))
            chosen.append(socket.getsockname()[1])
    places = ServerPlaces(tuple(map(ipaddress.ip_address, hosts)), tuple(chosen[:ports]))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_stun, places, sockets)
        yield places
        nursery.cancel_scope.cancel()
    for socket in sockets.values():
        socket.close()


@asynccontextmanager
async def udp_socket(host: str = "127.0.0.1") -> AsyncIterator[trio.socket.SocketType]:
    family = trio.socket.AF_INET6 if ":" in host else trio.socket.AF_INET
    with trio.socket.socket(family, trio.socket.SOCK_DGRAM) as socket:
        await socket.bind((host, 0))
        yield socket


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_client_learns_where_a_server_sees_it(host: str) -> None:
    async with server_at([host], 1) as places, udp_socket(host) as socket:
        binding = await ask_binding(socket, places.endpoint(Place()))
        assert binding.mapped == from_socket(socket.getsockname())
        assert binding.answered_by == binding.origin == places.endpoint(Place())
        assert binding.other is None
        with pytest.raises(ProtocolViolation, match="420"):
            await ask_binding(socket, places.endpoint(Place()), change_host=True)


async def test_a_server_with_two_addresses_answers_from_all_of_them() -> None:
    async with server_at(["127.0.0.1", "127.0.0.2"], 2) as places, udp_socket() as socket:
        first = places.endpoint(Place())
        assert (await ask_binding(socket, first)).other == places.endpoint(Place(1, 1))
        for host, port in ((True, False), (False, True), (True, True)):
            binding = await ask_binding(socket, first, change_host=host, change_port=port)
            assert binding.answered_by == binding.origin == places.endpoint(Place(int(host), int(port)))


async def fake_server(nursery: trio.Nursery, answers: list[list[bytes]]) -> tuple[Endpoint, list[float]]:
    """Start a server that sends these in turn, each datagram with the transaction of the request put in at byte 8."""
    socket = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
    await socket.bind(("127.0.0.1", 0))
    asked_at: list[float] = []

    async def run() -> None:
        with socket:
            while True:
                request, sender = await socket.recvfrom(1000)
                asked_at.append(trio.current_time())
                for answer in answers.pop(0) if answers else []:
                    await socket.sendto(answer[:8] + request[8:20] + answer[20:], sender)

    nursery.start_soon(run)
    return from_socket(socket.getsockname()), asked_at


async def test_a_request_is_sent_again_by_the_rfcs_schedule_and_then_given_up(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.01
    server, asked_at = await fake_server(nursery, [])
    async with udp_socket() as socket:
        with pytest.raises(NodeUnreachable, match="no answer"):
            await ask_binding(socket, server)
    assert [round(at - asked_at[0], 1) for at in asked_at] == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert round(trio.current_time() - asked_at[0], 1) == sum(WAITS_S) == 39.5


async def test_lost_answers_and_garbage_are_borne(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    autojump_clock.autojump_threshold = 0.01
    mapped = (stun.XOR_MAPPED_ADDRESS, stun.encode_endpoint(CLIENT, bytes(12)))
    right = stun.serialise(
        Message(stun.BINDING_SUCCESS, bytes(12), ((stun.MAPPED_ADDRESS, stun.encode_endpoint(CLIENT)),))
    )
    without_address = stun.serialise(Message(stun.BINDING_SUCCESS, bytes(12)))
    request_back = stun.serialise(Message(stun.BINDING_REQUEST, bytes(12), (mapped,)))
    server, _ = await fake_server(nursery, [[], [b"garbage" * 5, without_address, request_back, right]])
    async with udp_socket() as socket:
        assert (await ask_binding(socket, server)).mapped == CLIENT


async def test_a_flood_of_garbage_ends_the_asking(nursery: trio.Nursery) -> None:
    server, _ = await fake_server(nursery, [[b"garbage" * 5] * (STRAYS_MAX + 1)])
    async with udp_socket() as socket:
        with pytest.raises(NodeUnreachable):
            await ask_binding(socket, server, waits_s=SHORT_WAITS_S)


async def test_an_answer_from_another_address_counts_only_where_it_was_asked_for(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.01
    async with udp_socket() as first, udp_socket() as second, udp_socket() as socket:

        async def answer_from_second() -> None:
            while True:
                request, sender = await first.recvfrom(1000)
                mapped = (stun.MAPPED_ADDRESS, stun.encode_endpoint(CLIENT))
                await second.sendto(
                    stun.serialise(Message(stun.BINDING_SUCCESS, request[8:20], (mapped,))), sender
                )

        nursery.start_soon(answer_from_second)
        server = from_socket(first.getsockname())
        binding = await ask_binding(socket, server, change_port=True)
        assert binding.answered_by == from_socket(second.getsockname())
        with pytest.raises(NodeUnreachable):
            await ask_binding(socket, server, waits_s=SHORT_WAITS_S)
        nursery.cancel_scope.cancel()


def test_ipv4_behind_an_ipv6_socket_is_ipv4() -> None:
    assert from_socket(("::ffff:198.51.100.7", 40000, 0, 0)) == CLIENT
    assert str(from_socket(("fe80::1%eth0", 1, 0, 2))) == "[fe80::1]:1"
