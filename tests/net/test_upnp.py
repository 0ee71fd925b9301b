from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from sedmad.errors import PortMappingFailed, PortTaken
from sedmad.net.mapping import lan_http, soap, ssdp
from sedmad.net.mapping.gateway import WantedPort
from sedmad.net.mapping.lan_url import LanUrl, parse_lan_url
from sedmad.net.mapping.plain_xml import DEPTH_MAX, ELEMENTS_MAX, NotPlainXml, parse_plain_xml
from sedmad.net.mapping.upnp import UpnpGateway

HOST = "192.168.1.1"
LOCATION = LanUrl(HOST, 5000, "/root.xml")
WANTED = WantedPort("tcp", 4001, 4001, 3600)
WAN_IP = "urn:schemas-upnp-org:service:WANIPConnection:1"

DESCRIPTION = """<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><device><friendlyName>R &amp; D</friendlyName>
<deviceList><device><deviceList><device>
 <serviceList>
  <service><serviceType>urn:schemas-upnp-org:service:WANPPPConnection:1</serviceType><controlURL>/ppp</controlURL></service>
  <service><serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType><controlURL>/l3</controlURL></service>
  <service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>ctl/ip</controlURL></service>
  <service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:2</serviceType>
   <controlURL>http://10.9.9.9/elsewhere</controlURL></service>
 </serviceList>
</device></deviceList></device></deviceList></device></root>"""


def answer_of(headers: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    return f"{status}\r\nCACHE-CONTROL: max-age=120\r\n{headers}\r\nST: x\r\n\r\n".encode()


def test_an_answer_to_a_search_says_where_the_gateway_is_described() -> None:
    assert ssdp.read_location(answer_of("Location: http://192.168.1.1:5000/root.xml"), HOST) == LOCATION
    assert ssdp.read_location(answer_of("LOCATION:http://192.168.1.1"), HOST) == LanUrl(HOST, 80, "/")


@pytest.mark.parametrize(
    "datagram",
    [
        answer_of("LOCATION: http://192.168.1.2:5000/root.xml"),
        answer_of("LOCATION: http://192.168.1.1.example.org/"),
        answer_of("LOCATION: http://192.168.1.1@10.0.0.1/"),
        answer_of("LOCATION: https://192.168.1.1/"),
        answer_of("LOCATION: file:///etc/passwd"),
        answer_of("LOCATION: http://192.168.1.1:99999/"),
        answer_of("LOCATION: http://192.168.1.1/a b"),
        answer_of("LOCATION: /root.xml"),
        answer_of("LOCATION: http://192.168.1.1/" + "x" * 1100),
        answer_of("LOCATION: http://192.168.1.1/", status="HTTP/1.1 404 Not Found"),
        answer_of("LOCATION: http://192.168.1.1/", status="NOTIFY * HTTP/1.1"),
        b"",
    ],
)
def test_answers_that_lead_elsewhere_are_not_followed(datagram: bytes) -> None:
    assert ssdp.read_location(datagram, HOST) is None


@given(st.binary(max_size=200))
def test_no_bytes_break_what_reads_answers_to_searches(datagram: bytes) -> None:
    ssdp.read_location(datagram, HOST)
    ssdp.read_location(b"HTTP/1.1 200 OK\r\nLOCATION:" + datagram, HOST)


@given(st.text(max_size=60))
def test_a_url_leads_to_the_given_host_or_is_none(text: str) -> None:
    for url in (parse_lan_url(text, HOST, LOCATION), parse_lan_url("http://" + text, HOST)):
        assert url is None or (url.host == HOST and url.path.startswith("/") and 1 <= url.port <= 65535)


def test_services_are_found_best_first_and_none_elsewhere() -> None:
    assert soap.read_services(DESCRIPTION.encode(), LOCATION) == [
        soap.Service(WAN_IP, LanUrl(HOST, 5000, "/ctl/ip")),
        soap.Service("urn:schemas-upnp-org:service:WANPPPConnection:1", LanUrl(HOST, 5000, "/ppp")),
    ]


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE root [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {two} "{f"&{one};" * 10}">' for one, two in zip("abcdefgh", "bcdefghi", strict=True))
    + "]><root>&i;</root>"
)


@pytest.mark.parametrize(
    "document",
    [
        BOMB,
        '<!DOCTYPE root SYSTEM "file:///etc/passwd"><root/>',
        '<!DOCTYPE r [<!ENTITY x SYSTEM "file:///etc/passwd">]><r>&x;</r>',
        "<root>&unknown;</root>",
        "<a>" * (DEPTH_MAX + 1) + "</a>" * (DEPTH_MAX + 1),
        "<a>" + "<b/>" * ELEMENTS_MAX + "</a>",
        "<a>",
        "",
        "not XML",
        '<?xml version="1.0" encoding="utf-16"?><a>\udcff</a>',
    ],
)
def test_xml_that_is_more_than_plain_is_refused(document: str) -> None:
    with pytest.raises(NotPlainXml):
        parse_plain_xml(document.encode("utf-8", errors="surrogateescape"))


def test_plain_xml_is_read_without_its_namespaces() -> None:
    root = parse_plain_xml('<a xmlns:n="u"><n:b x="1"> caf\u00e9 &amp;</n:b><!-- no --><b>2</b></a>'.encode())
    assert [element.name for element in root.walk()] == ["a", "b", "b"]
    assert root.text_of("b") == "caf\u00e9 &"


@given(st.one_of(st.binary(max_size=200), st.text("<>/a&;!?[]\"' =:", max_size=80).map(str.encode)))
def test_no_bytes_break_the_readers_of_xml(document: bytes) -> None:
    for read in (
        lambda: soap.read_services(document, LOCATION),
        lambda: soap.read_answer(document, "GetExternalIPAddress"),
    ):
        try:
            read()
        except NotPlainXml:
            continue


def test_calls_are_written_so_that_nothing_in_them_is_markup() -> None:
    body = soap.call_body(WAN_IP, "Act", {"NewA": "<&>", "NewB": 1})
    call = next(element for element in parse_plain_xml(body).walk() if element.name == "Act")
    assert [(child.name, child.text) for child in call.children] == [("NewA", "<&>"), ("NewB", "1")]


# What follows speaks HTTP over loopback.

Answerer = Callable[[trio.SocketStream, bytes], Awaitable[None]]


async def serve(nursery: trio.Nursery, answer: Answerer) -> LanUrl:
    async def serve_one(stream: trio.SocketStream) -> None:
        request = bytearray()
        with trio.CancelScope() as scope:
            while b"</s:Envelope>" not in request and not (request[:3] == b"GET" and b"\r\n\r\n" in request):
                if not (data := await stream.receive_some()):
                    scope.cancel()
                request += data
            try:
                await answer(stream, bytes(request))
            except trio.BrokenResourceError:
                return
            finally:
                await trio.aclose_forcefully(stream)

    listeners = await nursery.start(trio.serve_tcp, serve_one, 0)
    port = next(one.socket.getsockname()[1] for one in listeners if one.socket.family == trio.socket.AF_INET)
    return LanUrl("127.0.0.1", port, "/ctl")


def saying(document: str | bytes, status: str = "200 OK") -> bytes:
    body = document if isinstance(document, bytes) else document.encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def endless(stream: trio.SocketStream, _: bytes) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        await stream.send_all(b"1000\r\n" + b"x" * 4096 + b"\r\n")


async def endless_headers(stream: trio.SocketStream, _: bytes) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\n")
    while True:
        await stream.send_all(b"X-Name: value\r\n" * 100)


async def dripping(stream: trio.SocketStream, _: bytes) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        await stream.send_all(b"x")
        await trio.sleep(0.5)


async def silent(stream: trio.SocketStream, _: bytes) -> None:
    await trio.sleep_forever()


async def garbage(stream: trio.SocketStream, _: bytes) -> None:
    await stream.send_all(b"\x00\xff garbage\r\n\r\n")


async def closing(stream: trio.SocketStream, _: bytes) -> None:
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("answer", [endless, endless_headers, dripping, silent, garbage, closing])
async def test_gateways_that_answer_anyhow_cost_a_bounded_time(
    answer: Answerer, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.02
    url = await serve(nursery, answer)
    with pytest.raises(PortMappingFailed, match=f"gateway at 127.0.0.1:{url.port}"):
        await lan_http.fetch(url)
    assert trio.current_time() <= lan_http.ANSWER_WITHIN_S + 0.1
    nursery.cancel_scope.cancel()


async def test_where_nobody_listens_it_is_said(nursery: trio.Nursery) -> None:
    with trio.socket.socket() as unused:
        await unused.bind(("127.0.0.1", 0))
        with pytest.raises(PortMappingFailed):
            await lan_http.fetch(LanUrl("127.0.0.1", unused.getsockname()[1], "/"))


async def test_an_answer_in_chunks_and_one_that_ends_with_the_connection_are_read(
    nursery: trio.Nursery,
) -> None:
    async def chunks(stream: trio.SocketStream, request: bytes) -> None:
        assert request.startswith(b"GET /ctl HTTP/1.1\r\n")
        start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        await stream.send_all(start + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")

    async def until_closed(stream: trio.SocketStream, _: bytes) -> None:
        await stream.send_all(b"HTTP/1.0 500 No\r\n\r\nabcde")

    assert await lan_http.fetch(await serve(nursery, chunks)) == lan_http.Reply(200, b"abcde")
    assert await lan_http.fetch(await serve(nursery, until_closed)) == lan_http.Reply(500, b"abcde")
    nursery.cancel_scope.cancel()


class FakeService:
    """A WANIPConnection service that keeps its entries, with the ways of real ones."""

    def __init__(self, *, only_permanent: bool = False, tells: bool = True, lies: bool = False) -> None:
        self.entries: dict[str, dict[str, str]] = {}
        self.address = "203.0.113.7"
        self.only_permanent, self.tells, self.lies = only_permanent, tells, lies

    async def answer(self, stream: trio.SocketStream, request: bytes) -> None:
        call = next(
            element
            for element in parse_plain_xml(request.partition(b"\r\n\r\n")[2]).walk()
            if element.name == "Body"
        ).children[0]
        assert f'"{WAN_IP}#{call.name}"'.encode() in request
        arguments = {child.name: child.text for child in call.children}
        values = getattr(self, call.name)(arguments)
        if isinstance(values, int):
            fault = f"<UPnPError><errorCode>{values}</errorCode><errorDescription>No</errorDescription></UPnPError>"
            await stream.send_all(
                saying(f"<E><Body><Fault>{fault}</Fault></Body></E>", "500 Internal Server Error")
            )
        else:
            inner = "".join(f"<{name}>{value}</{name}>" for name, value in values.items())
            await stream.send_all(
                saying(f"<E><Body><{call.name}Response>{inner}</{call.name}Response></Body></E>")
            )

    def GetExternalIPAddress(self, _: dict[str, str]) -> dict[str, str]:  # noqa: N802
        return {"NewExternalIPAddress": self.address}

    def GetSpecificPortMappingEntry(self, arguments: dict[str, str]) -> dict[str, str] | int:  # noqa: N802
        assert arguments["NewProtocol"] == "TCP"
        return self.entries.get(arguments["NewExternalPort"], 714) if self.tells else 401

    def AddPortMapping(self, arguments: dict[str, str]) -> dict[str, str] | int:  # noqa: N802
        if self.only_permanent and arguments["NewLeaseDuration"] != "0":
            return 725
        there = self.entries.get(arguments["NewExternalPort"])
        if there and there["NewInternalClient"] != arguments["NewInternalClient"]:
            return 718
        if not self.lies:
            self.entries[arguments["NewExternalPort"]] = {
                name: arguments[name] for name in ("NewInternalClient", "NewInternalPort", "NewLeaseDuration")
            }
        return {}

    def DeletePortMapping(self, arguments: dict[str, str]) -> dict[str, str] | int:  # noqa: N802
        return {} if self.entries.pop(arguments["NewExternalPort"], None) else 714


async def gateway_of(service: FakeService, nursery: trio.Nursery) -> UpnpGateway:
    return UpnpGateway(soap.Service(WAN_IP, await serve(nursery, service.answer)), "192.168.1.20")


async def test_a_port_is_mapped_checked_and_removed(nursery: trio.Nursery) -> None:
    service = FakeService()
    gateway = await gateway_of(service, nursery)
    mapped = await gateway.map_port(WANTED)
    assert (mapped.external_address, mapped.external_port) == (ipaddress.IPv4Address("203.0.113.7"), 4001)
    assert mapped.lifetime_s == 3600
    assert await gateway.check(mapped) == mapped
    await gateway.remove(WANTED)
    assert service.entries == {}
    assert await gateway.check(mapped) is None
    await gateway.remove(WANTED)
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("tells", [True, False])
async def test_another_hosts_port_is_not_touched(tells: bool, nursery: trio.Nursery) -> None:
    service = FakeService(tells=tells)
    theirs = {"NewInternalClient": "192.168.1.30", "NewInternalPort": "4001", "NewLeaseDuration": "0"}
    service.entries["4001"] = theirs
    gateway = await gateway_of(service, nursery)
    with pytest.raises(PortTaken):
        await gateway.map_port(WANTED)
    if tells:
        await gateway.remove(WANTED)
    assert service.entries == {"4001": theirs}
    nursery.cancel_scope.cancel()


async def test_a_gateway_that_knows_no_leases_is_given_a_permanent_one_that_is_renewed(
    nursery: trio.Nursery,
) -> None:
    service = FakeService(only_permanent=True)
    mapped = await (await gateway_of(service, nursery)).map_port(WANTED)
    assert service.entries["4001"]["NewLeaseDuration"] == "0"
    assert mapped.lifetime_s == WANTED.lifetime_s
    nursery.cancel_scope.cancel()


async def test_a_gateway_that_only_says_so_is_not_believed(nursery: trio.Nursery) -> None:
    gateway = await gateway_of(FakeService(lies=True), nursery)
    with pytest.raises(PortMappingFailed, match="did not map"):
        await gateway.map_port(WANTED)
    nursery.cancel_scope.cancel()


async def test_a_gateway_without_an_address_says_none_or_nonsense(nursery: trio.Nursery) -> None:
    service = FakeService()
    gateway = await gateway_of(service, nursery)
    service.address = ""
    assert (await gateway.external_address()).is_unspecified
    service.address = "sixteen"
    with pytest.raises(PortMappingFailed, match="sixteen"):
        await gateway.external_address()
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("body", [b"", b"\xff\xfe garbage", BOMB.encode(), b"<E/>", b"<UPnPError/>"])
async def test_an_answer_that_is_none_is_a_typed_error(body: bytes, nursery: trio.Nursery) -> None:
    async def answer(stream: trio.SocketStream, _: bytes) -> None:
        await stream.send_all(saying(body))

    gateway = UpnpGateway(soap.Service(WAN_IP, await serve(nursery, answer)), "192.168.1.20")
    with pytest.raises(PortMappingFailed):
        await gateway.map_port(WANTED)
    nursery.cancel_scope.cancel()
