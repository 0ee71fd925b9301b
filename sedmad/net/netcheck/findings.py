"""What probes found, as values. Times are seconds, None where nothing came."""

from __future__ import annotations

from dataclasses import dataclass

from sedmad.net.stun.client import Binding
from sedmad.net.stun.endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class ServerFinding:
    """How a STUN server answered.

    Attributes:
        name: as it was given, "host:port".
        endpoint: what it was resolved to; None where it was not.
        udp, tcp: what it said by each protocol.
        udp_rtt_s, tcp_rtt_s: how long that took; of TCP with the connection made, so two round trips.
        problem: why there is no answer at all.
    """

    name: str
    endpoint: Endpoint | None = None
    udp: Binding | None = None
    udp_rtt_s: float | None = None
    tcp: Binding | None = None
    tcp_rtt_s: float | None = None
    problem: str = ""

    @property
    def answered(self) -> bool:
        return self.udp is not None or self.tcp is not None


@dataclass(frozen=True, slots=True)
class Peer:
    """Where another node says that it can be dialled."""

    name: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class PeerFinding:
    """Whether a peer could be dialled, and how long it took."""

    peer: Peer
    rtt_s: float | None


@dataclass(frozen=True, slots=True)
class Observed:
    """What servers saw of one socket: (server, where it saw us)."""

    sightings: tuple[tuple[Endpoint, Endpoint], ...] = ()


@dataclass(frozen=True, slots=True)
class Admitted:
    """Whether answers came in from where nothing was sent to; None where no server could try."""

    from_other_port: bool | None = None
    from_other_address: bool | None = None


@dataclass(frozen=True, slots=True)
class GatewayFinding:
    """A gateway that maps ports on request.

    Attributes:
        protocol: nat-pmp or upnp.
        external_address: as it says.
        useless: why nobody outside can dial that; empty where they can.
    """

    protocol: str
    external_address: str
    useless: str


@dataclass(frozen=True, slots=True)
class Findings:
    """All of it.

    Attributes:
        servers: in the order in which they were given.
        peers: the same.
        local_host: this machine's IPv4 address on the way to a server that answered, empty without one.
        udp, tcp: what servers saw of a socket each.
        admitted: whose datagrams came in.
        hairpin: whether a socket reaches another one of this machine by its external endpoint; None where not tried.
        ipv6_host: this machine's global IPv6 address, empty without one.
        ipv6_answered: whether a server answered over IPv6; None where none has an address.
        gateway: None where none answered.
    """

    servers: tuple[ServerFinding, ...] = ()
    peers: tuple[PeerFinding, ...] = ()
    local_host: str = ""
    udp: Observed = Observed()
    tcp: Observed = Observed()
    admitted: Admitted = Admitted()
    hairpin: bool | None = None
    ipv6_host: str = ""
    ipv6_answered: bool | None = None
    gateway: GatewayFinding | None = None
