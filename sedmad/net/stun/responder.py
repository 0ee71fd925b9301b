"""What a STUN server answers, and whom: binding requests only, at a bounded rate, never much more than was asked.

Pure: datagrams, addresses and the time come in, datagrams go out. RFC 8489, section 6.3; RFC 5780, section 6.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass

from sedmad.net.rate_limit import RateLimit
from sedmad.net.stun import message as stun
from sedmad.net.stun.endpoint import Endpoint, IPAddress
from sedmad.net.stun.message import Message

# A forged sender address must not make this server a weapon: what goes out, against what came in, on the wire.
AMPLIFICATION_MAX = 1.2
# Around each datagram: Ethernet's header and check sum, and UDP's; and IP's own. So the bare request of 20 bytes, which
# common clients send, is answered over IPv4 (78 bytes for 66); over IPv6 a request needs 12 bytes more.
_AROUND_BYTES = {4: 18 + 8 + 20, 6: 18 + 8 + 40}

# Comprehension-required attributes that may be there without changing the answer; others below 0x8000 are refused.
_UNDERSTOOD = frozenset(
    {
        stun.MAPPED_ADDRESS,
        stun.CHANGE_REQUEST,
        stun.USERNAME,
        stun.MESSAGE_INTEGRITY,
        stun.MESSAGE_INTEGRITY_SHA256,
        stun.REALM,
        stun.NONCE,
        stun.PRIORITY,
        stun.USE_CANDIDATE,
        stun.PADDING,
    }
)
_COMPREHENSION_OPTIONAL = 0x8000
# An error names no more than this many of the attributes.
_UNKNOWN_MAX = 4


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """How much a server answers.

    Attributes:
        per_source_rate_per_s, per_source_burst: of one IPv4 address or IPv6 /64. Finding out what a NAT does takes
            about ten requests, and a house of nodes may share an address.
        rate_per_s, burst: of all together: 500 answers of some 100 bytes are 50 KB/s.
        sources_max: whose rate is remembered; the one that was quiet for longest makes room.
    """

    per_source_rate_per_s: float = 5.0
    per_source_burst: int = 40
    rate_per_s: float = 500.0
    burst: int = 1000
    sources_max: int = 4096


@dataclass(frozen=True, slots=True)
class ServerPlaces:
    """Where a server listens: one or two addresses with one or two ports each, as others see them.

    With two of both it can tell what a NAT does (RFC 5780); the first ones are those that clients are told.
    """

    hosts: tuple[IPAddress, ...]
    ports: tuple[int, ...]

    def endpoint(self, place: Place) -> Endpoint:
        """Return where that place is."""
        return Endpoint(self.hosts[place.host], self.ports[place.port])

    def all(self) -> list[Place]:
        """Return every place there is."""
        return [Place(host, port) for host in range(len(self.hosts)) for port in range(len(self.ports))]


@dataclass(frozen=True, slots=True)
class Place:
    """One socket of a server: the index of its address and of its port in `ServerPlaces`."""

    host: int = 0
    port: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What to send, and from which of the server's sockets."""

    datagram: bytes
    origin: Place


class Responder:
    """Answers binding requests.

    Args:
        places: where the server listens.
        limits: how much it answers.
    """

    def __init__(self, places: ServerPlaces, limits: ServerLimits | None = None) -> None:
        self._places = places
        self._limits = limits or ServerLimits()
        self._all = RateLimit(self._limits.rate_per_s, self._limits.burst)
        self._sources: OrderedDict[bytes, RateLimit] = OrderedDict()

    def answer(self, datagram: bytes, source: Endpoint, arrived: Place, now: float) -> Answer | None:
        """Return the answer to a datagram, None where it gets none.

        Args:
            datagram: what came.
            source: from where.
            arrived: at which of the server's sockets.
            now: seconds of a monotonic clock.
        """
        request = stun.parse(datagram)
        if request is None or request.kind != stun.BINDING_REQUEST or not source.port:
            return None
        if not self._allows(source.host, now):
            return None
        for answer in self._answers(request, source, arrived):
            if _on_wire(answer.datagram, source) <= AMPLIFICATION_MAX * _on_wire(datagram, source):
                return answer
        return None

    def _allows(self, host: IPAddress, now: float) -> bool:
        key = host.packed if isinstance(host, ipaddress.IPv4Address) else host.packed[:8]
        limit = self._sources.pop(key, None)
        if limit is None:
            limit = RateLimit(self._limits.per_source_rate_per_s, self._limits.per_source_burst)
            if len(self._sources) >= self._limits.sources_max:
                self._sources.popitem(last=False)
        self._sources[key] = limit
        return limit.allow(now) and self._all.allow(now)

    def _answers(self, request: Message, source: Endpoint, arrived: Place) -> list[Answer]:
        """Return possible answers, the fullest first."""
        change = int.from_bytes(request.value_of(stun.CHANGE_REQUEST) or b"", "big")
        origin = Place(
            1 - arrived.host if change & stun.CHANGE_HOST else arrived.host,
            1 - arrived.port if change & stun.CHANGE_PORT else arrived.port,
        )
        unknown = [
            attribute
            for attribute, _ in request.attributes
            if attribute < _COMPREHENSION_OPTIONAL and attribute not in _UNDERSTOOD
        ]
        if origin not in self._places.all():
            unknown.append(stun.CHANGE_REQUEST)
        if unknown:
            return [Answer(stun.serialise(_refusal(request, unknown)), arrived)]
        mapped = (stun.XOR_MAPPED_ADDRESS, stun.encode_endpoint(source, request.transaction_id))
        success = [(mapped, *self._about_this_server(arrived, origin)), (mapped,)]
        return [
            Answer(stun.serialise(Message(stun.BINDING_SUCCESS, request.transaction_id, attributes)), origin)
            for attributes in success
        ]

    def _about_this_server(self, arrived: Place, origin: Place) -> list[tuple[int, bytes]]:
        about = [(stun.RESPONSE_ORIGIN, stun.encode_endpoint(self._places.endpoint(origin)))]
        if len(self._places.all()) == 4:
            other = Place(1 - arrived.host, 1 - arrived.port)
            about.append((stun.OTHER_ADDRESS, stun.encode_endpoint(self._places.endpoint(other))))
        return about


def _refusal(request: Message, unknown: list[int]) -> Message:
    attributes = (
        (stun.ERROR_CODE, stun.encode_error(420, "")),
        (stun.UNKNOWN_ATTRIBUTES, stun.encode_types(unknown[:_UNKNOWN_MAX])),
    )
    return Message(stun.BINDING_ERROR, request.transaction_id, attributes)


def _on_wire(datagram: bytes, source: Endpoint) -> int:
    return len(datagram) + _AROUND_BYTES[source.host.version]
