"""`/sedma/join/1`: how a stranger becomes a member. One frame of at most 4 KiB each way, then the stream
ends.

Besides `/sedma/renew/1` the only protocol that answers strangers, so everything about it is bounded: time,
bytes, streams, answers per second.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
import trio
from google.protobuf.message import DecodeError, Message

from sedmad.errors import (
    LocalError,
    NodeUnreachable,
    Overloaded,
    ProtocolViolation,
    SedmadError,
    TokenExpired,
)
from sedmad.net.certificates import CLOCK_TOLERANCE_S, verify_chain
from sedmad.net.host import PeerHost
from sedmad.net.rate_limit import RateLimit
from sedmad.net.stream import ByteStream
from sedmad.wire.frame import STRANGER_HEADER_BYTES_MAX, Frame, FrameDecoder, encode
from sedmad.wire.messages import FrameHeader, FrameKind, InvitationToken, JoinRequest, JoinResponse, Status
from sedmad.wire.status import to_error, to_status

log = structlog.get_logger("sedmad.net")

JOIN_PROTOCOL = "/sedma/join/1"
JOIN_METHOD = "sedma.v1.JoinService/Join"
# From the stream's opening to its end; the answer itself costs an fsync.
JOIN_TIMEOUT_S = 5.0
# A classroom that joins at once gets through; a stranger costs at most five fsyncs a second.
JOINS_PER_S = 5.0
JOINS_BURST = 20
JOINS_AT_ONCE_MAX = 16
# Call id and tags of the header around a message.
HEADER_OVERHEAD_BYTES = 64
STATUS_CHARACTERS_MAX = 256

AnyMessage = TypeVar("AnyMessage", bound=Message)
Admit = Callable[[JoinRequest, str], Awaitable[JoinResponse]]


def serve_join(host: PeerHost, admit: Admit) -> None:
    """Answer requests to join.

    Args:
        host: where they come in.
        admit: called with (request, peer id); returns the newcomer's certificates, having marked its token as
            used on disk before, or raises a typed error, which is told to the newcomer.
    """
    limit = RateLimit(JOINS_PER_S, JOINS_BURST)

    async def handle(stream: ByteStream, peer_id: str, remote_address: str) -> None:
        with trio.move_on_after(JOIN_TIMEOUT_S):
            await stream.send_all(encode(Frame(await _answer(stream, peer_id, admit, limit))))
            await stream.close()

    host.serve(JOIN_PROTOCOL, handle, streams_max=JOINS_AT_ONCE_MAX, streams_per_peer_max=1)


async def _answer(stream: ByteStream, peer_id: str, admit: Admit, limit: RateLimit) -> FrameHeader:
    header = await _receive(stream, FrameKind.FRAME_KIND_REQUEST)
    answer = FrameHeader(kind=FrameKind.FRAME_KIND_RESPONSE, call_id=header.call_id)
    try:
        if header.method != JOIN_METHOD:
            raise ProtocolViolation("this stream takes a request to join and nothing else")
        if not limit.allow(trio.current_time()):
            raise Overloaded("too many nodes are joining", retry_after_s=1 / JOINS_PER_S)
        response = await admit(_parse(JoinRequest, header.message), peer_id)
        while response.ByteSize() > STRANGER_HEADER_BYTES_MAX - HEADER_OVERHEAD_BYTES and response.peers:
            response.peers.pop()
        answer.message = response.SerializeToString()
    except SedmadError as error:
        answer.status.CopyFrom(_short(to_status(error)))
    except Exception:
        # Told to the newcomer without its details, which may hold secrets of this node.
        log.exception("join_failed", peer=peer_id)
        answer.status.CopyFrom(to_status(LocalError("the inviting node failed to answer")))
    return answer


async def request_join(
    host: PeerHost, token: InvitationToken, name: str, *, now_s: float, timeout_s: float = 15.0
) -> JoinResponse:
    """Bring an invitation to the node that made it, and return this node's certificates and peers to begin
    with.

    Args:
        host: dials.
        token: the invitation.
        name: how this node wants to be called.
        now_s: Unix seconds.
        timeout_s: for all of it.

    Raises:
        TokenExpired: it was valid until then; the inviter was not asked.
        NodeUnreachable: the inviter does not answer at any of the token's addresses.
        CertificateInvalid: what it answered does not make this node a member of the token's mesh.
        SedmadError: what it refused with, such as TokenUsed.
    """
    if now_s > token.expires_s + CLOCK_TOLERANCE_S:
        raise TokenExpired(
            "the invitation has expired", why=f"{(now_s - token.expires_s) / 3600:.0f} hours ago"
        )
    inviter = token.inviter_peer_id
    deadline = trio.current_time() + timeout_s
    await host.connect(inviter, list(token.addresses), timeout_s)
    with trio.move_on_at(deadline):
        stream = await host.open_stream(inviter, JOIN_PROTOCOL, max(deadline - trio.current_time(), 0.001))
        try:
            response = await _exchange(stream, JoinRequest(secret=token.secret, name=name))
            verify_chain(response.chain, token.root_public_key, host.peer_id, now_s)
            return response
        finally:
            await stream.reset()
    raise NodeUnreachable(
        f"cannot join through {inviter}", why=f"no answer within {timeout_s:g} s", node=inviter
    )


async def _exchange(stream: ByteStream, request: JoinRequest) -> JoinResponse:
    header = FrameHeader(
        kind=FrameKind.FRAME_KIND_REQUEST,
        call_id=1,
        method=JOIN_METHOD,
        message=request.SerializeToString(),
    )
    await stream.send_all(encode(Frame(header, end=True)))
    answer = await _receive(stream, FrameKind.FRAME_KIND_RESPONSE)
    if answer.HasField("status"):
        raise to_error(answer.status)
    return _parse(JoinResponse, answer.message)


async def _receive(stream: ByteStream, kind: FrameKind.ValueType) -> FrameHeader:
    """Return the header of the one frame that the other side sends."""
    decoder = FrameDecoder(STRANGER_HEADER_BYTES_MAX, payload_bytes_max=0)
    frames: list[Frame] = []
    while not frames:
        data = await stream.receive_some(STRANGER_HEADER_BYTES_MAX)
        if not data:
            raise ProtocolViolation("the peer ended the stream early", node=stream.remote_peer_id)
        frames = decoder.receive_data(data)
    if len(frames) > 1 or decoder.in_frame or frames[0].header.kind != kind:
        raise ProtocolViolation("the peer sent more than one frame", node=stream.remote_peer_id)
    return frames[0].header


def _parse(message_class: type[AnyMessage], encoded: bytes) -> AnyMessage:
    message = message_class()
    try:
        message.ParseFromString(encoded)
    except DecodeError as error:
        raise ProtocolViolation("the peer sent a malformed message", why=str(error)) from error
    return message


def _short(status: Status) -> Status:
    """Return the status with texts that fit into one small frame."""
    for text in ("message", "why", "hint"):
        setattr(status, text, getattr(status, text)[:STATUS_CHARACTERS_MAX])
    return status
