"""What a gateway's port mapping is, whichever protocol made it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Literal, Protocol

Transport = Literal["tcp", "udp"]

# Addresses that nobody on the internet can dial. Python's is_global would also refuse the documentation ranges, which
# test networks use as their internet.
_NOT_PUBLIC = tuple(
    (ipaddress.IPv4Network(network), what)
    for network, what in (
        ("0.0.0.0/8", "no address"),
        ("10.0.0.0/8", "a private address: there is another NAT behind the gateway"),
        ("100.64.0.0/10", "an address of a carrier's NAT (RFC 6598)"),
        ("127.0.0.0/8", "a loopback address"),
        ("169.254.0.0/16", "a link-local address"),
        ("172.16.0.0/12", "a private address: there is another NAT behind the gateway"),
        ("192.168.0.0/16", "a private address: there is another NAT behind the gateway"),
        ("224.0.0.0/3", "no address of a host"),
    )
)


@dataclass(frozen=True, slots=True)
class WantedPort:
    """What a gateway is asked for.

    Attributes:
        transport: of the packets to forward.
        internal_port: where this machine listens.
        external_port: the gateway's port that is preferred.
        lifetime_s: how long it should hold, in whole seconds.
    """

    transport: Transport
    internal_port: int
    external_port: int
    lifetime_s: int


@dataclass(frozen=True, slots=True)
class MappedPort:
    """What a gateway granted.

    Attributes:
        protocol: which one was spoken.
        transport: of the packets that are forwarded.
        internal_port: where this machine listens.
        external_address: the gateway's address outside, as it says.
        external_port: the gateway's port.
        lifetime_s: seconds after which it has to be renewed, counted from when it was granted.
    """

    protocol: str
    transport: Transport
    internal_port: int
    external_address: ipaddress.IPv4Address
    external_port: int
    lifetime_s: float


class Gateway(Protocol):
    """A gateway that answered. Every method raises PortMappingFailed where it refuses, is silent or talks nonsense."""

    protocol: str

    async def map_port(self, wanted: WantedPort) -> MappedPort:
        """Make a mapping, or renew it.

        Raises:
            PortTaken: the external port is another host's; another one may be free.
        """

    async def check(self, mapped: MappedPort) -> MappedPort | None:
        """Return the mapping as it is now, None where the gateway has forgotten it."""

    async def remove(self, wanted: WantedPort) -> None:
        """Remove a mapping of this machine; one that is not there, or another host's, is left as it is."""


def why_useless(address: ipaddress.IPv4Address) -> str:
    """Return why nobody outside can dial an external address, empty where they can."""
    return next((what for network, what in _NOT_PUBLIC if address in network), "")
