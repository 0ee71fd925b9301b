"""The first frame of a session's stream, from both sides: who I am, by which certificates, where we were."""

from __future__ import annotations

import trio
from google.protobuf.message import DecodeError

from sedmad.errors import NodeUnreachable, ProtocolViolation, SedmadError
from sedmad.net.stream import ByteStream
from sedmad.wire.frame import STRANGER_HEADER_BYTES_MAX, Frame, FrameDecoder, encode
from sedmad.wire.messages import FrameHeader, FrameKind, SessionHello
from sedmad.wire.status import to_error, to_status

SESSION_PROTOCOL = "/sedma/session/1"
# A round trip through two relays and a slow machine; a stranger holds a stream no longer.
HELLO_TIMEOUT_S = 5.0


async def send_hello(stream: ByteStream, hello: SessionHello) -> None:
    """Say hello.

    Raises:
        NodeUnreachable: the stream broke, or the other side does not read.
    """
    header = FrameHeader(kind=FrameKind.FRAME_KIND_HELLO, message=hello.SerializeToString())
    with trio.move_on_after(HELLO_TIMEOUT_S) as limit:
        await stream.send_all(encode(Frame(header)))
    if limit.cancelled_caught:
        raise NodeUnreachable("the peer did not take the hello in time", node=stream.remote_peer_id)


async def refuse(stream: ByteStream, error: SedmadError) -> None:
    """Tell the other side why its stream is not wanted.

    Raises:
        NodeUnreachable: the stream broke, or the other side does not read.
    """
    await send_hello(stream, SessionHello(refusal=to_status(error)))
    await stream.close()


async def receive_hello(stream: ByteStream) -> SessionHello:
    """Return the other side's hello. Not a byte behind it is read, whatever a stranger sends.

    Raises:
        FrameInvalid, ProtocolViolation: something else came, or the stream ended.
        NodeUnreachable: the stream broke, or nothing came in time.
        SedmadError: the other side refused, and said why.
    """
    decoder = FrameDecoder(STRANGER_HEADER_BYTES_MAX, payload_bytes_max=0)
    frames: list[Frame] = []
    with trio.move_on_after(HELLO_TIMEOUT_S) as limit:
        while not frames:
            data = await stream.receive_some(decoder.missing_bytes)
            if not data:
                raise ProtocolViolation("the peer closed the stream before its hello")
            frames = decoder.receive_data(data)
    if limit.cancelled_caught:
        raise NodeUnreachable("the peer did not say hello in time", node=stream.remote_peer_id)
    return _parse(frames[0].header)


def _parse(header: FrameHeader) -> SessionHello:
    if header.kind != FrameKind.FRAME_KIND_HELLO:
        raise ProtocolViolation("the peer did not begin with a hello")
    hello = SessionHello()
    try:
        hello.ParseFromString(header.message)
    except DecodeError as error:
        raise ProtocolViolation("the peer's hello is malformed", why=str(error)) from error
    if hello.HasField("refusal"):
        raise to_error(hello.refusal)
    if not hello.session_id:
        raise ProtocolViolation("the peer's hello has no session id")
    return hello
