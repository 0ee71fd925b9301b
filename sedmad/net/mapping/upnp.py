"""Finds a UPnP internet gateway on this network, and has it map ports.

Our own, with h11 and expat below it, rather than miniupnpc in a thread: whoever answers a search on the network is
believed there, and an endless description grew the process to 1.4 GiB in 18 s, which no time-out can end.
"""

from __future__ import annotations

import dataclasses
import ipaddress

import trio

from sedmad.errors import PortMappingFailed, PortTaken
from sedmad.net.exchange import DATAGRAM_BYTES_MAX
from sedmad.net.mapping import lan_http, soap, ssdp
from sedmad.net.mapping.default_route import local_address
from sedmad.net.mapping.gateway import MappedPort, WantedPort
from sedmad.net.mapping.lan_url import LanUrl
from sedmad.net.mapping.plain_xml import NotPlainXml

# Searches are datagrams that nobody repeats: twice, and then as long as answers may take, and a bit.
SEARCHES_AFTER_S = (0.0, 0.5)
FIND_WITHIN_S = 8.0
# A home has one gateway; whoever answers with more is not followed further.
LOCATIONS_MAX = 4
STRAYS_MAX = 256
DESCRIPTION = "sedmad"


class UpnpGateway:
    """A gateway whose WANIPConnection or WANPPPConnection service answers.

    Args:
        service: where it is called.
        own_address: this machine's, as the gateway sees it.
    """

    protocol = "upnp"

    def __init__(self, service: soap.Service, own_address: str) -> None:
        self._service = service
        self._own_address = own_address

    async def external_address(self) -> ipaddress.IPv4Address:
        """Return the gateway's address outside, 0.0.0.0 where it says that it has none.

        Raises:
            PortMappingFailed: it refuses, is silent, or says no address.
        """
        text = (await self._call("GetExternalIPAddress", {})).get("NewExternalIPAddress", "")
        try:
            return ipaddress.IPv4Address(text or 0)
        except ValueError as error:
            raise self._failed(f"it says that its address is {text[:40]!r}") from error

    async def map_port(self, wanted: WantedPort) -> MappedPort:
        entry = await self._entry(wanted)
        if entry and not self._is_ours(entry, wanted):
            # Some gateways would overwrite it without a word.
            raise PortTaken(f"port {wanted.external_port} of the gateway is another host's")
        await self._add(wanted)
        entry = await self._entry(wanted)
        if entry is not None and not self._is_ours(entry, wanted):
            raise self._failed("it said yes, and did not map the port")
        lease_s = _lease_s(entry)
        return MappedPort(
            self.protocol,
            wanted.transport,
            wanted.internal_port,
            await self.external_address(),
            wanted.external_port,
            min(lease_s, wanted.lifetime_s) if lease_s else wanted.lifetime_s,
        )

    async def check(self, mapped: MappedPort) -> MappedPort | None:
        wanted = WantedPort(mapped.transport, mapped.internal_port, mapped.external_port, 0)
        entry = await self._entry(wanted)
        if entry is not None and not self._is_ours(entry, wanted):
            return None
        return dataclasses.replace(mapped, external_address=await self.external_address())

    async def remove(self, wanted: WantedPort) -> None:
        entry = await self._entry(wanted)
        if entry is None or self._is_ours(entry, wanted):
            await self._call("DeletePortMapping", _key(wanted))

    async def _add(self, wanted: WantedPort) -> None:
        arguments = {
            **_key(wanted),
            "NewInternalPort": wanted.internal_port,
            "NewInternalClient": self._own_address,
            "NewEnabled": 1,
            "NewPortMappingDescription": DESCRIPTION,
            "NewLeaseDuration": wanted.lifetime_s,
        }
        answer = await self._try("AddPortMapping", arguments)
        if isinstance(answer, soap.Fault) and answer.code == soap.ONLY_PERMANENT:
            answer = await self._try("AddPortMapping", {**arguments, "NewLeaseDuration": 0})
        if isinstance(answer, soap.Fault):
            if answer.code == soap.CONFLICT:
                raise PortTaken(f"port {wanted.external_port} of the gateway is another host's")
            raise self._refused(answer)

    async def _entry(self, wanted: WantedPort) -> dict[str, str] | None:
        """Return what the gateway keeps for a port, empty where nothing, None where it does not tell."""
        answer = await self._try("GetSpecificPortMappingEntry", _key(wanted))
        if isinstance(answer, soap.Fault):
            return {} if answer.code == soap.NO_SUCH_ENTRY else None
        return answer

    def _is_ours(self, entry: dict[str, str], wanted: WantedPort) -> bool:
        place = entry.get("NewInternalClient"), entry.get("NewInternalPort")
        return place == (self._own_address, str(wanted.internal_port))

    async def _call(self, action: str, arguments: dict[str, str | int]) -> dict[str, str]:
        answer = await self._try(action, arguments)
        if isinstance(answer, soap.Fault):
            raise self._refused(answer)
        return answer

    async def _try(self, action: str, arguments: dict[str, str | int]) -> dict[str, str] | soap.Fault:
        service_type = self._service.service_type
        reply = await lan_http.fetch(
            self._service.control_url,
            method="POST",
            headers=soap.call_headers(service_type, action),
            body=soap.call_body(service_type, action, arguments),
        )
        try:
            return soap.read_answer(reply.body, action)
        except NotPlainXml as error:
            raise self._failed(f"its answer (status {reply.status}) is not XML: {error}") from error

    def _refused(self, fault: soap.Fault) -> PortMappingFailed:
        return self._failed(f"it refused: {fault.words or 'no reason given'} ({fault.code})")

    def _failed(self, why: str) -> PortMappingFailed:
        return PortMappingFailed(f"no port mapping by UPnP at {self._service.control_url.host}", why=why)


def _key(wanted: WantedPort) -> dict[str, str | int]:
    return {
        "NewRemoteHost": "",
        "NewExternalPort": wanted.external_port,
        "NewProtocol": wanted.transport.upper(),
    }


def _lease_s(entry: dict[str, str] | None) -> int:
    """Return the seconds that an entry says it will live, 0 where it says nothing or for ever."""
    text = (entry or {}).get("NewLeaseDuration", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else 0


async def find_upnp() -> UpnpGateway:
    """Return the first gateway on this network that maps ports.

    Raises:
        PortMappingFailed: none answered in time.
    """
    own_address = local_address()
    problems: list[str] = []
    with trio.move_on_after(FIND_WITHIN_S):
        try:
            with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as socket:
                await socket.bind((own_address, 0))
                interface = ipaddress.IPv4Address(own_address).packed
                socket.setsockopt(trio.socket.IPPROTO_IP, trio.socket.IP_MULTICAST_IF, interface)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_search, socket)
                    gateway = await _first_answer(socket, own_address, problems)
                    nursery.cancel_scope.cancel()
                    if gateway is not None:
                        return gateway
        except* OSError as errors:
            problems += [str(error) for error in errors.exceptions]
    raise PortMappingFailed("no gateway speaks UPnP", why="; ".join(problems) or "nobody answered the search")


async def _search(socket: trio.socket.SocketType) -> None:
    for wait_s in SEARCHES_AFTER_S:
        await trio.sleep(wait_s)
        for target in ssdp.TARGETS:
            await socket.sendto(ssdp.search_request(target), ssdp.GROUP)


async def _first_answer(
    socket: trio.socket.SocketType, own_address: str, problems: list[str]
) -> UpnpGateway | None:
    tried: set[LanUrl] = set()
    patience_s = sum(SEARCHES_AFTER_S) + ssdp.ANSWER_WITHIN_S + 0.5
    give_up_at = trio.current_time() + patience_s
    for _ in range(STRAYS_MAX):
        with trio.move_on_at(give_up_at) as waiting:
            datagram, sender = await socket.recvfrom(DATAGRAM_BYTES_MAX)
        if waiting.cancelled_caught or len(tried) == LOCATIONS_MAX:
            break
        location = ssdp.read_location(datagram, sender[0])
        if location is None or location in tried:
            continue
        tried.add(location)
        try:
            return await _open(location, own_address)
        except PortMappingFailed as error:
            problems.append(error.why)
    return None


async def _open(location: LanUrl, own_address: str) -> UpnpGateway:
    """Return the gateway that is described somewhere.

    Raises:
        PortMappingFailed: there is none.
    """
    reply = await lan_http.fetch(location)
    try:
        services = soap.read_services(reply.body, location)
    except NotPlainXml as error:
        raise PortMappingFailed(
            "no gateway", why=f"{location.host} describes itself in no XML: {error}"
        ) from error
    why = f"{location.host} maps no ports"
    for service in services:
        gateway = UpnpGateway(service, own_address)
        try:
            await gateway.external_address()
        except PortMappingFailed as error:
            why = error.why
        else:
            return gateway
    raise PortMappingFailed("no gateway", why=why)
