"""SSDP, by which UPnP devices are found: the search, and what answers say. No sockets.

Source: UPnP Device Architecture 1.1, section 1.3.
"""

from __future__ import annotations

from sedmad.net.mapping.lan_url import LanUrl, parse_lan_url

GROUP = ("239.255.255.250", 1900)
# Both generations of gateways, and the service alone, as some answer only for that.
TARGETS = (
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
)
# Devices answer within this many seconds, at a moment of their choice.
ANSWER_WITHIN_S = 1
# What real devices send has a dozen headers.
_HEADERS_MAX = 64


def search_request(target: str) -> bytes:
    """Return the datagram that asks devices of a kind to say where they are described."""
    return (
        "M-SEARCH * HTTP/1.1\r\n"
        f"HOST: {GROUP[0]}:{GROUP[1]}\r\n"
        'MAN: "ssdp:discover"\r\n'
        f"MX: {ANSWER_WITHIN_S}\r\n"
        f"ST: {target}\r\n\r\n"
    ).encode("ascii")


def read_location(datagram: bytes, sender: str) -> LanUrl | None:
    """Return where the sender of an answer says that it is described, None where that is not at the sender itself.

    Otherwise anybody on the network could have this node send requests to hosts of their choice.
    """
    status, *headers = datagram.decode("ascii", errors="replace").split("\r\n", _HEADERS_MAX)
    if status.split(" ")[:2] not in (["HTTP/1.1", "200"], ["HTTP/1.0", "200"]):
        return None
    for header in headers:
        name, _, value = header.partition(":")
        if name.strip().lower() == "location":
            return parse_lan_url(value.strip(), sender)
    return None
