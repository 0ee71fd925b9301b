"""What strangers do to a host's port: it stays open for those who speak the protocol, and what they hold is
bounded.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress

import pytest
import trio
import trio.testing
from libp2p.stream_muxer.exceptions import MuxedStreamReset

from sedmad.errors import NodeUnreachable
from sedmad.net import host as host_module
from sedmad.net import swarm
from sedmad.net.host import PeerHost, open_host
from sedmad.net.identity import Identity
from sedmad.net.stream import ByteStream
from sedmad.net.tcp import UNAUTHENTICATED_MAX

LOOPBACK = ["/ip4/127.0.0.1/tcp/0"]
ECHO = "/test/echo/1"
MULTISTREAM = b"\x13/multistream/1.0.0\n"
NOISE = b"\x07/noise\n"

GARBAGE = {
    "random bytes": random.Random(1).randbytes(100_000),
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "tls": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "varint without end": b"\xff" * 10_000,
    "huge varint": b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f" + bytes(100_000),
    "huge line": b"\x80\x80\x80\x80\x08" + b"a" * 1_000_000,
    "empty lines": b"\x00" * 10_000,
    "not utf-8": MULTISTREAM + b"\x05\xff\xfe\xfd\xfc\n",
    "unknown security": MULTISTREAM + b"\x06/echo\n",
    "half a noise handshake": MULTISTREAM + NOISE + b"\x00\x20" + bytes(10),
    "noise garbage": MULTISTREAM + NOISE + b"\x00\x20" + bytes(32) + b"\x01\x00" + bytes(256),
    "huge noise message": MULTISTREAM + NOISE + b"\xff\xff" + bytes(65_535),
    "nothing": b"",
}


async def echo(stream: ByteStream, peer_id: str, remote_address: str) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


async def is_served(server: PeerHost, client: PeerHost) -> bool:
    await client.connect(server.peer_id, server.listen_addresses, timeout_s=5)
    stream = await client.open_stream(server.peer_id, ECHO, timeout_s=5)
    await stream.send_all(b"hello")
    answered = await stream.receive_some() == b"hello"
    await stream.close()
    return answered


async def is_served_in_the_end(server: PeerHost, client: PeerHost) -> bool:
    """For tests that shorten time-outs, which a busy machine may miss."""
    for _ in range(10):
        with suppress(NodeUnreachable):
            return await is_served(server, client)
    return False


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110  (what a test waits for has no event)
            await trio.sleep(0.01)


def port_of(host: PeerHost) -> int:
    return int(host.listen_addresses[0].split("/")[4])


@pytest.mark.parametrize("name", GARBAGE)
async def test_garbage_is_dropped_and_the_door_stays_open(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swarm, "UPGRADE_TIMEOUT_S", 0.2)
    async with open_host(Identity.make(), LOOPBACK) as server, open_host(Identity.make(), []) as client:
        server.serve(ECHO, echo)
        for at_once in (True, False):
            socket = await trio.open_tcp_stream("127.0.0.1", port_of(server))
            try:
                if at_once:
                    await socket.send_all(GARBAGE[name])
                else:
                    for start in range(min(len(GARBAGE[name]), 50)):
                        await socket.send_all(GARBAGE[name][start : start + 1])
                # Whatever was said, the host hangs up.
                with trio.fail_after(5):
                    while await socket.receive_some(65536):
                        pass
            except trio.BrokenResourceError:
                pass
            await socket.aclose()
        assert await is_served_in_the_end(server, client)
        assert server.connected_peers() == [client.peer_id]


async def test_two_hundred_silent_connections_keep_nobody_out() -> None:
    async with open_host(Identity.make(), LOOPBACK) as server, open_host(Identity.make(), []) as client:
        server.serve(ECHO, echo)
        sockets = [await trio.open_tcp_stream("127.0.0.1", port_of(server)) for _ in range(200)]
        assert await is_served(server, client)
        # The oldest made room.
        with trio.fail_after(5):
            for socket in sockets[: 200 - UNAUTHENTICATED_MAX]:
                try:
                    while await socket.receive_some(1000):
                        pass
                except trio.BrokenResourceError:
                    pass
        for socket in sockets:
            await socket.aclose()


async def test_connections_that_come_and_go_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swarm, "CONNECTIONS_MAX", 4)
    async with open_host(Identity.make(), LOOPBACK) as server:
        server.serve(ECHO, echo)
        for _ in range(12):
            async with open_host(Identity.make(), []) as stranger:
                assert await is_served(server, stranger)
        await until(lambda: not server.connected_peers())
        assert not server._swarm.get_connections()
        assert not server._swarm.peerstore.peer_ids()[1:]  # its own


@pytest.mark.parametrize("crowded", [False, True])
async def test_a_connection_that_carries_nothing_is_closed(
    crowded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_module, "IDLE_CHECK_S", 0.02)
    async with open_host(Identity.make(), LOOPBACK) as server, open_host(Identity.make(), []) as busy:
        server.serve(ECHO, echo)
        await busy.connect(server.peer_id, server.listen_addresses, timeout_s=5)
        kept = await busy.open_stream(server.peer_id, ECHO, timeout_s=5)
        if crowded:
            monkeypatch.setattr(host_module, "CROWDED_CONNECTIONS", 2)
            monkeypatch.setattr(host_module, "CROWDED_IDLE_S", 0.5)
        else:
            monkeypatch.setattr(host_module, "IDLE_CONNECTION_S", 0.5)
        async with open_host(Identity.make(), []) as idle:
            await idle.connect(server.peer_id, server.listen_addresses, timeout_s=5)
            await until(lambda: idle.peer_id not in server.connected_peers())
        await kept.send_all(b"still")
        assert await kept.receive_some() == b"still"


async def test_a_stranger_that_opens_streams_without_agreeing_on_a_protocol_is_bounded() -> None:
    async with open_host(Identity.make(), LOOPBACK) as server, open_host(Identity.make(), []) as stranger:
        server.serve(ECHO, echo)
        await stranger.connect(server.peer_id, server.listen_addresses, timeout_s=5)
        connection = stranger.connection(server.peer_id).swarm_connection.muxed_conn
        streams = [await connection.open_stream() for _ in range(100)]
        await trio.testing.wait_all_tasks_blocked(0.1)
        there = server.connection(stranger.peer_id).swarm_connection.muxed_conn
        assert len(there._streams) <= 16
        for stream in streams:
            stream.abort()
        assert await is_served(server, stranger)


@pytest.mark.parametrize("said", [b"", b"\xff" * 100, b"\x04\xff\xff\xff\n", b"GET / HTTP/1.1\r\n\r\n"])
async def test_a_stranger_that_negotiates_garbage_loses_its_stream_only(said: bytes) -> None:
    async with open_host(Identity.make(), LOOPBACK) as server, open_host(Identity.make(), []) as stranger:
        server.serve(ECHO, echo)
        await stranger.connect(server.peer_id, server.listen_addresses, timeout_s=5)
        stream = await stranger.connection(server.peer_id).swarm_connection.muxed_conn.open_stream()
        await stream.send([said])
        stream.end()
        with trio.fail_after(5), suppress(MuxedStreamReset):
            while await stream.receive_some(1000):
                pass
        assert await is_served(server, stranger)
        with pytest.raises(NodeUnreachable):
            await stranger.open_stream(server.peer_id, "/sedma/unknown/1", timeout_s=5)
