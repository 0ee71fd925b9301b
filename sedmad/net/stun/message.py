"""STUN messages (RFC 8489, sections 5 and 14; RFC 5780, section 7): bytes to messages and back. No sockets.

Credentials are not checked: a binding says no more than the packet that carries it.
"""

from __future__ import annotations

import ipaddress
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from sedmad.net.stun.endpoint import Endpoint, IPAddress

BINDING_REQUEST = 0x0001
BINDING_SUCCESS = 0x0101
BINDING_ERROR = 0x0111

MAPPED_ADDRESS = 0x0001
CHANGE_REQUEST = 0x0003
USERNAME = 0x0006
MESSAGE_INTEGRITY = 0x0008
ERROR_CODE = 0x0009
UNKNOWN_ATTRIBUTES = 0x000A
REALM = 0x0014
NONCE = 0x0015
MESSAGE_INTEGRITY_SHA256 = 0x001C
XOR_MAPPED_ADDRESS = 0x0020
PRIORITY = 0x0024
USE_CANDIDATE = 0x0025
PADDING = 0x0026
SOFTWARE = 0x8022
FINGERPRINT = 0x8028
RESPONSE_ORIGIN = 0x802B
OTHER_ADDRESS = 0x802C

CHANGE_HOST = 0x4
CHANGE_PORT = 0x2

HEADER_BYTES = 20
TRANSACTION_ID_BYTES = 12
# Section 6.1: what passes every IPv4 path whole.
MESSAGE_BYTES_MAX = 548
# A dozen is more than any message has.
ATTRIBUTES_MAX = 32

_COOKIE = 0x2112A442
_HEADER = struct.Struct("!HHI12s")
_ATTRIBUTE = struct.Struct("!HH")
_FINGERPRINT_XOR = 0x5354554E
_FAMILY = {4: 0x01, 6: 0x02}


@dataclass(frozen=True, slots=True)
class Message:
    """A STUN message.

    Attributes:
        kind: method and class, one of the BINDING_ constants where it concerns us.
        transaction_id: 12 bytes that a response has of its request.
        attributes: (type, value) in the order of the message.
    """

    kind: int
    transaction_id: bytes
    attributes: tuple[tuple[int, bytes], ...] = ()

    def value_of(self, attribute: int) -> bytes | None:
        """Return the value of the first attribute of that type; RFC 8489 has later ones ignored."""
        return next((value for kind, value in self.attributes if kind == attribute), None)

    def endpoint_of(self, attribute: int) -> Endpoint | None:
        """Return the address in an attribute, None where it is missing or malformed."""
        value = self.value_of(attribute)
        if value is None:
            return None
        return decode_endpoint(value, self.transaction_id if attribute == XOR_MAPPED_ADDRESS else None)


def serialise(message: Message) -> bytes:
    """Return a message as it travels."""
    body = b"".join(
        _ATTRIBUTE.pack(kind, len(value)) + value + bytes(-len(value) % 4)
        for kind, value in message.attributes
    )
    return _HEADER.pack(message.kind, len(body), _COOKIE, message.transaction_id) + body


def parse(datagram: bytes) -> Message | None:
    """Return the message in a datagram, None where it is no well-formed STUN message or its fingerprint is wrong."""
    if not HEADER_BYTES <= len(datagram) <= MESSAGE_BYTES_MAX:
        return None
    kind, length, cookie, transaction_id = _HEADER.unpack_from(datagram)
    if kind & 0xC000 or cookie != _COOKIE or length % 4 or HEADER_BYTES + length != len(datagram):
        return None
    attributes: list[tuple[int, bytes]] = []
    at = HEADER_BYTES
    while at < len(datagram):
        attribute, size = _ATTRIBUTE.unpack_from(datagram, at)
        value = datagram[at + _ATTRIBUTE.size : at + _ATTRIBUTE.size + size]
        if len(value) != size or len(attributes) == ATTRIBUTES_MAX:
            return None
        if attribute == FINGERPRINT and value != fingerprint(datagram[:at]):
            return None
        attributes.append((attribute, value))
        at += _ATTRIBUTE.size + size + -size % 4
    return Message(kind, transaction_id, tuple(attributes))


def fingerprint(preceding: bytes) -> bytes:
    """Return the value of the FINGERPRINT attribute (section 14.7) of a message that has this before it.

    Args:
        preceding: the message up to the attribute, with a length in its header that includes it.
    """
    return struct.pack("!I", zlib.crc32(preceding) ^ _FINGERPRINT_XOR)


def encode_endpoint(endpoint: Endpoint, transaction_id: bytes | None = None) -> bytes:
    """Return the value of an address attribute, XORed (section 14.2) where a transaction id is given."""
    mask = _mask(transaction_id)
    port = struct.pack("!BBH", 0, _FAMILY[endpoint.host.version], endpoint.port)
    return _xor(port, b"\0\0" + mask[:2]) + _xor(endpoint.host.packed, mask)


def decode_endpoint(value: bytes, transaction_id: bytes | None = None) -> Endpoint | None:
    """Return the address that an attribute's value holds, None where it is malformed."""
    sizes = {0x01: 8, 0x02: 20}
    if len(value) < 4 or sizes.get(value[1]) != len(value):
        return None
    mask = _mask(transaction_id)
    host: IPAddress = ipaddress.ip_address(_xor(value[4:], mask))
    return Endpoint(host, int.from_bytes(_xor(value[2:4], mask), "big"))


def encode_error(code: int, words: str) -> bytes:
    """Return the value of an ERROR-CODE attribute (section 14.8)."""
    return bytes((0, 0, code // 100, code % 100)) + words.encode()


def decode_error(value: bytes) -> int:
    """Return the code in an ERROR-CODE attribute, 0 where it is malformed."""
    return (value[2] & 0x7) * 100 + value[3] if len(value) >= 4 else 0


def encode_types(attributes: Sequence[int]) -> bytes:
    """Return the value of an UNKNOWN-ATTRIBUTES attribute (section 14.9)."""
    return struct.pack(f"!{len(attributes)}H", *attributes)


def _mask(transaction_id: bytes | None) -> bytes:
    return bytes(16) if transaction_id is None else struct.pack("!I", _COOKIE) + transaction_id


def _xor(value: bytes, mask: bytes) -> bytes:
    return bytes(one ^ other for one, other in zip(value, mask, strict=False))
