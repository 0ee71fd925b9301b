"""Pairs of connections over loopback, with our layers or libp2p's own on either side."""

from __future__ import annotations

import itertools
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_x25519_key_pair
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.peer.id import ID
from libp2p.security.noise.transport import Transport
from libp2p.stream_muxer.yamux.yamux import Yamux

from sedmad.net.noise import NoiseTransport
from sedmad.net.tcp import TcpStream
from sedmad.net.yamux import YamuxConnection

# Tests share modules that lie beside them.
sys.path.insert(0, str(Path(__file__).parent))

OURS, STOCK = "ours", "stock"


async def _tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    dialled = await trio.open_tcp_stream("127.0.0.1", listeners[0].socket.getsockname()[1])
    accepted = await listeners[0].accept()
    await listeners[0].aclose()
    return dialled, accepted


def _transport(kind: str) -> Any:
    transport_class = NoiseTransport if kind == OURS else Transport
    return transport_class(create_new_key_pair(), noise_privkey=create_new_x25519_key_pair().private_key)


@asynccontextmanager
async def _noise_pair(dialler: str, listener: str) -> AsyncIterator[tuple[Any, Any]]:
    streams = await _tcp_pair()
    connections = [
        RawConnection(TcpStream(stream), initiator)
        for stream, initiator in zip(streams, (True, False), strict=True)
    ]
    transports = _transport(dialler), _transport(listener)
    sessions: list[Any] = [None, None]

    async def dial() -> None:
        sessions[0] = await transports[0].secure_outbound(connections[0], transports[1].local_peer)

    async def accept() -> None:
        sessions[1] = await transports[1].secure_inbound(connections[1])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial)
        nursery.start_soon(accept)
    try:
        yield sessions[0], sessions[1]
    finally:
        for connection in connections:
            connection.stream.abort()


@asynccontextmanager
async def _yamux_pair(dialler: str, listener: str) -> AsyncIterator[tuple[Any, Any]]:
    async with _noise_pair(dialler, listener) as sessions, trio.open_nursery() as nursery:
        connections = []
        for kind, session in zip((dialler, listener), sessions, strict=True):
            peer_id: ID = session.get_remote_peer()
            connection = (YamuxConnection if kind == OURS else Yamux)(session, peer_id)
            nursery.start_soon(connection.start)
            await connection.event_started.wait()
            connections.append(connection)
        yield connections[0], connections[1]
        nursery.cancel_scope.cancel()


PAIRS = [pair for pair in itertools.product((OURS, STOCK), repeat=2) if OURS in pair]


@pytest.fixture(params=PAIRS, ids=" to ".join)
def kinds(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Which implementation dials and which listens."""
    return request.param


@pytest.fixture
def noise_pair() -> Any:
    """`async with noise_pair(dialler, listener) as (session, session)`."""
    return _noise_pair


@pytest.fixture
def yamux_pair() -> Any:
    """`async with yamux_pair(dialler, listener) as (connection, connection)`."""
    return _yamux_pair
