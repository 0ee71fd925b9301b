"""Connections through relays, between real hosts."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
import trio
from hidden_hosts import ECHO, LOOPBACK, UNIX_S, echo, hidden_pair, is_echoed, make_relay, reserve, until
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Status
from multiaddr import Multiaddr

from sedmad.errors import NodeUnreachable, RelayRefused
from sedmad.net import host as host_module
from sedmad.net.addresses import CircuitAddress, circuits_by_relay, parse_circuit_address, relay_addresses
from sedmad.net.host import open_host
from sedmad.net.identity import Identity
from sedmad.net.relay import circuit as circuit_module
from sedmad.net.relay import reserving as reserving_module
from sedmad.net.relay.limits import CircuitLimit, RelayLimits
from sedmad.net.relay.messages import HOP_PROTOCOL, receive_message
from sedmad.net.relay.plan import Candidate
from sedmad.net.relay.reserving import ReservationKeeper
from sedmad.net.stream import ByteStream


async def test_two_that_only_dial_out_reach_each_other_through_a_relay() -> None:
    seen: list[tuple[str, str, str]] = []

    async def tell(stream: ByteStream, peer_id: str, remote_address: str) -> None:
        seen.append((peer_id, remote_address, stream.path))

    async with hidden_pair() as three:
        one, other, hop = three.one, three.other, three.hop
        other.serve("/test/tell/1", tell)
        connected: list[str] = []
        other.on_connected = connected.append
        assert other.listen_addresses == [f"{hop.listen_addresses[0]}/p2p-circuit/p2p/{other.peer_id}"]
        await three.connect()
        assert connected == [one.peer_id]
        stream = await one.open_stream(other.peer_id, "/test/tell/1", timeout_s=5)
        assert (stream.path, stream.remote_address) == ("relayed", three.address)
        assert await stream.receive_some() == b""
        ((peer_id, remote_address, path),) = seen
        assert (peer_id, path) == (one.peer_id, "relayed")
        assert remote_address.startswith("/ip4/127.0.0.1/tcp/")
        assert remote_address.endswith(f"/p2p/{hop.peer_id}/p2p-circuit/p2p/{one.peer_id}")
        assert await is_echoed(one, other.peer_id, random.Random(1).randbytes(9 << 20))
        connection = one.connection(other.peer_id)
        assert connection is not None
        assert (connection.path, connection.is_limited) == ("relayed", False)
        # The other way round on the same connection.
        one.serve(ECHO, echo)
        assert await is_echoed(other, one.peer_id)
        await one.disconnect(other.peer_id)
        await until(lambda: three.relay.circuit_count == 0 and one.peer_id not in other.connected_peers())
        assert three.relay.carried_bytes > 18 << 20


async def test_what_follows_a_message_at_once_is_not_lost() -> None:
    async def answer(stream: ByteStream, peer_id: str, remote_address: str) -> None:
        told = HopMessage(type=HopMessage.STATUS, status=Status.OK).SerializeToString()
        await stream.send_all(bytes([len(told)]) + told + b"and the circuit's first bytes")

    async with open_host(Identity.make(), LOOPBACK) as hop, open_host(Identity.make(), []) as one:
        hop.serve(HOP_PROTOCOL, answer)
        await one.connect(hop.peer_id, hop.listen_addresses, timeout_s=5)
        stream = await one.open_stream(hop.peer_id, HOP_PROTOCOL, timeout_s=5)
        assert (await receive_message(stream, HopMessage)).status == Status.OK
        assert await stream.receive_some() == b"and the circuit's first bytes"


async def test_a_direct_connection_is_preferred_and_a_relayed_one_left_alone() -> None:
    async with hidden_pair() as three, open_host(Identity.make(), LOOPBACK) as reachable:
        reachable.serve(ECHO, echo)
        address = await reserve(reachable, three.hop)
        one = three.one
        await one.connect(reachable.peer_id, [address], timeout_s=5)
        relayed = one.connection(reachable.peer_id)
        assert relayed is not None
        held = await one.open_stream(reachable.peer_id, ECHO, timeout_s=5)
        direct = await one.connect_directly(reachable.peer_id, reachable.listen_addresses, timeout_s=5)
        assert direct.path == "direct"
        assert one.connections(reachable.peer_id) == [direct, relayed]
        assert one.connection(reachable.peer_id) == direct
        assert await one.connect_directly(reachable.peer_id, [], timeout_s=5) == direct
        assert (await one.open_stream(reachable.peer_id, ECHO, timeout_s=5)).path == "direct"
        assert (await relayed.open_stream(ECHO, timeout_s=5)).path == "relayed"
        await held.send_all(b"still")
        assert await held.receive_some() == b"still"
        await direct.close()
        assert one.connection(reachable.peer_id) == relayed
        # Others' connections through this node's relay do not count as ways to it.
        with pytest.raises(NodeUnreachable, match="no usable address"):
            await one.connect_directly(reachable.peer_id, [address], timeout_s=5)


async def test_direct_addresses_are_tried_before_circuits() -> None:
    async with hidden_pair() as three, open_host(Identity.make(), LOOPBACK) as reachable:
        circuit = await reserve(reachable, three.hop)
        await three.one.connect(reachable.peer_id, [circuit, *reachable.own_addresses], timeout_s=5)
        connection = three.one.connection(reachable.peer_id)
        assert connection is not None
        assert connection.path == "direct"
        assert not three.relay.circuit_count
        nowhere = "/ip4/127.0.0.1/tcp/1"
        await three.connect()
        await three.one.disconnect(three.other.peer_id)
        await three.one.connect(three.other.peer_id, [three.address, nowhere], timeout_s=5)
        assert three.one.connected_peers()


async def test_a_relay_that_is_not_there_costs_no_more_than_its_turn() -> None:
    async with hidden_pair() as three:
        absent = Identity.make().peer_id
        dead = [f"/ip4/127.0.0.1/tcp/1/p2p/{absent}/p2p-circuit/p2p/{three.other.peer_id}"] * 2
        await three.one.connect(three.other.peer_id, [*dead, three.address], timeout_s=5)
        await three.one.disconnect(three.other.peer_id)
        with pytest.raises(NodeUnreachable, match="refused"):
            await three.one.connect(three.other.peer_id, dead, timeout_s=5)


async def test_why_a_circuit_is_not_carried_is_told() -> None:
    async with hidden_pair() as three:
        stranger = Identity.make().peer_id
        absent = CircuitAddress(
            three.hop.listen_addresses[0].partition("/p2p/")[0], three.hop.peer_id, stranger
        )
        with pytest.raises(RelayRefused, match="no reservation"):
            await three.one.relaying.dial([absent], 5)
        with pytest.raises(NodeUnreachable, match="no reservation"):
            await three.one.connect(stranger, [str(absent)], timeout_s=5)
        three.other.relaying.release(three.hop.peer_id)
        with pytest.raises(NodeUnreachable, match="could not reach"):
            await three.connect()
        three.relay.is_serving = False
        with pytest.raises(NodeUnreachable, match="does not serve this node"):
            await three.connect()
        with pytest.raises(RelayRefused, match="does not serve this node"):
            await reserve(three.one, three.hop)
        with pytest.raises(NodeUnreachable, match="not supported"):
            await three.hop.reserve(three.other.peer_id, [], now_s=UNIX_S)


async def test_reservations_are_for_members_and_strangers_get_short_circuits() -> None:
    members: set[str] = set()
    async with (
        open_host(Identity.make(), LOOPBACK) as hop,
        open_host(Identity.make(), []) as member,
        open_host(Identity.make(), []) as stranger,
    ):
        relay = make_relay(hop, is_member=members.__contains__)
        with pytest.raises(RelayRefused, match="does not serve"):
            await reserve(member, hop)
        members.add(member.peer_id)
        member.serve(ECHO, echo)
        address = await reserve(member, hop)
        await stranger.connect(member.peer_id, [address], timeout_s=5)
        for host, peer in ((stranger, member), (member, stranger)):
            connection = host.connection(peer.peer_id)
            assert connection is not None
            assert connection.is_limited
        assert await is_echoed(stranger, member.peer_id, bytes(50_000))
        with pytest.raises(NodeUnreachable):
            await is_echoed(stranger, member.peer_id, bytes(400_000))
        await until(lambda: relay.circuit_count == 0)
        assert relay.reservation_count == 1


async def test_circuits_end_when_their_time_is_over() -> None:
    limits = RelayLimits(member=CircuitLimit(seconds=1.0))
    async with hidden_pair(limits) as three:
        assert three.other.relaying.reservations[0].limit == CircuitLimit(seconds=1.0)
        await three.connect()
        stream = await three.one.open_stream(three.other.peer_id, ECHO, timeout_s=5)
        with pytest.raises(NodeUnreachable):
            await stream.receive_some()
        assert three.relay.circuit_count == 0
        await three.connect()


async def test_a_circuit_that_carries_nothing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit_module, "IDLE_S", 0.3)
    async with hidden_pair() as three:
        await three.connect()
        stream = await three.one.open_stream(three.other.peer_id, ECHO, timeout_s=5)
        for _ in range(4):
            await trio.sleep(0.15)
            await stream.send_all(b"alive")
            assert await stream.receive_some() == b"alive"
        with pytest.raises(NodeUnreachable):
            await stream.receive_some()


async def test_a_side_that_does_not_read_holds_the_other_back() -> None:
    async def read_nothing(stream: ByteStream, peer_id: str, remote_address: str) -> None:
        await trio.sleep_forever()

    async with hidden_pair() as three:
        # The connection at the end reads on, as one stream's reader does not hold up the others: so the window of
        # the stream inside the circuit fills first. What is unread on the relay is bounded as well.
        three.other.serve("/test/nothing/1", read_nothing)
        await three.connect()
        stuck = await three.one.open_stream(three.other.peer_id, "/test/nothing/1", timeout_s=5)
        with trio.move_on_after(0.5):
            await stuck.send_all(bytes(32 << 20))
        assert await is_echoed(three.one, three.other.peer_id)
        connection = three.hop.direct_connection(three.one.peer_id)
        assert connection is not None
        windows = [
            stream._window_bytes for stream in connection.swarm_connection.muxed_conn._streams.values()
        ]
        assert windows
        assert max(windows) <= circuit_module.UNREAD_BYTES_MAX


async def test_a_relay_keeps_idle_connections_to_those_who_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "IDLE_CHECK_S", 0.02)
    monkeypatch.setattr(host_module, "IDLE_CONNECTION_S", 0.2)
    async with hidden_pair() as three:
        with suppress(NodeUnreachable):  # a busy machine may find it idle before it is told
            await three.one.connect(three.hop.peer_id, three.hop.listen_addresses, timeout_s=5)
        await until(lambda: not three.one.connected_peers())
        assert three.hop.connected_peers() == [three.other.peer_id]
        monkeypatch.setattr(host_module, "IDLE_CONNECTION_S", 30.0)
        await three.connect()
        assert await is_echoed(three.one, three.other.peer_id)
        monkeypatch.setattr(host_module, "IDLE_CONNECTION_S", 0.2)
        # A relayed connection that carries nothing is closed like any other, and the circuit with it.
        await until(lambda: three.relay.circuit_count == 0)
        three.other.relaying.release(three.hop.peer_id)
        assert not three.other.listen_addresses


async def test_the_keeper_takes_another_relay_where_one_is_lost() -> None:
    changes: list[list[str]] = []
    async with trio.open_nursery() as nursery, open_host(Identity.make(), []) as host:
        hops = []
        scopes = []

        async def run_relay(task_status: trio.TaskStatus[None]) -> None:
            with trio.CancelScope() as scope:
                async with open_host(Identity.make(), LOOPBACK) as hop:
                    make_relay(hop)
                    hops.append(hop)
                    scopes.append(scope)
                    task_status.started()
                    await trio.sleep_forever()

        for _ in range(4):
            await nursery.start(run_relay)
        keeper = ReservationKeeper(
            host,
            rng=random.Random(1),
            wall_time=lambda: UNIX_S,
            on_change=lambda: changes.append(host.listen_addresses),
        )
        await nursery.start(keeper.run)
        nowhere = Candidate(Identity.make().peer_id, ("/ip4/127.0.0.1/tcp/1",))
        itself = Candidate(host.peer_id, ())
        keeper.consider(
            [nowhere, itself, *(Candidate(hop.peer_id, tuple(hop.listen_addresses)) for hop in hops)]
        )
        await until(lambda: len(keeper.reservations) == 3)
        assert {r.relay_id for r in keeper.reservations} == {hop.peer_id for hop in hops[:3]}
        await until(lambda: changes and len(changes[-1]) == 3)
        scopes[0].cancel()
        await until(lambda: len(keeper.reservations) == 3 and hops[3].peer_id in changes[-1][-1])
        assert hops[0].peer_id not in "".join(changes[-1])
        assert {r.relay_id for r in keeper.reservations} == {hop.peer_id for hop in hops[1:]}
        nursery.cancel_scope.cancel()


async def test_the_keeper_gives_up_a_relay_that_goes_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserving_module, "PROBE_S", 0.2)
    monkeypatch.setattr(reserving_module, "PROBE_TIMEOUT_S", 0.5)

    async def say_nothing(stream: object) -> None:
        await trio.sleep_forever()

    async with (
        trio.open_nursery() as nursery,
        open_host(Identity.make(), []) as host,
        open_host(Identity.make(), LOOPBACK) as hop,
    ):
        make_relay(hop)
        keeper = ReservationKeeper(host, rng=random.Random(1), wall_time=lambda: UNIX_S)
        await nursery.start(keeper.run)
        keeper.consider([Candidate(hop.peer_id, tuple(hop.listen_addresses))])
        await until(lambda: host.listen_addresses)
        await trio.sleep(0.5)
        assert keeper.reservations
        hop._swarm.set_stream_handler(say_nothing)
        await until(lambda: not keeper.reservations)
        assert not host.listen_addresses
        nursery.cancel_scope.cancel()


PEER, RELAY = Identity.make().peer_id, Identity.make().peer_id


def test_circuit_addresses() -> None:
    text = f"/ip4/1.2.3.4/tcp/4001/p2p/{RELAY}/p2p-circuit"
    expected = CircuitAddress("/ip4/1.2.3.4/tcp/4001", RELAY, PEER)
    assert parse_circuit_address(text, PEER) == parse_circuit_address(f"{text}/p2p/{PEER}", PEER) == expected
    assert str(expected) == f"{text}/p2p/{PEER}"
    for other in (
        f"{text}/p2p/{RELAY}",
        f"{text}/tcp/4",
        f"/p2p/{RELAY}/p2p-circuit/p2p/{PEER}",
        f"/ip4/1.2.3.4/udp/4001/quic-v1/p2p/{RELAY}/p2p-circuit/p2p/{PEER}",
        f"/ip4/1.2.3.4/tcp/4001/p2p/{PEER}/p2p-circuit/p2p/{PEER}",
        f"/ip4/1.2.3.4/tcp/4001/p2p-circuit/p2p/{PEER}",
        f"{text}/p2p/{RELAY}/p2p-circuit/p2p/{PEER}",
        f"/ip4/1.2.3.4/tcp/4001/p2p/{PEER}",
        "/p2p-circuit",
        "nonsense/p2p/x/p2p-circuit",
        "",
    ):
        assert parse_circuit_address(other, PEER) is None


def test_circuits_through_three_relays_are_tried() -> None:
    relays = [Identity.make().peer_id for _ in range(4)]
    texts = [f"/ip4/10.0.0.{host}/tcp/1/p2p/{relay}/p2p-circuit" for relay in relays for host in (1, 2)]
    found = circuits_by_relay(["/ip4/1.1.1.1/tcp/1", *texts], PEER)
    assert list(found) == relays[:3]
    assert [str(circuit) for circuit in found[relays[0]]] == [f"{text}/p2p/{PEER}" for text in texts[:2]]


def test_what_a_relay_says_of_itself_is_sorted() -> None:
    told = [
        Multiaddr(f"/ip4/10.0.0.1/tcp/1/p2p/{RELAY}"),
        Multiaddr("/ip4/8.8.8.8/tcp/1"),
        Multiaddr(f"/ip4/8.8.4.4/tcp/1/p2p/{PEER}"),
        Multiaddr("/ip4/8.8.4.4/udp/1/quic-v1"),
        Multiaddr("/dns4/relay.example/tcp/1"),
        Multiaddr("/ip4/8.8.8.8/tcp/1"),
    ]
    encoded = [*(address.to_bytes() for address in told), b"\xff\xff", b""]
    assert relay_addresses(encoded, RELAY) == [
        "/ip4/8.8.8.8/tcp/1",
        "/dns4/relay.example/tcp/1",
        "/ip4/10.0.0.1/tcp/1",
    ]
    assert relay_addresses([told[1].to_bytes()] * 10_000, RELAY) == ["/ip4/8.8.8.8/tcp/1"]
