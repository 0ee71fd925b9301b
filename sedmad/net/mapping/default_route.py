"""Where packets to the internet leave this machine: the gateway's address, and our own on that network."""

from __future__ import annotations

import ipaddress
import itertools
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

from sedmad.errors import PortMappingFailed

# Linux; elsewhere the routing table takes a system's own interface, and the gateway is not known.
ROUTES = Path("/proc/net/route")
# A machine that carries more routes than this is a router, and needs no port mapping.
ROUTES_MAX = 4096
# RTF_UP and RTF_GATEWAY of <linux/route.h>.
_UP_AND_GATEWAY = 0x1 | 0x2
# An address that is nobody's (RFC 5737): connecting a UDP socket to it sends nothing, but chooses a source address.
_ANYWHERE = ("192.0.2.1", 9)


def parse_gateway(lines: Iterable[str]) -> ipaddress.IPv4Address | None:
    """Return the gateway of the default route with the lowest metric, out of the lines of /proc/net/route."""
    gateways: list[tuple[int, ipaddress.IPv4Address]] = []
    for line in itertools.islice(lines, 1, ROUTES_MAX):
        fields = line.split()
        try:
            destination, gateway, flags, metric, mask = (
                int(fields[column], base) for column, base in ((1, 16), (2, 16), (3, 16), (6, 10), (7, 16))
            )
            address = ipaddress.IPv4Address(struct.pack("=I", gateway))
        except (ValueError, IndexError, struct.error):
            continue
        if destination == mask == 0 and flags & _UP_AND_GATEWAY == _UP_AND_GATEWAY:
            gateways.append((metric, address))
    return min(gateways, default=(0, None))[1]


def default_gateway(routes: Path = ROUTES) -> ipaddress.IPv4Address:
    """Return the address of the gateway to the internet.

    Raises:
        PortMappingFailed: there is none, or this system does not say.
    """
    try:
        with routes.open(encoding="ascii", errors="replace") as lines:
            gateway = parse_gateway(lines)
    except OSError as error:
        raise PortMappingFailed(
            "the gateway is not known", why=f"{routes} cannot be read: {error.strerror}"
        ) from error
    if gateway is None:
        raise PortMappingFailed("there is no gateway", why="this machine has no default route over IPv4")
    return gateway


def local_address(towards: tuple[str, int] = _ANYWHERE) -> str:
    """Return this machine's IPv4 address on the way to another; sends nothing.

    Raises:
        PortMappingFailed: there is no way.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(towards)
            host: str = probe.getsockname()[0]
            return host
    except OSError as error:
        raise PortMappingFailed("there is no way to the gateway", why=str(error.strerror)) from error
