from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from sedmad.errors import PortMappingFailed
from sedmad.net.exchange import STRAYS_MAX, Exchange
from sedmad.net.mapping import nat_pmp
from sedmad.net.mapping.default_route import default_gateway, parse_gateway
from sedmad.net.mapping.gateway import WantedPort
from sedmad.net.mapping.nat_pmp_gateway import NatPmpGateway

WANTED = WantedPort("tcp", 4001, 4001, 7200)
HOME = ipaddress.IPv4Address("203.0.113.7")


def address_response(epoch_s: int, address: ipaddress.IPv4Address = HOME) -> bytes:
    return struct.pack("!BBHI4s", 0, 128, 0, epoch_s, address.packed)


def grant_response(epoch_s: int, external_port: int = 4001, lifetime_s: int = 7200) -> bytes:
    return struct.pack("!BBHIHHI", 0, 130, 0, epoch_s, 4001, external_port, lifetime_s)


def test_requests_are_those_of_the_rfc() -> None:
    assert nat_pmp.external_address_request() == bytes.fromhex("0000")
    assert nat_pmp.map_request(WANTED) == bytes.fromhex("00 02 0000 0fa1 0fa1 00001c20")
    assert nat_pmp.map_request(WantedPort("udp", 1, 2, 3)) == bytes.fromhex("00 01 0000 0001 0002 00000003")
    assert nat_pmp.remove_request(WANTED) == bytes.fromhex("00 02 0000 0fa1 0000 00000000")


def test_responses_are_read() -> None:
    assert nat_pmp.read_external_address(address_response(17)) == nat_pmp.ExternalAddress(17, HOME)
    assert nat_pmp.read_grant(grant_response(17, 4002, 60), WANTED) == nat_pmp.Grant(17, 4001, 4002, 60)
    refusal = bytes.fromhex("00 82 0002 00000011")
    assert nat_pmp.read_grant(refusal, WANTED) == nat_pmp.Refusal(2)
    # A gateway that speaks PCP alone answers in its own version (RFC 6887, appendix A).
    assert nat_pmp.read_external_address(bytes.fromhex("02 80 0001 00000000")) == nat_pmp.Refusal(1)


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        address_response(1)[:-1],
        address_response(1) + b"\0",
        grant_response(1),
        b"\x01" + address_response(1)[1:],
        b"\0\0" + address_response(1)[2:],
    ],
)
def test_what_is_no_answer_is_ignored(datagram: bytes) -> None:
    assert nat_pmp.read_external_address(datagram) is None


def test_a_grant_of_another_port_is_not_ours() -> None:
    assert nat_pmp.read_grant(grant_response(1), WantedPort("tcp", 4002, 4001, 60)) is None
    assert nat_pmp.read_grant(grant_response(1), WantedPort("udp", 4001, 4001, 60)) is None


@given(st.binary(max_size=40))
def test_no_bytes_break_the_readers(datagram: bytes) -> None:
    nat_pmp.read_external_address(datagram)
    nat_pmp.read_grant(datagram, WANTED)


def test_a_gateway_that_began_anew_is_noticed() -> None:
    epoch = nat_pmp.Epoch()
    assert not epoch.observe(1000, 50.0)
    assert not epoch.observe(1100, 150.0)
    assert epoch.observe(30, 180.0)
    assert not epoch.observe(60, 210.0)


@given(st.integers(0, 2**31), st.lists(st.floats(0, 1e5), min_size=1, max_size=20), st.floats(0.88, 2.0))
def test_a_gateway_whose_clock_differs_by_an_eighth_has_not(
    start_s: int, steps_s: list[float], speed: float
) -> None:
    epoch = nat_pmp.Epoch()
    now = 0.0
    assert not epoch.observe(start_s, now)
    for step_s in steps_s:
        now += step_s
        assert not epoch.observe(int(start_s + now * speed), now)


def test_a_request_is_sent_again_ever_later_and_then_no_more() -> None:
    exchange = Exchange(b"?", nat_pmp.WAITS_S, lambda datagram, _: datagram, now=100.0)
    sent_at = []
    while (now := exchange.next_timeout()) is not None:
        if exchange.handle_timeout(now):
            sent_at.append(now - 100.0)
    assert sent_at == [0.0, 0.25, 0.75, 1.75, 3.75]
    assert now is None
    assert exchange.answer is None


def test_a_timeout_that_comes_early_sends_nothing() -> None:
    exchange = Exchange(b"?", (1.0, 1.0), lambda datagram, _: datagram, now=0.0)
    assert exchange.handle_timeout(0.0) == b"?"
    assert exchange.handle_timeout(0.5) is None
    assert exchange.next_timeout() == 1.0


def test_an_answer_ends_it_and_a_flood_of_others_too() -> None:
    def read(datagram: bytes, _: object) -> bytes | None:
        return datagram if datagram == b"!" else None

    answered = Exchange(b"?", (1.0,), read, now=0.0)
    answered.receive(b"other", ())
    assert answered.next_timeout() is not None
    answered.receive(b"!", ())
    assert (answered.answer, answered.next_timeout()) == (b"!", None)

    flooded = Exchange(b"?", (1.0,), read, now=0.0)
    for _ in range(STRAYS_MAX + 1):
        flooded.receive(b"other", ())
    assert (flooded.answer, flooded.next_timeout()) == (None, None)


ROUTES = """Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
wlan0	00000000	0100A8C0	0003	0	0	600	00000000	0	0	0
eth0	00000000	010200C0	0003	0	0	100	00000000	0	0	0
tun0	00000000	00000000	0001	0	0	0	00000000	0	0	0
eth0	000200C0	00000000	0001	0	0	0	00FFFFFF	0	0	0
eth0	0000000A	0101000A	0003	0	0	0	000000FF	0	0	0
"""


@pytest.mark.skipif(
    struct.pack("=I", 1) != struct.pack("<I", 1), reason="the lines are of a little-endian machine"
)
def test_the_default_route_with_the_lowest_metric_is_found() -> None:
    assert parse_gateway(ROUTES.splitlines()) == ipaddress.IPv4Address("192.0.2.1")


@given(st.lists(st.text(max_size=80), max_size=10))
def test_no_routing_table_breaks_the_reader(lines: list[str]) -> None:
    parse_gateway(["header", *lines])


def test_no_routing_table_and_no_default_route_are_said(tmp_path) -> None:
    with pytest.raises(PortMappingFailed, match="not known"):
        default_gateway(tmp_path / "route")
    (tmp_path / "route").write_text(ROUTES.splitlines()[0])
    with pytest.raises(PortMappingFailed, match="no gateway"):
        default_gateway(tmp_path / "route")


class FakeGateway:
    """Answers on loopback with what it is told, one list of datagrams per request."""

    def __init__(self, answer: Callable[[bytes], list[bytes]]) -> None:
        self.answer = answer
        self.requests: list[bytes] = []

    async def run(self, task_status=trio.TASK_STATUS_IGNORED) -> None:
        with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as socket:
            await socket.bind(("127.0.0.1", 0))
            task_status.started(socket.getsockname()[1])
            while True:
                request, sender = await socket.recvfrom(100)
                self.requests.append(request)
                for datagram in self.answer(request):
                    await socket.sendto(datagram, sender)


async def gateway_that(nursery: trio.Nursery, answer: Callable[[bytes], list[bytes]]) -> NatPmpGateway:
    return NatPmpGateway("127.0.0.1", await nursery.start(FakeGateway(answer).run))


async def test_a_gateway_maps_a_port_among_garbage(nursery: trio.Nursery) -> None:
    def answer(request: bytes) -> list[bytes]:
        right = address_response(5) if len(request) == 2 else grant_response(5, 4002, 10**9)
        return [b"", b"garbage", grant_response(1)[:9], right]

    gateway = await gateway_that(nursery, answer)
    assert not await gateway.look()
    mapped = await gateway.map_port(WANTED)
    assert (mapped.external_address, mapped.external_port) == (HOME, 4002)
    # No longer than was asked for, whatever it says.
    assert mapped.lifetime_s == 7200
    assert await gateway.check(mapped) == mapped


async def test_a_gateway_that_restarts_has_forgotten(nursery: trio.Nursery) -> None:
    epochs_s = iter([1000, 1000, 0])
    gateway = await gateway_that(
        nursery,
        lambda request: [(address_response if len(request) == 2 else grant_response)(next(epochs_s))],
    )
    await gateway.look()
    mapped = await gateway.map_port(WANTED)
    assert await gateway.check(mapped) is None


@pytest.mark.parametrize(
    ("datagrams", "why"),
    [
        ([], "no answer"),
        ([b"garbage"] * (STRAYS_MAX + 1), "no answer"),
        ([grant_response(0, lifetime_s=0)], "granted nothing"),
        ([grant_response(0, external_port=0)], "granted nothing"),
        ([bytes.fromhex("00 82 0004 00000000")], "no room"),
        ([bytes.fromhex("00 82 00ff 00000000")], "it said 255"),
    ],
)
async def test_a_gateway_that_grants_nothing_says_why(
    datagrams: list[bytes], why: str, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.01
    gateway = await gateway_that(nursery, lambda request: datagrams)
    with pytest.raises(PortMappingFailed, match=why):
        await gateway.map_port(WANTED)


async def test_where_nobody_listens_nothing_is_waited_for() -> None:
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as unused:
        await unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(PortMappingFailed, match="nobody listens"):
        await NatPmpGateway("127.0.0.1", port).look()
