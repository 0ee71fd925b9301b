"""Sessions between nodes that meet through relays: calls, big payloads, and a relay that is lost under them."""

from __future__ import annotations

import random
from collections import Counter
from types import SimpleNamespace
from typing import Any

import trio
from hidden_hosts import LOOPBACK, make_relay, reserve, until

from sedmad.net.calls import IncomingCall
from sedmad.net.certificates import VerifiedCertificate
from sedmad.net.host import PeerHost, open_host
from sedmad.net.identity import Identity
from sedmad.net.session import Session
from sedmad.net.sessions import Sessions
from sedmad.wire.messages import (
    ApplyMatrixRequest,
    ApplyMatrixResponse,
    CertificateChain,
    CertificateRole,
    SignedCertificate,
)
from sedmad.wire.methods import MethodTable, services, snake_case

MIB = 1 << 20
APPLY = "sedma.v1.MatrixService/ApplyMatrix"
CHAIN = CertificateChain(certificates=[SignedCertificate(certificate=b"member", signature=b"good")])


def verify(chain: CertificateChain, peer_id: str) -> VerifiedCertificate:
    return VerifiedCertificate(peer_id, "name", CertificateRole.CERTIFICATE_ROLE_MEMBER, 2**40, b"digest")


class Node:
    """Sessions over a real host, and a service that turns payloads round."""

    def __init__(self, host: PeerHost) -> None:
        self.host = host
        self.handled: Counter[str] = Counter()
        self.links: list[bool] = []
        names = [snake_case(method.name) for method in services()["MatrixService"].methods]
        methods = MethodTable()
        methods.add("MatrixService", SimpleNamespace(**dict.fromkeys(names, self.turn_round)))
        self.sessions = Sessions(
            host,
            chain=CHAIN,
            verify=verify,
            methods=methods,
            rng=random.Random(host.peer_id),
            wall_time=lambda: 1000.0,
            software_version="1",
            on_link=lambda peer, is_up: self.links.append(is_up),
            on_message=lambda *_: None,
            on_clock=lambda *_: None,
        )

    async def turn_round(self, request: ApplyMatrixRequest, call: IncomingCall) -> Any:
        self.handled[request.name] += 1
        payload = bytearray(request.columns)
        await call.read_into(memoryview(payload))
        return ApplyMatrixResponse(length=len(payload)), bytes(reversed(payload))

    async def ask(self, other: Node, name: str, payload: bytes) -> None:
        into = bytearray(len(payload))
        await self.sessions.call(
            other.host.peer_id,
            APPLY,
            ApplyMatrixRequest(name=name, columns=len(payload)),
            deadline=trio.current_time() + 60,
            payload=payload,
            into=memoryview(into),
        )
        assert into == bytes(reversed(payload))

    async def attached(self, other: Node) -> Session:
        await until(lambda: self.sessions.attached(other.host.peer_id))
        session = self.sessions.attached(other.host.peer_id)
        assert session is not None
        return session


async def run_relay(
    relays: list[tuple[PeerHost, trio.CancelScope]], task_status: trio.TaskStatus[None]
) -> None:
    with trio.CancelScope() as scope:
        async with open_host(Identity.make(), LOOPBACK) as hop:
            make_relay(hop)
            relays.append((hop, scope))
            task_status.started()
            await trio.sleep_forever()


async def test_a_session_outlives_the_relay_under_it_and_loses_nothing() -> None:
    relays: list[tuple[PeerHost, trio.CancelScope]] = []
    async with (
        trio.open_nursery() as nursery,
        open_host(Identity.make(), []) as host,
        open_host(Identity.make(), []) as other_host,
    ):
        for _ in range(2):
            await nursery.start(run_relay, relays)
        one, other = Node(host), Node(other_host)
        for node in (one, other):
            await nursery.start(node.sessions.run)
        addresses = tuple([await reserve(other_host, hop) for hop, _ in relays])
        one.sessions.keep(other_host.peer_id, addresses)
        session = await one.attached(other)
        assert session.path == "relayed"
        assert (await other.attached(one)).path == "relayed"
        await one.ask(other, "before", random.Random(1).randbytes(8 * MIB))
        await other.ask(one, "before", b"abc")

        async with trio.open_nursery() as asking:
            for index in range(2):
                payload = random.Random(index).randbytes(8 * MIB)
                asking.start_soon(one.ask, other, f"one {index}", payload)
                asking.start_soon(other.ask, one, f"other {index}", payload)
            # The first relay dies when calls are well under way.
            sent_bytes = session.window.sent_bytes
            await until(lambda: session.window.sent_bytes > sent_bytes + 8 * MIB)
            relays[0][1].cancel()
        assert await one.attached(other) is session
        assert session.path == "relayed"
        assert one.links[:3] == [True, False, True]
        assert len(other.handled) == len(one.handled) == 3
        assert {*one.handled.values(), *other.handled.values()} == {1}
        assert other_host.listen_addresses == [addresses[1]]
        nursery.cancel_scope.cancel()


async def test_a_session_moves_from_a_relay_to_a_direct_connection_under_calls() -> None:
    relays: list[tuple[PeerHost, trio.CancelScope]] = []
    async with (
        trio.open_nursery() as nursery,
        open_host(Identity.make(), []) as host,
        open_host(Identity.make(), LOOPBACK) as other_host,
    ):
        await nursery.start(run_relay, relays)
        one, other = Node(host), Node(other_host)
        for node in (one, other):
            await nursery.start(node.sessions.run)
        one.sessions.keep(other_host.peer_id, (await reserve(other_host, relays[0][0]),))
        session = await one.attached(other)
        assert session.path == "relayed"
        relayed = host.connection(other_host.peer_id)
        assert relayed is not None
        async with trio.open_nursery() as asking:
            for index in range(2):
                asking.start_soon(one.ask, other, f"{index}", random.Random(index).randbytes(8 * MIB))
            await host.connect_directly(other_host.peer_id, other_host.own_addresses, timeout_s=5)
            # What opens the next stream finds the better connection.
            session.detach()
        assert await one.attached(other) is session
        assert session.path == "direct"
        assert set(other.handled.values()) == {1}
        assert relayed.is_open
        nursery.cancel_scope.cancel()
