"""Addresses of what gateways serve over HTTP: plain, at a numeric address that is already known."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

URL_BYTES_MAX = 1024


@dataclass(frozen=True, slots=True)
class LanUrl:
    """http://host:port/path with an IPv4 address for a host, and a path that may stand in a request line."""

    host: str
    port: int
    path: str


def parse_lan_url(text: str, host: str, base: LanUrl | None = None) -> LanUrl | None:
    """Return a URL, or None where it is malformed or leads to another host than the given one.

    Args:
        text: absolute, or a path where there is a base.
        host: an IPv4 address.
        base: what a path is relative to.
    """
    if len(text) > URL_BYTES_MAX or not all("!" <= letter <= "~" for letter in text):
        return None
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return None
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not parts.scheme and not parts.netloc:
        # Devices write paths from the root, some without the slash.
        return LanUrl(base.host, base.port, "/" + path.removeprefix("/")) if base else None
    if parts.scheme != "http" or "@" in parts.netloc or port == 0 or not _same(parts.hostname, host):
        return None
    return LanUrl(host, port or 80, path)


def _same(name: str | None, host: str) -> bool:
    try:
        return ipaddress.IPv4Address(name or "") == ipaddress.IPv4Address(host)
    except ValueError:
        return False
