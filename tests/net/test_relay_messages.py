"""What relays say, cut anywhere; and handlers that are told anything at all."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Status, StopMessage

from sedmad.errors import NodeUnreachable, ProtocolViolation
from sedmad.net.identity import Identity
from sedmad.net.relay.hop import Relay
from sedmad.net.relay.limits import CircuitLimit
from sedmad.net.relay.messages import (
    MESSAGE_BYTES_MAX,
    MessageDecoder,
    limit_in,
    receive_message,
    send_message,
    tell_limit,
)
from sedmad.net.relay.stop import CircuitStop

OWN, PEER, RELAY = (Identity.make().peer_id for _ in range(3))


class FakeStream:
    """A stream that says what it was given, then ends."""

    path = "direct"
    remote_peer_id = PEER
    remote_address = "/ip4/127.0.0.1/tcp/1"

    def __init__(self, data: bytes = b"") -> None:
        self.data = deque(data)
        self.sent = b""

    async def receive_some(self, max_bytes: int) -> bytes:
        assert max_bytes > 0
        return bytes(self.data.popleft() for _ in range(min(max_bytes, len(self.data))))

    async def send_all(self, pieces: list[bytes]) -> None:
        self.sent += b"".join(pieces)

    def abort(self) -> None:
        """Nothing to give up."""


class FakeHost:
    """A host without connections."""

    peer_id = OWN
    own_addresses = [f"/ip4/127.0.0.1/tcp/1/p2p/{OWN}"]
    upgraded = 0

    def serve(self, protocol: str, handler: object, **bounds: int) -> None:
        self.handler = handler

    def keep_idle(self, keeps: object) -> None:
        """Nothing is idle."""

    def connected_peers(self) -> list[str]:
        return [PEER]

    def direct_connection(self, peer_id: str) -> None:
        return None

    async def upgrade(self, pipe: object, peer_id: str, *, initiator: bool) -> None:
        self.upgraded += 1
        raise NodeUnreachable("nobody is there")


async def framed(message: HopMessage | StopMessage) -> bytes:
    stream = FakeStream()
    await send_message(stream, message)  # type: ignore[arg-type]
    return stream.sent


@given(st.binary(max_size=MESSAGE_BYTES_MAX), st.binary(max_size=20), st.randoms(use_true_random=False))
async def test_a_message_is_cut_out_to_the_byte(body: bytes, behind: bytes, random: object) -> None:
    encoded = await framed(StopMessage(peer={"id": body}) if body else StopMessage())
    waiting = deque(encoded + behind)
    decoder = MessageDecoder()
    found = None
    try:
        while found is None:
            size = random.randint(1, decoder.missing_bytes)  # type: ignore[attr-defined]
            found = decoder.receive_data(bytes(waiting.popleft() for _ in range(size)))
    except ProtocolViolation:
        assert len(encoded) > MESSAGE_BYTES_MAX
    else:
        assert StopMessage.FromString(found).peer.id == body
        assert bytes(waiting) == behind


@pytest.mark.parametrize("length", [4097, 10 << 20, 1 << 63, 1 << 70])
def test_a_length_beyond_the_bound_is_refused_before_its_body_comes(length: int) -> None:
    decoder = MessageDecoder()
    digits = [length >> shift & 0x7F | 0x80 for shift in range(0, 77, 7)]
    with pytest.raises(ProtocolViolation, match="too long"):
        list(map(decoder.receive_data, (bytes([digit]) for digit in digits)))
    assert decoder.missing_bytes == 1


@pytest.mark.parametrize("data", [b"", b"\x05\x08", b"\x00", b"\x02\xff\xff", b"\x80\x80\x80\x80"])
async def test_what_is_no_message_is_a_violation(data: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        await receive_message(FakeStream(data), HopMessage)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("limit", "seen"),
    [
        (None, None),
        (CircuitLimit(), None),
        (CircuitLimit(seconds=60.0), CircuitLimit(seconds=60.0)),
        (CircuitLimit(bytes=7), CircuitLimit(bytes=7)),
        (CircuitLimit(120.0, 1 << 40), CircuitLimit(120.0, 1 << 40)),
    ],
)
def test_limits_are_told(limit: CircuitLimit | None, seen: CircuitLimit | None) -> None:
    message = HopMessage()
    tell_limit(message, limit)
    assert limit_in(HopMessage.FromString(message.SerializeToString())) == seen


def hostile_messages(message_class: type[HopMessage] | type[StopMessage]) -> st.SearchStrategy[bytes]:
    known = [ID.from_string(peer).to_bytes() for peer in (OWN, PEER, RELAY)]
    addresses = st.lists(st.binary(max_size=9), max_size=3)
    peers = st.fixed_dictionaries(
        {"id": st.one_of(st.binary(max_size=80), st.sampled_from(known)), "addrs": addresses}
    )
    built = st.builds(
        lambda kind, peer, status: message_class(type=kind, peer=peer, status=status).SerializeToString(),
        st.integers(0, 5),
        st.none() | peers,
        st.none() | st.integers(0, 500),
    )
    framed_bodies = st.one_of(built, st.binary(max_size=100)).map(
        lambda body: bytes([len(body) & 0x7F]) + body
    )
    return st.one_of(framed_bodies, st.binary(max_size=40))


def statuses(sent: bytes, message_class: type[HopMessage] | type[StopMessage]) -> list[int]:
    if not sent:
        return []
    decoder = MessageDecoder()
    found = None
    while found is None:
        size = decoder.missing_bytes
        found, sent = decoder.receive_data(sent[:size]), sent[size:]
    assert not sent
    message = message_class.FromString(found)
    assert message.type == message_class.STATUS
    return [message.status]


@given(st.lists(hostile_messages(HopMessage), min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
async def test_a_relay_answers_anything_and_keeps_nothing(requests: list[bytes]) -> None:
    relay = Relay(FakeHost(), is_member=lambda peer_id: True, wall_time=lambda: 1.0)  # type: ignore[arg-type]
    for request in requests:
        stream = FakeStream(request)
        await relay._handle(stream, PEER, stream.remote_address)  # type: ignore[arg-type]
        assert len(statuses(stream.sent, HopMessage)) == 1
        assert relay.circuit_count == 0
    assert relay.reservation_count <= 1


@given(st.lists(hostile_messages(StopMessage), min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
async def test_the_end_of_circuits_answers_anything_and_keeps_nothing(requests: list[bytes]) -> None:
    host = FakeHost()
    stop = CircuitStop(host, lambda peer_id: True)  # type: ignore[arg-type]
    for request in requests:
        stream = FakeStream(request)
        before = host.upgraded
        try:
            await stop._accept(stream, RELAY, stream.remote_address)  # type: ignore[arg-type]
        except NodeUnreachable:
            assert host.upgraded == before + 1
        (status,) = statuses(stream.sent, StopMessage)
        assert (status == Status.OK) == (host.upgraded > before)
        assert not stop._upgrading
