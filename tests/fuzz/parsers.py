"""Every place where bytes of somebody else are read before anything else is known of them, as functions of the bytes.

Each returns when the bytes were taken or refused with a typed error; anything else that comes out is a bug of ours.
"""

from __future__ import annotations

import io
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import trio
from google.protobuf.message import DecodeError, Message
from hostile_words import ANN, BOB, EXAMPLES, MALLORY, MESH, NOW_S, TOKEN

from sedmad.client.npy import header_bytes, open_array
from sedmad.core.membership.advert import Advert
from sedmad.core.membership.membership import Membership
from sedmad.errors import ConfigurationInvalid, LocalError, PeerError, SedmadError, TokenInvalid, UsageError
from sedmad.net import join
from sedmad.net.certificates import verify_chain
from sedmad.net.hello import receive_hello
from sedmad.net.identity import public_key_of
from sedmad.net.rate_limit import RateLimit
from sedmad.node import membership_wire
from sedmad.node.certificates import Certificates
from sedmad.node.configuration import load_configuration
from sedmad.node.manifest import read_manifest, sign_manifest
from sedmad.node.records import read_record, sign_record
from sedmad.node.succession import key_from_wire, read_guardianship, read_vote
from sedmad.node.voting import read_answer
from sedmad.wire import messages as wire
from sedmad.wire.calls import Calls
from sedmad.wire.frame import (
    HEADER_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    STRANGER_HEADER_BYTES_MAX,
    Frame,
    FrameDecoder,
    encode,
)
from sedmad.wire.resend import ResendWindow
from sedmad.wire.status import to_error, to_status
from sedmad.wire.token import decode_token, encode_token

Parser = Callable[[bytes], None]


def read_frames(data: bytes) -> None:
    """Frames are the same however the stream is cut, and within bounds."""
    whole, pieces = FrameDecoder(), FrameDecoder()
    with suppress(PeerError):
        frames = whole.receive_data(data)
        cut = [frame for at in range(0, len(data), 7) for frame in pieces.receive_data(data[at : at + 7])]
        assert frames == cut
        assert all(len(frame.payload) <= PAYLOAD_BYTES_MAX for frame in frames)
    stranger = FrameDecoder(STRANGER_HEADER_BYTES_MAX, payload_bytes_max=0)
    with suppress(PeerError):
        assert not any(frame.payload for frame in stranger.receive_data(data))
        assert stranger.missing_bytes <= STRANGER_HEADER_BYTES_MAX + 16


def _frames(data: bytes) -> list[Frame]:
    try:
        return FrameDecoder().receive_data(data)
    except PeerError:
        return []


def read_calls(data: bytes) -> None:
    """What the multiplexer answers can be written, and it holds no more calls than it may."""
    calls = Calls(calls_max=4)
    started = [calls.start("sedma.v1.MatrixService/ApplyMatrix", b"", end=False) for _ in range(2)]
    with suppress(PeerError):
        for frame in _frames(data):
            calls.receive(frame)
            for call_id in started:
                calls.consume(call_id, 1 << 20, outgoing=True)
            calls.consume(frame.header.call_id, 1 << 20, outgoing=False)
            for answer in calls.collect():
                encode(answer)
    assert calls.outgoing_count <= len(started)


def read_session(data: bytes) -> None:
    """A session takes each number once, whatever its peer says at the beginning and after it."""
    window = ResendWindow(7)
    now = 0.0
    frames = _frames(data)
    for _ in range(3):
        window.stamp(Frame(wire.FrameHeader(kind=wire.FRAME_KIND_REQUEST), b"x" * 100), now)
    with suppress(PeerError):
        for frame in frames:
            now += 0.01
            if frame.header.kind == wire.FRAME_KIND_HELLO:
                with suppress(DecodeError):
                    hello = wire.SessionHello.FromString(frame.header.message)
                    window.attach(hello, opened_here=frame.end)
                continue
            before = window.received_sequence
            window.accept(frame, now)
            assert before <= window.received_sequence <= before + 1
            while (again := window.next_replay()) is not None:
                encode(again)
            if (told := window.acknowledgement(now)) is not None:
                encode(told)


class _Stream:
    """A stream on which somebody has said something, and nothing more."""

    remote_peer_id = MALLORY.peer_id
    path = "direct"

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    async def receive_some(self, max_bytes: int = 65536) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._data.read(max_bytes)

    async def send_all(self, data: object) -> None:
        await trio.lowlevel.checkpoint()


def read_hello(data: bytes) -> None:
    stream: Any = _Stream(data)
    # A refusal may carry any error of the tree.
    with suppress(SedmadError):
        hello = trio.run(receive_hello, stream)
        assert hello.session_id
        MESH.verify(MALLORY.peer_id, hello.chain, NOW_S)


def read_join(data: bytes) -> None:
    """A stranger's request is answered, or its stream ended; a newcomer survives what its inviter answers."""

    async def admit(request: wire.JoinRequest, peer_id: str) -> wire.JoinResponse:
        chain = MESH.admit(ANN, public_key_of(peer_id), request.name, now_s=NOW_S)
        return wire.JoinResponse(chain=chain)

    async def both() -> None:
        inviter: Any = _Stream(data)
        newcomer: Any = _Stream(data)
        with suppress(PeerError):
            answer = await join._answer(inviter, MALLORY.peer_id, admit, RateLimit(1.0, 1))
            assert answer.status.reason != LocalError.reason
            assert answer.ByteSize() <= STRANGER_HEADER_BYTES_MAX
        with suppress(SedmadError):
            response = await join._exchange(newcomer, wire.JoinRequest(name="dan"))
            verify_chain(response.chain, MESH.root_public_key, MALLORY.peer_id, NOW_S)

    trio.run(both)


def read_certificates(data: bytes) -> None:
    certificates = Certificates(MESH, ANN.peer_id)
    for peer_id in (MALLORY.peer_id, BOB.peer_id):
        with suppress(PeerError):
            assert certificates.check_fetched(data, peer_id).peer_id == peer_id


def read_records(data: bytes) -> None:
    with suppress(PeerError):
        record = read_record(data)
        membership_wire.size_of(record)
        assert record.signed == data


def read_membership(data: bytes) -> None:
    """The core takes what a member says, and what it says then can be written."""
    advert = Advert(ANN.peer_id, "ann", 1, state="ready")
    core = Membership(
        advert,
        sign=lambda record: sign_record(record, ANN),
        size_of=membership_wire.size_of,
        rng=random.Random(0),
        now=0.0,
        known=(),
        wall_offset_s=float(NOW_S),
    )
    core.link_up(MALLORY.peer_id, 0.0)
    with suppress(PeerError):
        message = membership_wire.decode_message(data)
        records = [read_record(record.SerializeToString()) for record in message.records]
        core.receive(MALLORY.peer_id, membership_wire.to_core(message, records), 0.1)
    for now in (1.0, 2.0, 30.0):
        core.handle_timeout(now)
        for _, answer in core.collect().messages:
            membership_wire.encode_message(answer)
    core.drop_old_tombstones(NOW_S + 100 * 86_400.0)
    core.peers()


def read_manifests(data: bytes) -> None:
    """A manifest that is taken can be used, and told again."""
    with suppress(PeerError, DecodeError):
        manifest = read_manifest(wire.SignedManifest.FromString(data))
        assert sum(manifest.size_of(index) for index in range(len(manifest.copies))) == manifest.size_bytes
        assert manifest.holders
        if manifest.owner == MALLORY.peer_id:
            sign_manifest(manifest, MALLORY)
    with suppress(PeerError, DecodeError):
        read_guardianship(wire.SignedGuardianship.FromString(data))


def read_votes(data: bytes) -> None:
    with suppress(PeerError, DecodeError):
        read_vote(wire.SignedPromise.FromString(data))
    with suppress(PeerError, DecodeError):
        response = wire.PromiseVoteResponse.FromString(data)
        first = wire.Manifest.FromString(response.manifest.manifest)
        key = key_from_wire(wire.MatrixKey(matrix_digest=first.matrix_digest, first_owner=first.first_owner))
        read_answer(response, key, response.epoch, BOB.peer_id)


def read_status(data: bytes) -> None:
    """An error that travelled is one of the tree, and may travel on."""
    with suppress(DecodeError):
        error = to_error(wire.Status.FromString(data))
        assert isinstance(error, SedmadError)
        assert isinstance(str(error), str)
        to_status(error).SerializeToString()


def read_token(data: bytes) -> None:
    """A text that is taken is the only one of its token."""
    text = data.decode("latin-1")
    with suppress(TokenInvalid):
        assert encode_token(decode_token(text)) == text.strip().lower()


def read_configuration(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        file.write(data)
        file.flush()
        with suppress(ConfigurationInvalid):
            load_configuration(Path(file.name), {}, {})


def read_npy(data: bytes) -> None:
    """An array that is taken lies within its file."""
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        file.write(data)
        file.flush()
        with suppress(UsageError):
            array = open_array(file.name, dimensions=(1, 2))
            assert array.nbytes <= len(data)
            array.sum()


PARSERS: dict[str, Parser] = {
    "frames": read_frames,
    "calls": read_calls,
    "session": read_session,
    "hello": read_hello,
    "join": read_join,
    "certificates": read_certificates,
    "records": read_records,
    "membership": read_membership,
    "manifests": read_manifests,
    "votes": read_votes,
    "status": read_status,
    "token": read_token,
    "configuration": read_configuration,
    "npy": read_npy,
}


def framed(message: Message) -> bytes:
    """Return a message as the frame that carries it: a header as it is, a hello as a hello, all else as a request."""
    if isinstance(message, wire.FrameHeader):
        header = message
    elif isinstance(message, wire.SessionHello):
        header = wire.FrameHeader(kind=wire.FRAME_KIND_HELLO, message=message.SerializeToString())
    else:
        header = wire.FrameHeader(
            kind=wire.FRAME_KIND_REQUEST,
            call_id=9,
            sequence=1,
            method=join.JOIN_METHOD,
            message=message.SerializeToString(),
        )
    if header.ByteSize() > HEADER_BYTES_MAX:
        return b""
    return b"".join(map(bytes, encode(Frame(header))))


CONFIGURATION = b"""
listen = ["/ip4/0.0.0.0/tcp/4717"]
memory = "2GiB"
disk = "80%"
log_level = "info"
[labels]
zone = "attic"
"""


def seeds(name: str) -> Iterator[bytes]:
    """Return valid input of a parser, for a fuzzer to begin with."""
    texts: dict[str, Iterable[bytes]] = {
        "token": [TOKEN.encode()],
        "configuration": [CONFIGURATION],
        "npy": [
            header_bytes((3, 4), np.dtype("<f4")) + bytes(48),
            header_bytes((5, 1), np.dtype(">f8")) + bytes(40),
        ],
    }
    if name in texts:
        yield from texts[name]
        return
    for message in EXAMPLES:
        yield message.SerializeToString()
        yield framed(message)
