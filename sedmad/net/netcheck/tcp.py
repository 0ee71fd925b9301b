"""What the way to the internet does with TCP: where servers see connections from one port, and who can be dialled.

Whom a NAT admits over TCP is not asked: no server dials back (RFC 5780 has it for UDP alone).
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from sedmad.net.netcheck.asking import binding_over_tcp
from sedmad.net.netcheck.findings import Peer, PeerFinding
from sedmad.net.stun.endpoint import Endpoint
from sedmad.net.stun.tcp_client import shared_port


async def observe(places: Sequence[Endpoint], sightings: list[tuple[Endpoint, Endpoint]]) -> None:
    """Have servers see connections from one port; each sighting is appended as it comes."""

    async def ask(place: Endpoint, port: int) -> None:
        if binding := await binding_over_tcp(place, port):
            sightings.append((place, binding.mapped))

    async with shared_port(4) as port, trio.open_nursery() as nursery:
        for place in places:
            nursery.start_soon(ask, place, port)


async def dial_all(peers: Sequence[Peer], within_s: float) -> list[PeerFinding]:
    """Dial every peer, say nothing, and return how long it took: about a round trip."""
    findings = [PeerFinding(peer, None) for peer in peers]

    async def dial(number: int) -> None:
        peer = peers[number]
        began = trio.current_time()
        try:
            stream = await trio.open_tcp_stream(peer.host, peer.port)
        except OSError:
            # Nobody there, or no way: the finding says so already.
            return
        findings[number] = PeerFinding(peer, trio.current_time() - began)
        await stream.aclose()

    with trio.move_on_after(within_s):
        async with trio.open_nursery() as nursery:
            for number in range(len(peers)):
                nursery.start_soon(dial, number)
    return findings
