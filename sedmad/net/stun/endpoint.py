"""An address and a port, as a socket, a message and a person write them."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a UDP socket is."""

    host: IPAddress
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if self.host.version == 6 else str(self.host)
        return f"{host}:{self.port}"

    def to_socket(self) -> tuple[str, int]:
        """Return it as a socket takes it."""
        return str(self.host), self.port


def from_socket(address: tuple[Any, ...]) -> Endpoint:
    """Return what a socket names (host, port, ...); IPv4 behind an IPv6 socket becomes IPv4 again."""
    host = ipaddress.ip_address(str(address[0]).partition("%")[0])
    if isinstance(host, ipaddress.IPv6Address) and host.ipv4_mapped is not None:
        host = host.ipv4_mapped
    return Endpoint(host, int(address[1]))
