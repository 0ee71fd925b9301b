from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import structlog.testing
import trio
from trio.testing import MockClock

from sedmad.errors import CertificateInvalid, NodeUnreachable, Overloaded, SessionLost
from sedmad.net import sessions as sessions_module
from sedmad.net.calls import IncomingCall
from sedmad.net.certificates import VerifiedCertificate
from sedmad.net.hello import HELLO_TIMEOUT_S, receive_hello, send_hello
from sedmad.net.session import SILENCE_S, WRITE_STALL_S, Session
from sedmad.net.sessions import ALIVE_S, RESUME_S, Sessions
from sedmad.testing.fake_host import FakeConnection, FakeHost, FakeNetwork, FakeStream
from sedmad.wire.frame import Frame, encode
from sedmad.wire.messages import (
    ApplyMatrixRequest,
    ApplyMatrixResponse,
    CertificateChain,
    CertificateRole,
    FrameHeader,
    FrameKind,
    PutMatrixRequest,
    SessionHello,
    SignedCertificate,
)
from sedmad.wire.methods import MethodTable, services, snake_case
from sedmad.wire.pacing import (
    FRAME_BYTES_MIN,
    SLOW_TARGET_DELAY_S,
    SLOWEST_BYTES_PER_S,
    WINDOW_BYTES_INITIAL,
)

MIB = 1 << 20
APPLY = "sedma.v1.MatrixService/ApplyMatrix"


def chain_of(peer_id: str, signature: bytes = b"good") -> CertificateChain:
    return CertificateChain(
        certificates=[SignedCertificate(certificate=peer_id.encode(), signature=signature)]
    )


def verify(chain: CertificateChain, peer_id: str) -> VerifiedCertificate:
    if chain != chain_of(peer_id):
        raise CertificateInvalid("the peer is no member of this mesh", node=peer_id)
    member = CertificateRole.CERTIFICATE_ROLE_MEMBER
    return VerifiedCertificate(peer_id, f"name of {peer_id}", member, 2**40, b"digest")


class Node:
    """A host, its sessions, and a service that answers with its request's payload, turned round."""

    def __init__(self, network: FakeNetwork, peer_id: str, wall_time_s: float = 1000.0) -> None:
        self.network = network
        self.peer_id = peer_id
        self.host = FakeHost(network, peer_id)
        self.handled: Counter[str] = Counter()
        self.links: list[tuple[str, bool]] = []
        self.messages: list[tuple[str, str, bytes]] = []
        self.skews: dict[str, float] = {}
        self.gate = trio.Event()
        self.scope = trio.CancelScope()
        names = [snake_case(method.name) for method in services()["MatrixService"].methods]
        methods = MethodTable()
        methods.add("MatrixService", SimpleNamespace(**dict.fromkeys(names, self.turn_round)))
        self.sessions = Sessions(
            self.host,  # type: ignore[arg-type]
            chain=chain_of(peer_id),
            verify=verify,
            methods=methods,
            rng=random.Random(f"{peer_id} {network.rng.random()}"),
            wall_time=lambda: wall_time_s,
            software_version="1",
            on_link=lambda peer, is_up: self.links.append((peer, is_up)),
            on_message=lambda peer, method, message: self.messages.append((peer, method, message)),
            on_clock=self.skews.__setitem__,
        )

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        with self.scope:
            await self.sessions.run(task_status)

    async def turn_round(self, request: ApplyMatrixRequest, call: IncomingCall) -> Any:
        self.handled[request.name] += 1
        payload = bytearray(request.columns)
        await call.read_into(memoryview(payload))
        if request.name == "wait":
            await self.gate.wait()
        await trio.sleep(self.network.rng.uniform(0, 0.3))
        return ApplyMatrixResponse(length=len(payload)), bytes(reversed(payload))

    async def ask(
        self, peer_id: str, name: str = "w", payload: bytes = b"abc", seconds: float = 600.0
    ) -> None:
        into = bytearray(len(payload))
        encoded = await self.sessions.call(
            peer_id,
            APPLY,
            ApplyMatrixRequest(name=name, columns=len(payload)),
            deadline=trio.current_time() + seconds,
            payload=payload,
            into=memoryview(into),
        )
        assert ApplyMatrixResponse.FromString(encoded).length == len(payload)
        assert into == bytes(reversed(payload))

    async def attached(self, peer_id: str) -> Session:
        for _ in range(10_000):
            if session := self.sessions.attached(peer_id):
                return session
            await trio.sleep(0.1)
        raise AssertionError(f"{self.peer_id} and {peer_id} do not come together")


@asynccontextmanager
async def mesh(*peer_ids: str, seed: int = 0) -> AsyncIterator[tuple[FakeNetwork, list[Node]]]:
    async with trio.open_nursery() as nursery:
        network = FakeNetwork(nursery, random.Random(seed))
        nodes = [Node(network, peer_id) for peer_id in peer_ids]
        for node in nodes:
            await nursery.start(node.run)
        yield network, nodes
        nursery.cancel_scope.cancel()


async def start_again(network: FakeNetwork, node: Node) -> Node:
    """Kill a node and start another with its identity."""
    node.scope.cancel()
    for connection in list(network.live):
        if node.peer_id in (connection.ends[0].local, connection.ends[1].local):
            connection.cut(losing=True)
    fresh = Node(network, node.peer_id)
    await network.nursery.start(fresh.run)
    return fresh


def is_one_stream(one: Session | None, other: Session | None) -> bool:
    if one is None or other is None or one.stream is None or other.stream is None:
        return False
    ends: Any = (one.stream, other.stream)
    return ends[0].other is ends[1] and not ends[0].connection.broken


async def settled(network: FakeNetwork, one: Node, other: Node) -> None:
    """Wait until one stream carries the session of two nodes, and has for a while."""
    quiet = 0
    for _ in range(6000):
        await trio.sleep(0.05)
        joined = is_one_stream(one.sessions.attached(other.peer_id), other.sessions.attached(one.peer_id))
        quiet = quiet + 1 if joined and len(network.live) == 1 else 0
        if quiet == 100:
            return
    raise AssertionError(f"{len(network.live)} streams after five minutes")


async def test_one_dials_and_both_can_ask(autojump_clock: MockClock) -> None:
    async with mesh("a", "b") as (network, (a, b)):
        with pytest.raises(NodeUnreachable):
            await b.ask("a")
        a.sessions.keep("b", ("/ip4/1.2.3.4/tcp/1",))
        await settled(network, a, b)
        await a.ask("b", payload=random.Random(1).randbytes(5 * MIB))
        await b.ask("a", payload=random.Random(2).randbytes(5 * MIB))
        assert a.host.dialled == [("b", ["/ip4/1.2.3.4/tcp/1"])]
        assert (a.links, b.links) == ([("b", True)], [("a", True)])
        session = a.sessions.attached("b")
        assert session is not None
        assert session.path == "direct"
        certificate = a.sessions.certificate("b")
        assert certificate is not None
        assert session.channel.remote_name == certificate.name == "name of b"


async def test_messages_go_one_way_and_clocks_are_compared(autojump_clock: MockClock) -> None:
    async with mesh("a") as (network, (a,)):
        b = Node(network, "b", wall_time_s=4600.0)
        await network.nursery.start(b.run)
        b.sessions.send_message("a", "membership", b"lost")
        a.sessions.keep("b", ("x",))
        await settled(network, a, b)
        b.sessions.send_message("a", "membership", b"hello")
        await trio.sleep(1)
        assert a.messages == [("b", "membership", b"hello")]
        assert (a.skews, b.skews) == ({"b": 3600.0}, {"a": -3600.0})


@pytest.mark.parametrize("seed", range(12))
async def test_when_both_dial_at_once_one_stream_stays(seed: int, autojump_clock: MockClock) -> None:
    async with mesh("a", "b", seed=seed) as (network, (a, b)):
        a.sessions._rng = b.sessions._rng = SimpleNamespace(  # type: ignore[assignment]
            uniform=lambda low, high: low, randrange=network.rng.randrange
        )
        if seed % 2:
            b.sessions.keep("a", ("x",))
            a.sessions.keep("b", ("x",))
        else:
            a.sessions.keep("b", ("x",))
            b.sessions.keep("a", ("x",))
        await settled(network, a, b)
        await a.ask("b")
        await b.ask("a")
        assert a.handled == b.handled == {"w": 1}


@pytest.mark.parametrize("seed", range(10))
async def test_streams_that_break_at_any_moment_lose_and_repeat_nothing(
    seed: int, autojump_clock: MockClock
) -> None:
    async with mesh("a", "b", seed=seed) as (network, (a, b)):
        rng = random.Random(seed)

        async def break_streams() -> None:
            for _ in range(25):
                await a.attached("b")
                await trio.sleep(rng.choice([0.005, 0.05, 0.5]) * rng.random())
                for connection in list(network.live):
                    connection.cut(losing=True)

        async def ask_some(one: Node, other: Node, worker: int) -> None:
            for index in range(5):
                await one.attached(other.peer_id)
                size = rng.choice([0, 1, 1000, 70_000, MIB + 1, 2 * MIB])
                await one.ask(other.peer_id, f"{worker}.{index}", rng.randbytes(size))

        a.sessions.keep("b", ("x",))
        b.sessions.keep("a", ("x",))
        await settled(network, a, b)
        kept = a.sessions.attached("b")
        assert kept is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(break_streams)
            for worker in range(4):
                nursery.start_soon(ask_some, a, b, worker)
                nursery.start_soon(ask_some, b, a, worker)
        assert network.opened > 5
        for node in (a, b):
            assert len(node.handled) == 20
            assert set(node.handled.values()) == {1}
        await settled(network, a, b)
        assert a.sessions.attached("b") is kept


@pytest.mark.parametrize("seed", range(10))
async def test_meeting_over_streams_that_break_at_any_moment(seed: int, autojump_clock: MockClock) -> None:
    """Hellos and answers are lost too; afterwards the two agree, whoever was restarted in between."""
    async with mesh("a", "b", seed=seed) as (network, (a, b)):
        rng = random.Random(seed)
        a.sessions.keep("b", ("x",))
        b.sessions.keep("a", ("x",))
        for index in range(60):
            await trio.sleep(rng.choice([0.003, 0.03, 0.3]) * rng.random())
            for connection in list(network.live):
                connection.cut(losing=True)
            if index % 20 == 10:
                b = await start_again(network, b)
                b.sessions.keep("a", ("x",))
        await settled(network, a, b)
        await a.ask("b")
        await b.ask("a")


async def test_the_answers_of_a_peer_that_was_restarted_are_lost_and_new_ones_come(
    autojump_clock: MockClock,
) -> None:
    async with mesh("a", "b") as (network, (a, b)):
        a.sessions.keep("b", ("x",))
        await settled(network, a, b)
        before = a.sessions.attached("b")

        async def lose() -> None:
            with pytest.raises(SessionLost, match="name of b was restarted"):
                await a.ask("b", "wait")

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(lose)
            await trio.sleep(1)
            b = await start_again(network, b)
        await settled(network, a, b)
        assert a.sessions.attached("b") is before
        await a.ask("b")
        await b.ask("a")


async def test_calls_survive_a_short_outage_and_not_a_long_one(autojump_clock: MockClock) -> None:
    async with mesh("a", "b") as (network, (a, b)):
        a.sessions.keep("b", ("x",))
        await settled(network, a, b)

        async def lose() -> None:
            with pytest.raises(SessionLost, match="ended"):
                await a.ask("b", "wait")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.ask, "b", "wait")
            await trio.sleep(1)
            del network.hosts["b"]
            network.live[0].cut()
            await trio.sleep(RESUME_S / 3)
            network.hosts["b"] = b.host
            await a.attached("b")
            b.gate.set()
        b.gate = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose)
            await trio.sleep(1)
            del network.hosts["b"]
            network.live[0].cut()
        assert a.links[-1] == ("b", False)
        assert a.sessions.certificate("b") is None
        network.hosts["b"] = b.host
        await settled(network, a, b)
        await a.ask("b")


async def hostile_stream(network: FakeNetwork, victim: Node, name: str = "m") -> FakeStream:
    if name not in network.hosts:
        FakeHost(network, name)
    return await network.hosts[name].open_stream(victim.peer_id, "/sedma/session/1", 5.0)


def request(sequence: int) -> Frame:
    header = FrameHeader(kind=FrameKind.FRAME_KIND_REQUEST, call_id=sequence, sequence=sequence, method=APPLY)
    return Frame(header, end=True)


async def test_a_stranger_is_refused_before_anything_else_is_read(autojump_clock: MockClock) -> None:
    async with mesh("a") as (network, (a,)):
        with structlog.testing.capture_logs() as logs:
            for _ in range(10):
                stream = await hostile_stream(network, a)
                hello = SessionHello(chain=chain_of("m", b"forged"), session_id=5)
                await send_hello(stream, hello)  # type: ignore[arg-type]
                sent = b"".join(bytes(piece) for piece in encode(request(1)))
                await stream.send_all(sent)
                with pytest.raises(CertificateInvalid, match="no member"):
                    await receive_hello(stream)  # type: ignore[arg-type]
                assert stream.other.read_bytes == len(hello_bytes(hello))
                await stream.reset()
        assert len([line for line in logs if line["event"] == "stranger_refused"]) == 5
        assert not a.sessions._sessions
        assert not a.handled
        await trio.sleep(10)
        assert not network.live


def hello_bytes(hello: SessionHello) -> bytes:
    header = FrameHeader(kind=FrameKind.FRAME_KIND_HELLO, message=hello.SerializeToString())
    return b"".join(bytes(piece) for piece in encode(Frame(header)))


@pytest.mark.parametrize(
    "first_bytes",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x01",
        hello_bytes(SessionHello(chain=chain_of("m")))[:-1],
        hello_bytes(SessionHello(chain=chain_of("m"))),
        hello_bytes(SessionHello(chain=chain_of("m"), session_id=1, software_version="x" * 5000)),
        b"".join(bytes(piece) for piece in encode(request(1))),
        b"".join(
            bytes(p) for p in encode(Frame(FrameHeader(kind=FrameKind.FRAME_KIND_HELLO, message=b"\xff")))
        ),
        b"",
    ],
)
@pytest.mark.parametrize("then_closed", [False, True])
async def test_whoever_does_not_say_hello_is_let_go(
    first_bytes: bytes, then_closed: bool, autojump_clock: MockClock
) -> None:
    async with mesh("a") as (network, (a,)):
        stream = await hostile_stream(network, a)
        await stream.send_all(first_bytes)
        if then_closed:
            await stream.close()
        await trio.sleep(HELLO_TIMEOUT_S + 6)
        assert stream.connection.broken
        assert not a.sessions._sessions


async def member_stream(
    network: FakeNetwork, victim: Node, received_sequence: int = 0, peer_session_id: int = 0
) -> tuple[FakeStream, SessionHello]:
    stream = await hostile_stream(network, victim)
    hello = SessionHello(
        chain=chain_of("m"),
        session_id=5,
        peer_session_id=peer_session_id,
        received_sequence=received_sequence,
    )
    await send_hello(stream, hello)  # type: ignore[arg-type]
    return stream, await receive_hello(stream)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bad_frame",
    [
        encode(request(2)),
        encode(Frame(FrameHeader(kind=FrameKind.FRAME_KIND_ACK, acknowledged=9))),
        encode(Frame(FrameHeader(kind=FrameKind.FRAME_KIND_HELLO))),
        [b"\xff" * 64],
    ],
)
async def test_a_member_that_breaks_the_rules_loses_its_session_and_may_come_again(
    bad_frame: list[bytes], autojump_clock: MockClock
) -> None:
    async with mesh("a") as (network, (a,)):
        stream, told = await member_stream(network, a)
        session = await a.attached("m")

        async def lose() -> None:
            with pytest.raises(SessionLost):
                await a.ask("m")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose)
            await trio.sleep(1)
            await stream.send_all(bad_frame)
        assert stream.connection.broken
        assert a.sessions.attached("m") is None
        _, told_again = await member_stream(network, a)
        assert told_again.session_id != told.session_id
        assert await a.attached("m") is not session


async def test_a_hello_that_acknowledges_too_much_ends_the_session(autojump_clock: MockClock) -> None:
    async with mesh("a") as (network, (a,)):
        _, told = await member_stream(network, a)
        with pytest.raises(NodeUnreachable):
            await member_stream(network, a, received_sequence=7, peer_session_id=told.session_id)
        assert a.sessions.attached("m") is None


async def freeze(network: FakeNetwork) -> FakeConnection:
    (connection,) = network.live
    for end in connection.ends:
        end.frozen = True
    return connection


async def test_a_silent_connection_is_given_up_and_the_calls_go_on(autojump_clock: MockClock) -> None:
    async with mesh("a", "b") as (network, (a, b)):
        a.sessions.keep("b", ("x",))
        await settled(network, a, b)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.ask, "b", "wait")
            await trio.sleep(1)
            silent = await freeze(network)
            b.gate.set()
            await trio.sleep(SILENCE_S + 1)
            assert silent.broken
        assert b.handled == {"wait": 1}


async def test_a_peer_that_stops_reading_is_given_up_and_the_calls_go_on(autojump_clock: MockClock) -> None:
    async with mesh("a", "b") as (network, (a, b)):
        a.sessions.keep("b", ("x",))
        await settled(network, a, b)
        stuck = network.live[0]
        for end in stuck.ends:
            end.frozen = end.local == "b"
        began = trio.current_time()
        await a.ask("b", payload=bytes(3 * MIB))
        assert stuck.broken
        assert trio.current_time() - began >= WRITE_STALL_S
        assert b.handled == {"w": 1}


async def test_a_peer_held_for_dead_is_dialled_again_and_its_calls_end(autojump_clock: MockClock) -> None:
    async with mesh("a", "b") as (network, (a, b)):
        a.sessions.keep("b", ("x",))
        await settled(network, a, b)

        async def lose(one: Node, other: Node, match: str) -> None:
            with pytest.raises(SessionLost, match=match):
                await one.ask(other.peer_id, "wait")

        for round_ in range(3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lose, a, b, "ended")
                nursery.start_soon(lose, b, a, "restarted")
                await trio.sleep(1)
                a.sessions.hold_for_dead("b")
                await trio.sleep(ALIVE_S)
                assert a.sessions.attached("b")
                a.sessions.hold_for_dead("b")
            assert b.handled["wait"] == a.handled["wait"] == round_ + 1
            await settled(network, a, b)
        assert network.opened == 4
        await a.ask("b")


async def test_calls_wait_for_a_session_that_is_coming(autojump_clock: MockClock) -> None:
    """Before the first stream, between two, and after a session was given up: as long as somebody dials."""
    async with mesh("a", "b") as (network, (a, b)):
        a.sessions.keep("b", ("x",))
        await a.ask("b")
        for outage_s in (1, RESUME_S * 2):
            del network.hosts["b"]
            network.live[0].cut()
            await trio.sleep(0.1)
            assert a.sessions.attached("b") is None
            async with trio.open_nursery() as nursery:
                nursery.start_soon(a.ask, "b")
                await trio.sleep(outage_s)
                network.hosts["b"] = b.host
        # The side that does not dial waits as well, while it remembers the session.
        network.live[0].cut()
        await b.ask("a")


async def test_calls_wait_no_longer_than_their_deadline(autojump_clock: MockClock) -> None:
    async with mesh("a") as (_, (a,)):
        a.sessions.keep("b", ("x",))
        began = trio.current_time()
        with pytest.raises(NodeUnreachable, match="in time"):
            await a.ask("b", seconds=3.0)
        assert trio.current_time() - began == pytest.approx(3.0)


async def test_a_peer_held_for_dead_is_not_waited_for_until_it_is_back(autojump_clock: MockClock) -> None:
    async with mesh("a", "b") as (network, (a, b)):
        a.sessions.keep("b", ("x",))
        await settled(network, a, b)
        del network.hosts["b"]
        network.live[0].cut()
        await trio.sleep(0.1)

        async def fail() -> None:
            with pytest.raises(NodeUnreachable, match="dead"):
                await a.ask("b")

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            await trio.sleep(1)
            a.sessions.hold_for_dead("b")
        await fail()
        assert trio.current_time() - began == pytest.approx(1.0)
        network.hosts["b"] = b.host
        await settled(network, a, b)
        await a.ask("b")
        # Nobody dials it any more: there is nothing to wait for.
        a.sessions.release("b")
        network.live[0].cut()
        await trio.sleep(RESUME_S + 5)
        with pytest.raises(NodeUnreachable, match="not connected"):
            await a.ask("b")


PUT = "sedma.v1.MatrixService/PutMatrix"


async def turn_round_in_bulk(one: Node, other: Node, payload: bytes) -> None:
    """Send bulk, and check what comes back."""
    request = PutMatrixRequest(name="bulk", columns=len(payload))
    channel = await one.sessions.reach(other.peer_id, deadline=1e9)
    async with channel.open_call(PUT, request, deadline=1e9, end=False) as call:
        await call.send_all(payload, 0)
        digest = hashlib.sha256()
        async for chunk in call:
            digest.update(chunk.payload)
    assert digest.digest() == hashlib.sha256(bytes(reversed(payload))).digest()


@pytest.mark.parametrize("seed", range(2))
async def test_cuts_cost_little(seed: int, autojump_clock: MockClock) -> None:
    """With a cut each second less than 5 % is sent again, and sessions are back at once each time."""
    async with mesh("a", "b", seed=seed) as (network, (a, b)):
        network.rate_bytes_per_s = 10e6
        a.sessions.keep("b", ("x",))
        b.sessions.keep("a", ("x",))
        session = await a.attached("b")

        async def cut() -> None:
            while True:
                await trio.sleep(network.rng.uniform(0.5, 1.5))
                for connection in list(network.live):
                    connection.cut(losing=True)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cut)
            await turn_round_in_bulk(a, b, random.Random(seed).randbytes(24 * MIB))
            nursery.cancel_scope.cancel()
        assert b.handled == {"bulk": 1}
        assert await a.attached("b") is session
        assert network.opened > 5
        for node, peer_id in ((a, "b"), (b, "a")):
            window = (await node.attached(peer_id)).window
            assert window.sent_bytes == 24 * MIB
            assert window.resent_bytes < 0.05 * window.sent_bytes


@pytest.mark.parametrize("rate", [SLOWEST_BYTES_PER_S, 64e3])
async def test_bulk_gets_through_a_slow_link_and_probes_with_it(
    rate: float, autojump_clock: MockClock
) -> None:
    async with mesh("a", "b") as (network, (a, b)):
        network.rate_bytes_per_s = rate
        a.sessions.keep("b", ("x",))
        await settled(network, a, b)
        sent_at: list[float] = []
        took_s: list[float] = []
        b.messages = SimpleNamespace(  # type: ignore[assignment]
            append=lambda _: took_s.append(trio.current_time() - sent_at[len(took_s)])
        )

        async def probe() -> None:
            while True:
                sent_at.append(trio.current_time())
                a.sessions.send_message("b", "membership", b"probe")
                await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(probe)
            await turn_round_in_bulk(a, b, random.Random(1).randbytes(3 * MIB))
            nursery.cancel_scope.cancel()
        assert network.opened == 1
        assert len(took_s) > 3 * MIB / rate
        # At first nothing is known of the path; then a frame or two are in the way.
        assert max(took_s) <= 2.5 * WINDOW_BYTES_INITIAL / rate
        assert max(took_s[10:]) <= SLOW_TARGET_DELAY_S + 4 * FRAME_BYTES_MIN / rate


async def test_a_released_peer_is_not_dialled_any_more(autojump_clock: MockClock) -> None:
    async with mesh("a", "b") as (network, (a, b)):
        a.sessions.keep("b", ("x",))
        await settled(network, a, b)
        a.sessions.release("b")
        await trio.sleep(RESUME_S + 60)
        assert not network.live
        assert network.opened == 1
        assert not a.sessions._sessions
        assert not b.sessions._sessions
        b.sessions.keep("a", ("x",))
        await settled(network, a, b)
        a.sessions.release("b")
        await b.ask("a")


async def test_new_addresses_are_dialled_at_once_and_oneself_never(autojump_clock: MockClock) -> None:
    async with mesh("a") as (_, (a,)):
        a.sessions.keep("a", ("x",))
        a.sessions.keep("b", ("old",))
        await trio.sleep(300)
        dialled = len(a.host.dialled)
        assert dialled < 300
        a.sessions.keep("b", ("new",))
        a.sessions.keep("b", ("new",))
        await trio.sleep(0.2)
        assert a.host.dialled[dialled:] == [("b", ["new"])]
        assert {peer_id for peer_id, _ in a.host.dialled} == {"b"}


async def test_the_waiting_side_redials_when_the_stream_that_replaced_another_breaks(
    autojump_clock: MockClock,
) -> None:
    async with mesh("a", "b") as (network, (a, b)):
        b.sessions.keep("a", ("x",))
        await settled(network, a, b)
        first = network.live[0]
        # The peer has lost the stream and comes again before this side has noticed.
        a.sessions.keep("b", ("x",))
        await trio.sleep(5)
        session = b.sessions.attached("a")
        assert session is not None
        session.detach()
        await settled(network, a, b)
        assert first.broken
        b.sessions.release("a")
        network.live[0].cut()
        await settled(network, a, b)


async def test_one_session_too_many_is_refused(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(sessions_module, "SESSIONS_MAX", 1)
    async with mesh("a", "b") as (network, (a, b)):
        b.sessions.keep("a", ("x",))
        await settled(network, a, b)
        with pytest.raises(Overloaded, match="too many sessions"):
            await member_stream(network, a)
        await a.ask("b")


async def test_stopping_ends_the_calls(autojump_clock: MockClock) -> None:
    async with mesh("a", "b") as (network, (a, b)):
        a.sessions.keep("b", ("x",))
        await settled(network, a, b)

        async def lose() -> None:
            with pytest.raises(SessionLost):
                await a.ask("b", "wait")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose)
            await trio.sleep(1)
            a.scope.cancel()
        assert a.links == [("b", True), ("b", False)]
        with pytest.raises(NodeUnreachable):
            await a.ask("b")


async def test_bulk_and_products_and_probes_share_a_stream(autojump_clock: MockClock) -> None:
    """Digests of what arrived equal digests of what was sent, whatever overtook whatever."""
    async with mesh("a", "b") as (network, (a, b)):
        a.sessions.keep("b", ("x",))
        await settled(network, a, b)

        async def probe() -> None:
            for index in range(50):
                a.sessions.send_message("b", "membership", str(index).encode())
                await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(turn_round_in_bulk, a, b, random.Random(1).randbytes(12 * MIB))
            nursery.start_soon(turn_round_in_bulk, a, b, random.Random(2).randbytes(12 * MIB))
            nursery.start_soon(probe)
            for index in range(10):
                nursery.start_soon(a.ask, "b", f"w{index}", bytes(100_000))
        await trio.sleep(1)
        assert [int(message) for _, _, message in b.messages] == list(range(50))
        session = a.sessions.attached("b")
        assert session is not None
        assert session.window.resent_bytes == 0
        assert not session.window._sent
