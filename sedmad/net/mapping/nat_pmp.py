"""NAT-PMP (RFC 6886): its messages, and how a gateway that restarted is noticed. No sockets and no clock."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from sedmad.net.mapping.gateway import WantedPort

PORT = 5351
# RFC 6886, section 3.1: 250 ms, doubled. It goes on to nine sendings and two minutes; but a gateway is one hop away,
# and UPnP is tried beside it.
WAITS_S = (0.25, 0.5, 1.0, 2.0, 4.0)
RESULTS = {
    1: "it speaks another version",
    2: "it is switched off there, or not allowed",
    3: "the gateway has no address itself",
    4: "it has no room for more",
    5: "it does not know the request",
}

_VERSION = 0
_EXTERNAL_ADDRESS = 0
_MAP = {"udp": 1, "tcp": 2}
_RESPONSE = 128
_HEADER = struct.Struct("!BBHI")
_REQUEST = struct.Struct("!BBHHHI")
_GRANT = struct.Struct("!HHI")


@dataclass(frozen=True, slots=True)
class Refusal:
    """The gateway's result code, one of RESULTS where it keeps to the RFC."""

    code: int


@dataclass(frozen=True, slots=True)
class ExternalAddress:
    """The gateway's address outside, and its seconds since it began to keep mappings."""

    epoch_s: int
    address: ipaddress.IPv4Address


@dataclass(frozen=True, slots=True)
class Grant:
    """A mapping as the gateway made it; a lifetime of 0 means that it was removed."""

    epoch_s: int
    internal_port: int
    external_port: int
    lifetime_s: int


def external_address_request() -> bytes:
    """Return the request for the gateway's address outside (section 3.2)."""
    return bytes((_VERSION, _EXTERNAL_ADDRESS))


def map_request(wanted: WantedPort) -> bytes:
    """Return the request for a mapping (section 3.3)."""
    opcode = _MAP[wanted.transport]
    return _REQUEST.pack(_VERSION, opcode, 0, wanted.internal_port, wanted.external_port, wanted.lifetime_s)


def remove_request(wanted: WantedPort) -> bytes:
    """Return the request to remove a mapping (section 3.4): no external port, no lifetime."""
    return _REQUEST.pack(_VERSION, _MAP[wanted.transport], 0, wanted.internal_port, 0, 0)


def read_external_address(datagram: bytes) -> ExternalAddress | Refusal | None:
    """Return what a response to `external_address_request` says, None for any other datagram."""
    header = _read_header(datagram, _EXTERNAL_ADDRESS)
    if header is None or isinstance(header, Refusal):
        return header
    rest = datagram[_HEADER.size :]
    return ExternalAddress(header, ipaddress.IPv4Address(rest)) if len(rest) == 4 else None


def read_grant(datagram: bytes, wanted: WantedPort) -> Grant | Refusal | None:
    """Return what a response to a mapping or its removal says, None for any other datagram or port."""
    header = _read_header(datagram, _MAP[wanted.transport])
    if header is None or isinstance(header, Refusal):
        return header
    if len(datagram) != _HEADER.size + _GRANT.size:
        return None
    grant = Grant(header, *_GRANT.unpack_from(datagram, _HEADER.size))
    return grant if grant.internal_port == wanted.internal_port else None


def _read_header(datagram: bytes, opcode: int) -> int | Refusal | None:
    """Return a response's epoch, or the refusal it is; None where it is no response to that opcode."""
    if len(datagram) < _HEADER.size:
        return None
    version, answered, result, epoch_s = _HEADER.unpack_from(datagram)
    if answered != _RESPONSE + opcode:
        return None
    if result:
        return Refusal(result)
    # A gateway of another version may say so in its own (section 3.5), but grants nothing in it.
    return int(epoch_s) if version == _VERSION else None


class Epoch:
    """Whether a gateway has forgotten its mappings: its clock shows less than it must (section 3.6)."""

    def __init__(self) -> None:
        self._seen: tuple[int, float] | None = None

    def observe(self, epoch_s: int, now: float) -> bool:
        """Take the epoch of a response, and return whether the gateway has begun anew since the last one."""
        before, self._seen = self._seen, (epoch_s, now)
        if before is None:
            return False
        seen_s, seen_at = before
        # An eighth for clocks that differ, two seconds for the way.
        return epoch_s < seen_s + (now - seen_at) * 7 / 8 - 2
