from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from sedmad.errors import NodeUnreachable, ProtocolViolation
from sedmad.net.stun import message as stun
from sedmad.net.stun.client import binding_request
from sedmad.net.stun.endpoint import Endpoint
from sedmad.net.stun.message import Message
from sedmad.net.stun.responder import Place, ServerLimits, ServerPlaces
from sedmad.net.stun.tcp_client import ask_binding_over_tcp, shared_port
from sedmad.net.stun.tcp_server import CONNECTION_S_MAX, CONNECTIONS_MAX, REQUESTS_MAX, serve_stun_over_tcp

HERE = ipaddress.ip_address("127.0.0.1")


@asynccontextmanager
async def stun_server(limits: ServerLimits | None = None) -> AsyncIterator[Endpoint]:
    (listener,) = await trio.open_tcp_listeners(0, host=str(HERE))
    places = ServerPlaces((HERE,), (listener.socket.getsockname()[1],))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_stun_over_tcp, places, {Place(): listener}, limits)
        yield places.endpoint(Place())
        nursery.cancel_scope.cancel()


async def dial(server: Endpoint) -> trio.SocketStream:
    return await trio.open_tcp_stream(*server.to_socket())


async def test_a_connection_is_told_where_it_comes_from() -> None:
    async with stun_server() as server, shared_port(4) as port:
        binding = await ask_binding_over_tcp(server, port)
        assert binding.mapped == Endpoint(HERE, port)
        assert binding.origin == server


async def test_one_port_dials_several_servers() -> None:
    async with stun_server() as one, stun_server() as other, shared_port(4) as port:
        mapped = [(await ask_binding_over_tcp(server, port)).mapped for server in (one, other)]
        assert mapped == [Endpoint(HERE, port)] * 2


async def test_a_request_in_pieces_is_read_and_several_are_answered_up_to_a_bound() -> None:
    async with stun_server() as server, await dial(server) as stream:
        request = binding_request(bytes(12))
        for byte in request:
            await stream.send_all(bytes([byte]))
        assert stun.parse(bytes(await stream.receive_some(2000))) is not None
        for _ in range(REQUESTS_MAX - 1):
            await stream.send_all(request)
            assert await stream.receive_some(2000)
        assert await stream.receive_some(1) == b""


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
        b"\0\1\xff\xff" + bytes(16),
        bytes(20),
        binding_request(bytes(12), change_port=True),
        stun.serialise(Message(stun.BINDING_SUCCESS, bytes(12))),
    ],
)
async def test_anything_else_ends_the_connection_without_a_word_or_with_a_refusal(sent: bytes) -> None:
    async with stun_server() as server, await dial(server) as stream:
        await stream.send_all(sent)
        answer = b""
        try:
            while piece := await stream.receive_some(2000):
                answer += piece
                await stream.send_eof()
        except trio.BrokenResourceError:
            return  # what it had not read made it a reset
        assert not answer or stun.parse(answer).kind == stun.BINDING_ERROR  # type: ignore[union-attr]


async def test_who_says_nothing_is_sent_away_in_time(autojump_clock: MockClock) -> None:
    autojump_clock.autojump_threshold = 0.01
    async with stun_server() as server, await dial(server) as stream:
        began = trio.current_time()
        assert await stream.receive_some(1) == b""
        assert trio.current_time() - began == pytest.approx(CONNECTION_S_MAX, abs=0.5)


async def test_more_connections_than_the_bound_are_closed_at_once() -> None:
    async with stun_server() as server:
        streams = [await dial(server) for _ in range(CONNECTIONS_MAX)]
        async with await dial(server) as one_more:
            assert await one_more.receive_some(1) == b""
        await streams[0].send_all(binding_request(bytes(12)))
        assert await streams[0].receive_some(2000)
        for stream in streams:
            await stream.aclose()


async def test_a_source_is_answered_no_more_often_than_the_limit_allows() -> None:
    async with stun_server(ServerLimits(per_source_rate_per_s=0.0, per_source_burst=1)) as server:
        await ask_binding_over_tcp(server)
        with pytest.raises(NodeUnreachable, match="no answer"):
            await ask_binding_over_tcp(server)


async def test_a_server_that_is_not_there_or_says_something_else_is_named() -> None:
    listener = (await trio.open_tcp_listeners(0, host=str(HERE)))[0]
    server = Endpoint(HERE, listener.socket.getsockname()[1])

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            request = await stream.receive_some(2000)
            await stream.send_all(stun.serialise(Message(stun.BINDING_SUCCESS, bytes(request[8:20]))))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        with pytest.raises(ProtocolViolation):
            await ask_binding_over_tcp(server)
        nursery.cancel_scope.cancel()
    with pytest.raises(NodeUnreachable, match="cannot be asked over TCP"):
        await ask_binding_over_tcp(server)
