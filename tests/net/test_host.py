"""Hosts among themselves: connecting, streams, handlers, peers that die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from sedmad.errors import ConfigurationInvalid, NodeUnreachable, OperationalError
from sedmad.net.host import PeerHost, open_host
from sedmad.net.identity import Identity
from sedmad.net.stream import ByteStream

LOOPBACK = ["/ip4/127.0.0.1/tcp/0"]
ECHO = "/test/echo/1"


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


@asynccontextmanager
async def two_hosts() -> AsyncIterator[tuple[PeerHost, PeerHost]]:
    """A host that serves ECHO, and one that is connected to it."""
    async with open_host(Identity.make(), LOOPBACK) as server, open_host(Identity.make(), LOOPBACK) as client:
        server.serve(ECHO, echo)
        await client.connect(server.peer_id, server.listen_addresses, timeout_s=5)
        yield server, client


@pytest.fixture
def other_process() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """An echo peer in a process of its own, and its address."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    program = Path(__file__).with_name("echo_peer.py")
    with subprocess.Popen(
        [sys.executable, program], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
        process.kill()


async def exchange_for_ever(stream: ByteStream) -> None:
    while True:
        await stream.send_all(b"hello")
        await stream.receive_some()


def peer_id_in(address: str) -> str:
    return address.rpartition("/p2p/")[2]


async def test_a_stream_carries_bytes_both_ways() -> None:
    async with two_hosts() as (server, client):
        stream = await client.open_stream(server.peer_id, ECHO, timeout_s=5)
        assert (stream.remote_peer_id, stream.path) == (server.peer_id, "direct")
        pieces = [b"prefix", memoryview(bytes(range(256)) * 4096), bytearray(b"suffix")]
        expected = b"".join(pieces)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, pieces)
            assert await receive_exactly(stream, len(expected)) == expected
        await stream.send_all(b"")
        await stream.send_all(b"end")
        await stream.close()


async def test_the_handler_knows_the_peer_and_the_end_of_its_bytes() -> None:
    seen: list[tuple[str, str, bytes]] = []

    async def collect(stream: ByteStream, peer_id: str, remote_address: str) -> None:
        collected = b""
        while data := await stream.receive_some(3):
            collected += data
        seen.append((peer_id, remote_address.rpartition("/")[0], collected))
        await stream.send_all(b"done")

    async with two_hosts() as (server, client):
        server.serve("/test/collect/1", collect)
        stream = await client.open_stream(server.peer_id, "/test/collect/1", timeout_s=5)
        await stream.send_all([b"one ", b"two"])
        with trio.fail_after(5):
            await stream.close()
        assert seen == [(client.peer_id, "/ip4/127.0.0.1/tcp", b"one two")]


async def test_connections_are_told_once_each_way() -> None:
    told: list[tuple[str, str]] = []
    changed = trio.Event()
    async with open_host(Identity.make(), LOOPBACK) as server, open_host(Identity.make(), []) as client:
        server.on_connected = lambda peer_id: told.append(("connected", peer_id))

        def on_disconnected(peer_id: str) -> None:
            told.append(("disconnected", peer_id))
            changed.set()

        server.on_disconnected = on_disconnected
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(client.connect, server.peer_id, server.listen_addresses, 5)
        assert client.connected_peers() == [server.peer_id]
        await client.disconnect(server.peer_id)
        assert client.connected_peers() == []
        with trio.fail_after(5):
            await changed.wait()
        assert told == [("connected", client.peer_id), ("disconnected", client.peer_id)]
        await client.connect(server.peer_id, server.listen_addresses, timeout_s=5)
        assert client.connected_peers() == [server.peer_id]


async def test_hosts_that_dial_each_other_at_once_both_get_through() -> None:
    async with open_host(Identity.make(), LOOPBACK) as one, open_host(Identity.make(), LOOPBACK) as two:
        for host in (one, two):
            host.serve(ECHO, echo)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.connect, two.peer_id, two.listen_addresses, 5)
            nursery.start_soon(two.connect, one.peer_id, one.listen_addresses, 5)
        for asking, answering in ((one, two), (two, one)):
            stream = await asking.open_stream(answering.peer_id, ECHO, timeout_s=5)
            await stream.send_all(b"hello")
            assert await receive_exactly(stream, 5) == b"hello"


async def test_the_first_address_that_answers_is_taken() -> None:
    async with open_host(Identity.make(), LOOPBACK) as server, open_host(Identity.make(), []) as client:
        addresses = [
            "no address",
            f"/ip4/127.0.0.1/tcp/1/p2p/{client.peer_id}",
            "/ip4/127.0.0.1/udp/1/quic-v1",
            "/ip4/127.0.0.1/tcp/1",
            *server.listen_addresses,
        ]
        await client.connect(server.peer_id, addresses, timeout_s=5)
        assert client.connected_peers() == [server.peer_id]


async def test_why_a_peer_cannot_be_reached_is_told() -> None:
    absent = Identity.make().peer_id
    async with open_host(Identity.make(), LOOPBACK) as server, open_host(Identity.make(), []) as client:
        with pytest.raises(NodeUnreachable, match="refused"):
            await client.connect(absent, ["/ip4/127.0.0.1/tcp/1"], timeout_s=5)
        with pytest.raises(NodeUnreachable, match="no usable address"):
            await client.connect(absent, server.listen_addresses, timeout_s=5)
        plain = server.listen_addresses[0].partition("/p2p/")[0]
        with pytest.raises(NodeUnreachable, match="another node answers there"):
            await client.connect(absent, [plain], timeout_s=5)
        with pytest.raises(NodeUnreachable, match="dial itself"):
            await client.connect(client.peer_id, server.listen_addresses, timeout_s=5)
        with pytest.raises(NodeUnreachable, match="not connected"):
            await client.open_stream(server.peer_id, ECHO, timeout_s=5)


async def test_a_peer_that_accepts_and_says_nothing_is_given_up() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    async with open_host(Identity.make(), []) as client:
        with pytest.raises(NodeUnreachable, match="no answer in time"):
            await client.connect(Identity.make().peer_id, [f"/ip4/127.0.0.1/tcp/{port}"], timeout_s=0.3)
    await listeners[0].aclose()


async def test_a_protocol_that_is_not_served_is_refused() -> None:
    async with two_hosts() as (server, client):
        with pytest.raises(NodeUnreachable, match="not supported"):
            await client.open_stream(server.peer_id, "/test/nothing/1", timeout_s=5)
        assert await client.open_stream(server.peer_id, ECHO, timeout_s=5)


@pytest.mark.parametrize(
    "error", [ValueError("bug"), NodeUnreachable("typed"), EOFError(), ExceptionGroup("g", [KeyError(1)])]
)
async def test_a_handler_that_raises_resets_its_stream_and_ends_nothing_else(error: Exception) -> None:
    async def fail(stream: ByteStream, peer_id: str, remote_address: str) -> None:
        await stream.receive_some()
        raise error

    async with two_hosts() as (server, client):
        server.serve("/test/fail/1", fail)
        other = await client.open_stream(server.peer_id, ECHO, timeout_s=5)
        failing = await client.open_stream(server.peer_id, "/test/fail/1", timeout_s=5)
        await failing.send_all(b"x")
        with pytest.raises(NodeUnreachable):
            await failing.receive_some()
        await other.send_all(b"alive")
        assert await receive_exactly(other, 5) == b"alive"


async def test_streams_beyond_the_bounds_are_reset_and_places_come_free() -> None:
    async with two_hosts() as (server, client), open_host(Identity.make(), []) as third:
        await third.connect(server.peer_id, server.listen_addresses, timeout_s=5)
        server.serve("/test/few/1", echo, streams_max=3, streams_per_peer_max=2)

        async def is_served(host: PeerHost) -> ByteStream | None:
            stream = await host.open_stream(server.peer_id, "/test/few/1", timeout_s=5)
            try:
                await stream.send_all(b"x")
                return stream if await stream.receive_some() == b"x" else None
            except NodeUnreachable:
                return None

        first, second = await is_served(client), await is_served(client)
        assert first
        assert second
        assert await is_served(client) is None  # its two are taken
        assert await is_served(third)
        assert await is_served(third) is None  # all three are taken
        await first.close()
        assert await is_served(third)


async def test_a_cancelled_send_resets_the_stream_and_nothing_else() -> None:
    async def read_nothing(stream: ByteStream, peer_id: str, remote_address: str) -> None:
        await trio.sleep_forever()

    async with two_hosts() as (server, client):
        server.serve("/test/nothing/1", read_nothing)
        stuck = await client.open_stream(server.peer_id, "/test/nothing/1", timeout_s=5)
        with trio.move_on_after(0.1) as scope:
            await stuck.send_all(bytes(8 << 20))
        assert scope.cancelled_caught
        with pytest.raises(NodeUnreachable):
            await stuck.send_all(b"more")
        stream = await client.open_stream(server.peer_id, ECHO, timeout_s=5)
        await stream.send_all(b"alive")
        assert await receive_exactly(stream, 5) == b"alive"


async def test_many_streams_at_once() -> None:
    async with two_hosts() as (server, client):
        server.serve("/test/many/1", echo, streams_per_peer_max=1000)

        async def exchange() -> None:
            stream = await client.open_stream(server.peer_id, "/test/many/1", timeout_s=20)
            await stream.send_all(b"hello")
            assert await receive_exactly(stream, 5) == b"hello"
            await stream.close()

        for _ in range(20):
            async with trio.open_nursery() as nursery:
                for _ in range(15):
                    nursery.start_soon(exchange)


async def test_an_address_that_is_taken_is_told() -> None:
    async with open_host(Identity.make(), LOOPBACK) as server:
        taken = server.listen_addresses[0].partition("/p2p/")[0]
        with pytest.raises(ConfigurationInvalid, match="in use"):
            async with open_host(Identity.make(), [taken]):
                pass


@pytest.mark.parametrize(
    "address", ["", "tcp/1", "/ip4/127.0.0.1/udp/1", "/ip4/127.0.0.1/tcp/0/ws", "/ip4/x/tcp/1"]
)
async def test_what_is_no_address_is_told(address: str) -> None:
    for options in ({"listen": [address]}, {"listen": [], "announce": [address]}):
        with pytest.raises(ConfigurationInvalid):
            async with open_host(Identity.make(), **options):
                pass


async def test_what_the_body_raises_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError):
        async with open_host(Identity.make(), LOOPBACK):
            raise KeyError


async def test_others_are_told_addresses_that_they_can_dial() -> None:
    async with (
        open_host(Identity.make(), ["/ip4/0.0.0.0/tcp/0"]) as server,
        open_host(Identity.make(), []) as client,
    ):
        assert server.listen_addresses
        assert not any("/0.0.0.0/" in address for address in server.listen_addresses)
        await client.connect(server.peer_id, server.listen_addresses, timeout_s=5)
    announced = ["/dns4/node.example/tcp/7000"]
    async with open_host(Identity.make(), LOOPBACK, announce=announced) as server:
        assert server.listen_addresses == [f"/dns4/node.example/tcp/7000/p2p/{server.peer_id}"]


async def test_a_killed_peer_breaks_its_streams_and_can_be_told_from_a_slow_one(other_process) -> None:
    process, address = other_process
    async with open_host(Identity.make(), []) as host:
        gone = trio.Event()
        host.on_disconnected = lambda peer_id: gone.set()
        await host.connect(peer_id_in(address), [address], timeout_s=5)
        stream = await host.open_stream(peer_id_in(address), ECHO, timeout_s=5)
        await stream.send_all(b"hello")
        assert await receive_exactly(stream, 5) == b"hello"
        process.kill()
        with trio.fail_after(5):
            with pytest.raises(OperationalError):
                await exchange_for_ever(stream)
            await gone.wait()
        with pytest.raises(NodeUnreachable):
            await host.connect(peer_id_in(address), [address], timeout_s=5)


async def test_a_stopped_peer_holds_nobody_for_longer_than_the_time_out(other_process) -> None:
    process, address = other_process
    async with open_host(Identity.make(), []) as host, open_host(Identity.make(), []) as late:
        await host.connect(peer_id_in(address), [address], timeout_s=5)
        stream = await host.open_stream(peer_id_in(address), ECHO, timeout_s=5)
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(NodeUnreachable, match="no answer"):
            await host.open_stream(peer_id_in(address), ECHO, timeout_s=0.3)
        with pytest.raises(NodeUnreachable, match="no answer"):
            await late.connect(peer_id_in(address), [address], timeout_s=0.3)
        with trio.move_on_after(0.3) as scope:
            await stream.send_all(bytes(64 << 20))
        assert scope.cancelled_caught
        process.send_signal(signal.SIGCONT)
        again = await host.open_stream(peer_id_in(address), ECHO, timeout_s=5)
        await again.send_all(b"hello")
        assert await receive_exactly(again, 5) == b"hello"
