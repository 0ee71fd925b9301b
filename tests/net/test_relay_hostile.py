"""Relays, and those who use them, that break their word: everything ends, typed and bounded."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import structlog.testing
import trio
from hidden_hosts import (
    ECHO,
    LOOPBACK,
    UNIX_S,
    Trio,
    echo,
    hidden_pair,
    is_echoed,
    make_relay,
    reserve,
    until,
)
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Status, StopMessage

from sedmad.errors import NodeUnreachable, ProtocolViolation, RelayRefused, SedmadError
from sedmad.net import swarm
from sedmad.net.addresses import CircuitAddress
from sedmad.net.host import PeerHost, open_host
from sedmad.net.identity import Identity
from sedmad.net.relay import hop as hop_module
from sedmad.net.relay import stop as stop_module
from sedmad.net.relay.circuit import Circuit
from sedmad.net.relay.limits import RelayLimits
from sedmad.net.relay.messages import HOP_PROTOCOL, STOP_PROTOCOL, receive_message, send_message
from sedmad.net.relay.reservation import LIFE_S_MAX
from sedmad.net.stream import ByteStream

PEER = Identity.make().peer_id


def says(data: bytes, ends: bool = False) -> Callable[[ByteStream, str, str], Awaitable[None]]:
    async def answer(stream: ByteStream, peer_id: str, remote_address: str) -> None:
        await stream.send_all(data)
        if not ends:
            await trio.sleep_forever()

    return answer


def framed(message: HopMessage | StopMessage) -> bytes:
    encoded = message.SerializeToString()
    return bytes([len(encoded)]) + encoded


OK = framed(HopMessage(type=HopMessage.STATUS, status=Status.OK))
BAD_RELAYS = {
    "silent": (b"", False, NodeUnreachable, "no answer"),
    "ends": (b"", True, ProtocolViolation, "ended"),
    "ends in mid-message": (OK[:-1], True, ProtocolViolation, "ended"),
    "silent in mid-message": (OK[:-1], False, NodeUnreachable, "no answer"),
    "garbage": (random.Random(1).randbytes(64 << 10), False, SedmadError, "."),
    "10 MiB": (b"\x80\x80\x80\x05" + bytes(1 << 20), False, ProtocolViolation, "too long"),
    "no type": (b"\x00", False, ProtocolViolation, "no type"),
    "no status": (framed(HopMessage(type=HopMessage.STATUS)), False, RelayRefused, "status 0"),
    "another type": (framed(HopMessage(type=HopMessage.CONNECT)), False, ProtocolViolation, "something else"),
    **{
        f"status {status}": (
            framed(HopMessage(type=HopMessage.STATUS, status=status)),
            False,
            RelayRefused,
            "refused",
        )
        for status in (200, 201, 202, 203, 204, 400, 401, 999)
    },
}


@pytest.mark.parametrize("name", BAD_RELAYS)
async def test_a_relay_that_answers_badly(name: str) -> None:
    data, ends, error, match = BAD_RELAYS[name]
    async with open_host(Identity.make(), LOOPBACK) as hop, open_host(Identity.make(), []) as one:
        hop.serve(HOP_PROTOCOL, says(data, ends))
        circuit = CircuitAddress(hop.listen_addresses[0].partition("/p2p/")[0], hop.peer_id, PEER)
        await one.connect(hop.peer_id, hop.listen_addresses, timeout_s=5)
        for ask in (
            lambda: one.relaying.dial([circuit], 0.5),
            lambda: one.reserve(hop.peer_id, hop.listen_addresses, now_s=UNIX_S, timeout_s=0.5),
        ):
            with pytest.raises(error, match=match):
                await ask()
        with pytest.raises(NodeUnreachable):
            await one.connect(PEER, [str(circuit)], timeout_s=0.5)
        assert not one.relaying.reservations
        assert not one.relaying._asking
        assert one.connected_peers() == [hop.peer_id]


@pytest.mark.parametrize(
    "behind", [b"", random.Random(2).randbytes(1 << 20), b"\x13/multistream/1.0.0\n" * 9]
)
async def test_a_relay_that_takes_a_circuit_and_says_what_it_likes(
    behind: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swarm, "UPGRADE_TIMEOUT_S", 0.5)
    async with open_host(Identity.make(), LOOPBACK) as hop, open_host(Identity.make(), []) as one:
        hop.serve(HOP_PROTOCOL, says(OK + behind))
        circuit = CircuitAddress(hop.listen_addresses[0].partition("/p2p/")[0], hop.peer_id, PEER)
        with pytest.raises(NodeUnreachable, match="cannot connect"):
            await one.relaying.dial([circuit], 5)
        assert one.connected_peers() == [hop.peer_id]


async def test_a_relay_that_promises_what_it_likes() -> None:
    answer = HopMessage(type=HopMessage.STATUS, status=Status.OK)
    answer.reservation.expire = (1 << 64) - 1
    answer.reservation.addrs.extend([b"\xff" * 3] * 9)
    answer.limit.duration, answer.limit.data = (1 << 32) - 1, (1 << 64) - 1
    async with open_host(Identity.make(), LOOPBACK) as hop, open_host(Identity.make(), []) as one:
        hop.serve(HOP_PROTOCOL, says(framed(answer)))
        reservation = await one.reserve(hop.peer_id, hop.listen_addresses, now_s=UNIX_S)
        assert reservation.expires_at - reservation.made_at == pytest.approx(LIFE_S_MAX)
        # It says nowhere where it is, so it is where it was dialled.
        assert reservation.addresses == (f"{hop.listen_addresses[0]}/p2p-circuit/p2p/{one.peer_id}",)
        assert one.listen_addresses == list(reservation.addresses)
        await one.disconnect(hop.peer_id)
        assert not one.listen_addresses


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> trio.Event:
    """Once it is set, the circuits that stand take bytes and pass nothing on."""
    event = trio.Event()
    copy = Circuit._copy

    async def copy_until_silent(self: Circuit, source: ByteStream, target: ByteStream) -> None:
        receive_some, began_silent = source.receive_some, event.is_set()

        async def receive(max_bytes: int) -> bytes:
            data = await receive_some(max_bytes)
            if event.is_set() and not began_silent:
                await trio.sleep_forever()
            return data

        source.receive_some = receive  # type: ignore[method-assign]
        await copy(self, source, target)

    monkeypatch.setattr(Circuit, "_copy", copy_until_silent)
    return event


async def test_a_circuit_that_goes_silent_is_given_up_and_another_taken(silent: trio.Event) -> None:
    async with hidden_pair() as three:
        await three.connect()
        assert await is_echoed(three.one, three.other.peer_id)
        silent.set()
        with pytest.raises(NodeUnreachable, match="no answer"):
            await three.one.open_stream(three.other.peer_id, ECHO, timeout_s=0.3)
        assert three.one.connection(three.other.peer_id) is None
        await three.connect()
        assert await is_echoed(three.one, three.other.peer_id)


async def test_a_relay_that_goes_silent_costs_no_more_than_its_turn() -> None:
    async with hidden_pair() as three, open_host(Identity.make(), LOOPBACK) as silent_hop:
        silent_hop.serve(HOP_PROTOCOL, says(b""))
        silent_address = three.address.replace(three.hop.peer_id, silent_hop.peer_id)
        port, silent_port = (host.listen_addresses[0].split("/")[4] for host in (three.hop, silent_hop))
        silent_address = silent_address.replace(f"/tcp/{port}/", f"/tcp/{silent_port}/")
        await three.one.connect(three.other.peer_id, [silent_address, three.address], timeout_s=10)
        assert await is_echoed(three.one, three.other.peer_id)


async def test_a_relay_that_dies_takes_its_circuits_with_it() -> None:
    async with trio.open_nursery() as nursery, open_host(Identity.make(), []) as one:
        ready: list[Trio] = []
        scope = trio.CancelScope()

        async def run(task_status: trio.TaskStatus[None]) -> None:
            with scope:
                async with hidden_pair() as three:
                    ready.append(three)
                    task_status.started()
                    await trio.sleep_forever()

        await nursery.start(run)
        three = ready[0]
        await one.connect(three.other.peer_id, [three.address], timeout_s=5)
        stream = await one.open_stream(three.other.peer_id, ECHO, timeout_s=5)
        scope.cancel()
        with pytest.raises(NodeUnreachable):
            await stream.receive_some()
        await until(lambda: not one.connected_peers())


async def test_a_relay_that_damages_what_it_carries_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    damage = trio.Event()
    copy = Circuit._copy

    async def copy_damaged(self: Circuit, source: ByteStream, target: ByteStream) -> None:
        send_now = target.send_now

        def send(pieces: list[bytes]) -> bool:
            return send_now([bytes(len(pieces[0]))] if damage.is_set() else pieces)

        target.send_now = send  # type: ignore[method-assign, assignment]
        await copy(self, source, target)

    monkeypatch.setattr(Circuit, "_copy", copy_damaged)
    async with hidden_pair() as three:
        await three.connect()
        assert await is_echoed(three.one, three.other.peer_id)
        damage.set()
        with pytest.raises(NodeUnreachable):
            await is_echoed(three.one, three.other.peer_id)
        await until(lambda: three.relay.circuit_count == 0)


async def request(host: PeerHost, relay: PeerHost, message: HopMessage) -> int:
    stream = await host.open_stream(relay.peer_id, HOP_PROTOCOL, timeout_s=5)
    try:
        await send_message(stream, message)
        return (await receive_message(stream, HopMessage)).status
    finally:
        stream.abort()


def connect_to(peer_id: str) -> HopMessage:
    message = HopMessage(type=HopMessage.CONNECT)
    message.peer.id = ID.from_string(peer_id).to_bytes()
    return message


async def test_circuits_to_oneself_to_the_relay_and_to_nobody() -> None:
    async with hidden_pair() as three:
        other, hop = three.other, three.hop
        assert await request(other, hop, connect_to(other.peer_id)) == Status.PERMISSION_DENIED
        assert await request(other, hop, connect_to(hop.peer_id)) == Status.NO_RESERVATION
        assert await request(other, hop, connect_to(PEER)) == Status.NO_RESERVATION
        assert await request(other, hop, HopMessage(type=HopMessage.CONNECT)) == Status.MALFORMED_MESSAGE
        status = HopMessage(type=HopMessage.STATUS, status=Status.OK)
        assert await request(other, hop, status) == Status.UNEXPECTED_MESSAGE
        assert three.relay.circuit_count == 0


async def test_no_circuit_goes_through_a_circuit() -> None:
    async with hidden_pair() as three, open_host(Identity.make(), LOOPBACK) as second:
        make_relay(second)
        inner = await reserve(second, three.hop)
        await three.one.connect(second.peer_id, [inner], timeout_s=5)
        assert (
            await request(three.one, second, HopMessage(type=HopMessage.RESERVE)) == Status.PERMISSION_DENIED
        )
        assert await request(three.one, second, connect_to(PEER)) == Status.PERMISSION_DENIED


async def test_a_peer_that_begins_hundreds_of_circuits_leaves_room_for_others() -> None:
    limits = RelayLimits(circuits_max=40, circuits_per_peer_max=10)
    async with hidden_pair(limits) as three, open_host(Identity.make(), []) as greedy:
        victim = await reserve(three.one, three.hop)
        three.one.serve(ECHO, echo)
        await greedy.connect(three.hop.peer_id, three.hop.listen_addresses, timeout_s=5)
        statuses = []
        for _ in range(400):
            stream = await greedy.open_stream(three.hop.peer_id, HOP_PROTOCOL, timeout_s=5)
            # What is refused a place altogether is reset unread.
            with suppress(NodeUnreachable, ProtocolViolation):
                await send_message(stream, connect_to(three.other.peer_id))
                statuses.append((await receive_message(stream, HopMessage)).status)
            if statuses[-1] != Status.OK:
                stream.abort()
            assert three.relay.circuit_count <= limits.circuits_per_pair_max
        assert statuses[:5] == [Status.OK] * 4 + [Status.RESOURCE_LIMIT_EXCEEDED]
        await three.other.connect(three.one.peer_id, [victim], timeout_s=5)
        assert await is_echoed(three.other, three.one.peer_id)


async def test_who_reserves_for_ever_has_one_reservation() -> None:
    async with hidden_pair() as three:
        for _ in range(100):
            await reserve(three.other, three.hop)
        assert three.relay.reservation_count == 1
        await three.other.disconnect(three.hop.peer_id)
        await until(lambda: three.relay.reservation_count == 0)


async def test_strangers_that_say_nothing_keep_no_member_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hop_module, "SILENT_STRANGERS_MAX", 3)
    async with (
        open_host(Identity.make(), LOOPBACK) as hop,
        open_host(Identity.make(), []) as stranger,
        open_host(Identity.make(), []) as member,
    ):
        relay = make_relay(hop, is_member=lambda peer_id: peer_id == member.peer_id)
        await stranger.connect(hop.peer_id, hop.listen_addresses, timeout_s=5)
        for _ in range(10):
            await stranger.open_stream(hop.peer_id, HOP_PROTOCOL, timeout_s=5)
        assert relay._silent_strangers <= 3
        assert await reserve(member, hop)


async def test_a_target_that_does_not_answer_costs_its_caller_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hop_module, "STOP_TIMEOUT_S", 0.3)
    async with hidden_pair() as three:
        for data in (
            b"",
            b"\xff" * 100,
            framed(StopMessage(type=StopMessage.STATUS, status=Status.CONNECTION_FAILED)),
        ):
            three.other.serve(STOP_PROTOCOL, says(data))
            with pytest.raises(NodeUnreachable, match="could not reach"):
                await three.connect()
        assert three.relay.circuit_count == 0


async def stop_status(hop: PeerHost, target: PeerHost, message: StopMessage) -> int:
    stream = await hop.open_stream(target.peer_id, STOP_PROTOCOL, timeout_s=5)
    await send_message(stream, message)
    return (await receive_message(stream, StopMessage)).status


def circuit_from(peer_id: str) -> StopMessage:
    message = StopMessage(type=StopMessage.CONNECT)
    message.peer.id = ID.from_string(peer_id).to_bytes()
    return message


async def test_circuits_are_taken_from_the_relays_of_this_node_alone() -> None:
    async with hidden_pair() as three, open_host(Identity.make(), LOOPBACK) as another:
        await three.other.connect(another.peer_id, another.listen_addresses, timeout_s=5)
        assert await stop_status(another, three.other, circuit_from(PEER)) == Status.PERMISSION_DENIED
        hop, other = three.hop, three.other
        assert await stop_status(hop, other, circuit_from(other.peer_id)) == Status.CONNECTION_FAILED
        assert (
            await stop_status(hop, other, StopMessage(type=StopMessage.CONNECT)) == Status.MALFORMED_MESSAGE
        )
        assert (
            await stop_status(hop, other, StopMessage(type=StopMessage.STATUS)) == Status.UNEXPECTED_MESSAGE
        )


async def test_a_relay_cannot_say_who_dials(monkeypatch: pytest.MonkeyPatch) -> None:
    async with hidden_pair() as three:
        monkeypatch.setattr(hop_module, "_stop_request", lambda source, limit: circuit_from(PEER))
        # The dialling side may be done a moment before the other has seen who it is.
        with suppress(NodeUnreachable):
            await three.connect()
        await until(lambda: three.one.connection(three.other.peer_id) is None)
        assert three.other.connected_peers() == [three.hop.peer_id]


async def test_a_relay_that_begins_any_number_of_circuits_from_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stop_module, "UPGRADES_MAX", 4)
    monkeypatch.setattr(swarm, "UPGRADE_TIMEOUT_S", 0.1)
    with structlog.testing.capture_logs() as logs:
        async with hidden_pair() as three:
            stop = three.other.relaying._stop
            statuses = []
            for _ in range(100):
                with suppress(NodeUnreachable, ProtocolViolation):
                    statuses.append(await stop_status(three.hop, three.other, circuit_from(PEER)))
                assert stop._upgrading <= 4
            assert statuses[:5] == [Status.OK] * 4 + [Status.RESOURCE_LIMIT_EXCEEDED]
            await until(lambda: stop._upgrading == 0)
            assert three.other.connected_peers() == [three.hop.peer_id]
            # The next one that is real gets through.
            await three.connect()
    assert sum(line["log_level"] == "info" for line in logs) <= 12
