"""What the network around this node means for it: `sedmad netcheck`, with or without a daemon."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

import trio

from sedmad.core.reaching.behaviour import Admission, Behaviour, Sighting, behaviour_of
from sedmad.core.reaching.sentence import Meaning, Surroundings, meaning_of
from sedmad.net.addresses import dialable
from sedmad.net.mapping.gateway import why_useless
from sedmad.net.netcheck.around import FINDERS, Finder, look_around
from sedmad.net.netcheck.asking import STUN_PORT, ServerName, parse_server
from sedmad.net.netcheck.findings import Admitted, Findings, Observed, Peer
from sedmad.net.stun.endpoint import Endpoint
from sedmad.node.checks.daemon import AskStatus, ask_daemon
from sedmad.node.log import configure_log
from sedmad.wire.messages import GetStatusResponse, PeerState, PeerSummary


@dataclass(frozen=True, slots=True)
class Netcheck:
    """What was found, and what it means.

    Attributes:
        findings: as it was found; servers of the mesh that did not answer are left out, as not every node serves STUN.
        udp, tcp: how NATs and firewalls treat them.
        public_host: this node's address as servers see it, empty where none told.
        meaning: in plain words.
    """

    findings: Findings
    udp: Behaviour
    tcp: Behaviour
    public_host: str
    meaning: Meaning


def check_network(servers: Sequence[str], ask_status: AskStatus) -> Netcheck:
    """Return what the network around this machine is like, within seconds.

    Args:
        servers: STUN servers as users write them.
        ask_status: asks the daemon, if one runs, what it knows of its mesh.

    Raises:
        UsageError: a text names no server.
    """
    configure_log("warning")
    return trio.run(_check_network, servers, ask_status)


async def _check_network(servers: Sequence[str], ask_status: AskStatus) -> Netcheck:
    status = await ask_daemon(ask_status)
    return await examine_network(servers, None if isinstance(status, str) else status)


async def examine_network(
    servers: Sequence[str], status: GetStatusResponse | None, finders: Sequence[Finder] = FINDERS
) -> Netcheck:
    """Return what the network around this machine is like, within seconds.

    Args:
        servers: STUN servers as users write them.
        status: what the daemon says of its mesh, if it runs: peers are dialled, and those with a public address asked.
        finders: ways to find a gateway that maps ports.

    Raises:
        UsageError: a text names no server.
    """
    configured = [parse_server(text) for text in servers]
    peers = peers_of(status.peers) if status is not None else []
    # Those that were named come first, as there is a bound.
    asked = list(dict.fromkeys([*configured, *_servers_among(peers)]))
    return judge(await look_around(asked, peers, finders), {str(server) for server in configured})


def judge(findings: Findings, configured: set[str]) -> Netcheck:
    """Return what was found with what it means.

    Args:
        findings: as the probes found it.
        configured: names of the servers that have to answer.
    """
    servers = tuple(server for server in findings.servers if server.answered or server.name in configured)
    dialled = sum(peer.rtt_s is not None for peer in findings.peers)
    over_udp = any(server.udp for server in servers)
    over_tcp = any(server.tcp for server in servers)
    udp = behaviour_of(
        _sightings(findings.udp),
        _admission(findings.admitted),
        silent=bool(servers) and not over_udp,
        others_answer=over_tcp or dialled > 0,
    )
    tcp = behaviour_of(
        _sightings(findings.tcp),
        Admission(),
        # Most STUN servers answer over UDP only: their silence says nothing.
        silent=bool(findings.peers) and not dialled and not over_tcp,
        others_answer=over_udp,
    )
    public_host = next(
        (str(binding.mapped.host) for server in servers if (binding := server.udp or server.tcp)), ""
    )
    surroundings = Surroundings(
        udp=udp,
        tcp=tcp,
        asked=len(servers) + len(findings.peers),
        answered=sum(server.answered for server in servers) + dialled,
        is_translated=public_host != findings.local_host if public_host else None,
        mapped_address=_mapped_address(findings),
    )
    return Netcheck(replace(findings, servers=servers), udp, tcp, public_host, meaning_of(surroundings))


def peers_of(summaries: Iterable[PeerSummary]) -> list[Peer]:
    """Return where living peers say that they can be dialled, a public address of each where it has one."""
    found = []
    for summary in summaries:
        if summary.state == PeerState.PEER_STATE_DEAD:
            continue
        places = [
            Peer(summary.name, *_host_and_port(str(address)))
            for text in summary.addresses
            if (address := dialable(text, summary.peer_id)) is not None
        ]
        if places:
            found.append(next((place for place in places if _is_public(place.host)), places[0]))
    return found


def _servers_among(peers: Iterable[Peer]) -> list[ServerName]:
    return [ServerName(peer.host, STUN_PORT) for peer in peers if _is_public(peer.host)]


def _is_public(host: str) -> bool:
    try:
        return not why_useless(IPv4Address(host))
    except ValueError:
        # A name, or IPv6.
        return False


def _host_and_port(address: str) -> tuple[str, int]:
    _, _, host, _, port, *_ = address.split("/")
    return host, int(port)


def _mapped_address(findings: Findings) -> str | None:
    if findings.gateway is None:
        return None
    return "" if findings.gateway.useless else findings.gateway.external_address


def _sightings(observed: Observed) -> list[Sighting]:
    return [Sighting(_place(server), _place(mapped)) for server, mapped in observed.sightings]


def _place(endpoint: Endpoint) -> tuple[str, int]:
    return endpoint.to_socket()


def _admission(admitted: Admitted) -> Admission:
    return Admission(admitted.from_other_port, admitted.from_other_address)
