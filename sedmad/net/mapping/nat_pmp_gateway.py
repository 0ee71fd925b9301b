"""Speaks NAT-PMP with the default gateway over UDP."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Callable
from typing import TypeVar

import trio

from sedmad.errors import PortMappingFailed
from sedmad.net.exchange import Exchange, ask
from sedmad.net.mapping import nat_pmp
from sedmad.net.mapping.default_route import default_gateway
from sedmad.net.mapping.gateway import MappedPort, WantedPort

Response = TypeVar("Response")


class NatPmpGateway:
    """A gateway that speaks NAT-PMP (RFC 6886).

    Args:
        address: its address inside.
        port: where it listens.
    """

    protocol = "nat-pmp"

    def __init__(self, address: str, port: int = nat_pmp.PORT) -> None:
        self._where = (address, port)
        self._epoch = nat_pmp.Epoch()
        self._external_address = ipaddress.IPv4Address(0)

    async def look(self) -> bool:
        """Ask for its external address; return whether it has forgotten its mappings since the last response.

        Raises:
            PortMappingFailed: it refuses or is silent.
        """
        found = await self._ask(nat_pmp.external_address_request(), nat_pmp.read_external_address)
        self._external_address = found.address
        return self._epoch.observe(found.epoch_s, trio.current_time())

    async def external_address(self) -> ipaddress.IPv4Address:
        """Return its address outside, as it says.

        Raises:
            PortMappingFailed: it refuses or is silent.
        """
        await self.look()
        return self._external_address

    async def map_port(self, wanted: WantedPort) -> MappedPort:
        grant = await self._ask(
            nat_pmp.map_request(wanted), lambda datagram: nat_pmp.read_grant(datagram, wanted)
        )
        self._epoch.observe(grant.epoch_s, trio.current_time())
        if not grant.external_port or not grant.lifetime_s:
            raise self._failed("it granted nothing")
        return MappedPort(
            self.protocol,
            wanted.transport,
            wanted.internal_port,
            self._external_address,
            grant.external_port,
            min(grant.lifetime_s, wanted.lifetime_s),
        )

    async def check(self, mapped: MappedPort) -> MappedPort | None:
        if await self.look():
            return None
        return dataclasses.replace(mapped, external_address=self._external_address)

    async def remove(self, wanted: WantedPort) -> None:
        await self._ask(nat_pmp.remove_request(wanted), lambda datagram: nat_pmp.read_grant(datagram, wanted))

    async def _ask(
        self, request: bytes, read: Callable[[bytes], Response | nat_pmp.Refusal | None]
    ) -> Response:
        exchange: Exchange[Response | nat_pmp.Refusal] = Exchange(
            request, nat_pmp.WAITS_S, lambda datagram, _: read(datagram), trio.current_time()
        )
        try:
            with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as socket:
                # The kernel passes on nothing from other addresses, and says where nobody listens.
                await socket.connect(self._where)
                answer = await ask(socket, exchange)
        except OSError as error:
            raise self._failed(f"nobody listens there: {error.strerror}") from error
        if answer is None:
            raise self._failed("it gave no answer")
        if isinstance(answer, nat_pmp.Refusal):
            raise self._failed(nat_pmp.RESULTS.get(answer.code, f"it said {answer.code}"))
        return answer

    def _failed(self, why: str) -> PortMappingFailed:
        return PortMappingFailed(f"no port mapping by NAT-PMP at {self._where[0]}", why=why)


async def find_nat_pmp() -> NatPmpGateway:
    """Return the default gateway, if it speaks NAT-PMP.

    Raises:
        PortMappingFailed: it does not, or there is none.
    """
    gateway = NatPmpGateway(str(default_gateway()))
    await gateway.look()
    return gateway
