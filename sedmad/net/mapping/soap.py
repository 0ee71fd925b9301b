"""What a UPnP gateway is asked and how it answers: control URLs, SOAP calls, faults. No sockets.

Sources: UPnP Device Architecture 1.1, sections 2.3 and 3.2; WANIPConnection:1, section 2.4.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass

from sedmad.net.mapping.lan_url import LanUrl, parse_lan_url
from sedmad.net.mapping.plain_xml import Element, parse_plain_xml

# The services that keep port mappings, best first.
SERVICE_TYPES = tuple(
    f"urn:schemas-upnp-org:service:{service}"
    for service in ("WANIPConnection:2", "WANIPConnection:1", "WANPPPConnection:1")
)
# A gateway has one or two ways to the internet; more are not tried.
SERVICES_MAX = 4
# Faults of the service, and what they mean here.
NO_SUCH_ENTRY = 714
CONFLICT = 718
ONLY_PERMANENT = 725


@dataclass(frozen=True, slots=True)
class Service:
    """A service of a gateway: its type, one of SERVICE_TYPES, and where it is called."""

    service_type: str
    control_url: LanUrl


@dataclass(frozen=True, slots=True)
class Fault:
    """A call's refusal: the service's code, 0 where there is none, and its words."""

    code: int
    words: str


def read_services(description: bytes, location: LanUrl) -> list[Service]:
    """Return the services that keep port mappings, best first, out of a device's description.

    Args:
        description: the XML document.
        location: where it was fetched; services at other hosts are left out.

    Raises:
        NotPlainXml: the description is none.
    """
    root = parse_plain_xml(description)
    base = parse_lan_url(root.text_of("URLBase"), location.host) or location
    services = []
    for element in root.walk():
        service_type = element.text_of("serviceType")
        if element.name != "service" or service_type not in SERVICE_TYPES:
            continue
        control_url = parse_lan_url(element.text_of("controlURL"), location.host, base)
        if control_url is not None:
            services.append(Service(service_type, control_url))
    return sorted(services, key=lambda service: SERVICE_TYPES.index(service.service_type))[:SERVICES_MAX]


def call_headers(service_type: str, action: str) -> list[tuple[str, str]]:
    """Return the HTTP headers of a call."""
    return [("Content-Type", 'text/xml; charset="utf-8"'), ("SOAPAction", f'"{service_type}#{action}"')]


def call_body(service_type: str, action: str, arguments: Mapping[str, str | int]) -> bytes:
    """Return the HTTP body of a call; arguments go in the order of the mapping, as the service demands."""
    inner = "".join(f"<{name}>{html.escape(str(value))}</{name}>" for name, value in arguments.items())
    return (
        '<?xml version="1.0"?>\r\n'
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"'
        ' s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
        f'<u:{action} xmlns:u="{service_type}">{inner}</u:{action}>'
        "</s:Body></s:Envelope>\r\n"
    ).encode()


def read_answer(body: bytes, action: str) -> dict[str, str] | Fault:
    """Return the values that a call answered, or its fault.

    Raises:
        NotPlainXml: it is neither.
    """
    root = parse_plain_xml(body)
    for element in root.walk():
        if element.name == f"{action}Response":
            return {child.name: child.text.strip() for child in element.children}
        if element.name == "UPnPError":
            return _read_fault(element)
    return Fault(0, "the answer has no result")


def _read_fault(element: Element) -> Fault:
    code = element.text_of("errorCode")
    words = "".join(letter for letter in element.text_of("errorDescription") if letter.isprintable())
    return Fault(int(code) if code.isascii() and code.isdigit() and len(code) <= 4 else 0, words[:80])
