"""Hosts that listen nowhere, and the relays between them; imported by the tests of relayed connections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from sedmad.errors import NodeUnreachable, first_known
from sedmad.net.host import PeerHost, open_host
from sedmad.net.identity import Identity
from sedmad.net.relay.hop import Relay
from sedmad.net.relay.limits import RelayLimits
from sedmad.net.stream import ByteStream

LOOPBACK = ["/ip4/127.0.0.1/tcp/0"]
ECHO = "/test/echo/1"
UNIX_S = 1_000_000.0


def everybody(peer_id: str) -> bool:
    return True


def make_relay(
    host: PeerHost, limits: RelayLimits | None = None, is_member: Callable[[str], bool] = everybody
) -> Relay:
    return Relay(host, is_member=is_member, wall_time=lambda: UNIX_S, limits=limits)


async def echo(stream: ByteStream, peer_id: str, remote_address: str) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


async def receive_exactly(stream: ByteStream, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        piece = await stream.receive_some(size - len(received))
        assert piece
        received += piece
    return bytes(received)


async def is_echoed(host: PeerHost, peer_id: str, data: bytes = b"hello") -> bool:
    stream = await host.open_stream(peer_id, ECHO, timeout_s=5)
    echoed = b""
    broken = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, data)
            echoed = await receive_exactly(stream, len(data))
    except* NodeUnreachable as group:
        broken = first_known(group)
    if broken:
        raise broken
    await stream.close()
    return echoed == data


async def reserve(host: PeerHost, relay: PeerHost) -> str:
    """Return the host's address through the relay."""
    reservation = await host.reserve(relay.peer_id, relay.listen_addresses, now_s=UNIX_S)
    return reservation.addresses[0]


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110  (what a test waits for has no event)
            await trio.sleep(0.01)


class Trio:
    """A relay, and two that can only dial out, the second of which has reserved."""

    def __init__(self, relay: Relay, hop: PeerHost, one: PeerHost, other: PeerHost, address: str) -> None:
        self.relay, self.hop, self.one, self.other, self.address = relay, hop, one, other, address

    async def connect(self) -> None:
        await self.one.connect(self.other.peer_id, [self.address], timeout_s=5)


@asynccontextmanager
async def hidden_pair(limits: RelayLimits | None = None) -> AsyncIterator[Trio]:
    async with AsyncExitStack() as stack:
        hop = await stack.enter_async_context(open_host(Identity.make(), LOOPBACK))
        one, other = [await stack.enter_async_context(open_host(Identity.make(), [])) for _ in range(2)]
        other.serve(ECHO, echo)
        relay = make_relay(hop, limits)
        yield Trio(relay, hop, one, other, await reserve(other, hop))
