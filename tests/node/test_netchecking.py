"""What observations mean for a node: whom it asks of its mesh, and what silence says."""

from __future__ import annotations

import ipaddress

from sedmad.core.reaching.behaviour import Behaviour, Dependence
from sedmad.core.reaching.sentence import Reach
from sedmad.net.netcheck.findings import Admitted, Findings, Observed, Peer, PeerFinding, ServerFinding
from sedmad.net.stun.client import Binding
from sedmad.net.stun.endpoint import Endpoint
from sedmad.node.netchecking import examine_network, judge, peers_of
from sedmad.wire import messages as wire

BETA = "12D3KooWC5Gzp6ztB2dtwAVpzRY4fHhV1bpN8KGBFGzqWF7NSEtX"
SERVER = Endpoint(ipaddress.ip_address("45.80.1.10"), 3478)
SECOND = Endpoint(ipaddress.ip_address("45.80.1.11"), 3478)
MAPPED = Endpoint(ipaddress.ip_address("45.80.1.21"), 4000)
BINDING = Binding(MAPPED, SERVER, SERVER, None)
BLOCKED = Behaviour(Dependence.BLOCKED, Dependence.BLOCKED)
DIALLED = (PeerFinding(Peer("beta", "45.80.1.50", 4717), 0.01),)


def summary(*addresses: str, state: wire.PeerState.ValueType = wire.PEER_STATE_ALIVE) -> wire.PeerSummary:
    return wire.PeerSummary(name="beta", peer_id=BETA, addresses=addresses, state=state)


def test_a_peer_is_dialled_at_its_public_address_or_else_the_first() -> None:
    peers = [
        summary("/ip4/10.0.0.1/tcp/1", f"/ip4/45.80.1.50/tcp/2/p2p/{BETA}"),
        summary("/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.2/tcp/2"),
        summary("/dns4/example.org/tcp/4717"),
        summary("/ip6/2001:db8::1/tcp/5"),
        # These are no places to dial.
        summary(f"/ip4/45.80.1.10/tcp/4717/p2p/{BETA}/p2p-circuit/p2p/{BETA}"),
        summary("/ip4/45.80.1.10/udp/4717", "garbage"),
        summary("/ip4/45.80.1.50/tcp/2", state=wire.PEER_STATE_DEAD),
        summary(),
    ]
    assert [(peer.host, peer.port) for peer in peers_of(peers)] == [
        ("45.80.1.50", 2),
        ("10.0.0.1", 1),
        ("example.org", 4717),
        ("2001:db8::1", 5),
    ]


def test_public_nodes_that_serve_no_stun_are_not_missed() -> None:
    silent = ServerFinding("45.80.1.50:3478", SERVER, problem="it gave no answer")
    checked = judge(Findings(servers=(silent,), peers=DIALLED), configured=set())
    assert checked.findings.servers == ()
    assert checked.udp == checked.tcp == Behaviour()
    assert checked.meaning.reach is Reach.UNKNOWN
    # One that was named should have answered: the network is there, so UDP is not.
    assert judge(Findings(servers=(silent,), peers=DIALLED), {"45.80.1.50:3478"}).udp == BLOCKED


def test_silence_over_tcp_means_nothing_where_servers_speak_udp_only() -> None:
    server = ServerFinding("s:1", SERVER, udp=BINDING)
    nobody = (PeerFinding(Peer("beta", "45.80.1.50", 4717), None),)
    assert judge(Findings(servers=(server,)), {"s:1"}).tcp == Behaviour()
    assert judge(Findings(servers=(server,), peers=nobody), {"s:1"}).tcp == BLOCKED


def test_what_servers_saw_is_put_together() -> None:
    server = ServerFinding("s:1", SERVER, udp=BINDING)
    found = Findings(
        servers=(server,),
        local_host="10.0.1.2",
        udp=Observed(((SERVER, MAPPED), (SECOND, MAPPED))),
        admitted=Admitted(from_other_port=True, from_other_address=False),
    )
    checked = judge(found, {"s:1"})
    assert checked.udp == Behaviour(Dependence.ENDPOINT_INDEPENDENT, Dependence.ADDRESS)
    assert checked.public_host == "45.80.1.21"
    assert checked.meaning.reach is Reach.PUNCHED


async def test_without_anybody_to_ask_it_says_so_at_once() -> None:
    checked = await examine_network([], None, finders=())
    assert checked.meaning.reach is Reach.UNKNOWN
    assert "STUN server" in checked.meaning.advice
