"""The first frame of a session's stream, from both sides: who I am, by which certificates, and where we were."""

from __future__ import annotations

import trio
from google.protobuf.message import DecodeError

from sedmad.errors import ProtocolViolation, SedmadError
from sedmad.net.stream import ByteStream
from sedmad.wire.frame import (
    HEADER_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    STRANGER_HEADER_BYTES_MAX,
    Frame,
    FrameDecoder,
    encode,
)
from sedmad.wire.messages import FrameHeader, FrameKind, SessionHello
from sedmad.wire.status import to_error, to_status

SESSION_PROTOCOL = "/sedma/session/1"
# A round trip through two relays and a slow machine; a stranger holds a stream no longer.
HELLO_TIMEOUT_S = 5.0


def stranger_decoder() -> FrameDecoder:
    """Return a decoder that takes a hello and nothing larger."""
    return FrameDecoder(STRANGER_HEADER_BYTES_MAX, 0)


def trust(decoder: FrameDecoder) -> None:
    """Let a decoder take whole frames: its peer is a member."""
    decoder.header_bytes_max = HEADER_BYTES_MAX
    decoder.payload_bytes_max = PAYLOAD_BYTES_MAX


async def send_hello(stream: ByteStream, hello: SessionHello) -> None:
    header = FrameHeader(kind=FrameKind.FRAME_KIND_HELLO, message=hello.SerializeToString())
    with trio.fail_after(HELLO_TIMEOUT_S):
        await stream.send_all(encode(Frame(header)))


async def refuse(stream: ByteStream, error: SedmadError) -> None:
    """Tell the other side why its stream is not wanted."""
    await send_hello(stream, SessionHello(refusal=to_status(error)))
    await stream.close()


async def receive_hello(stream: ByteStream, decoder: FrameDecoder) -> SessionHello:
    """Return the other side's hello; frames behind it stay in the decoder.

    Raises:
        ProtocolViolation: something else came, or the stream ended.
        SedmadError: the other side refused, and said why.
    """
    with trio.fail_after(HELLO_TIMEOUT_S):
        frames = decoder.receive_data(b"")
        while not frames:
            data = await stream.receive_some(STRANGER_HEADER_BYTES_MAX)
            if not data:
                raise ProtocolViolation("the peer closed the stream before its hello")
            frames = decoder.receive_data(data)
    if len(frames) > 1 or frames[0].header.kind != FrameKind.FRAME_KIND_HELLO:
        raise ProtocolViolation("the peer did not begin with a hello")
    hello = SessionHello()
    try:
        hello.ParseFromString(frames[0].header.message)
    except DecodeError as error:
        raise ProtocolViolation("the peer's hello is malformed", why=str(error)) from error
    if hello.HasField("refusal"):
        raise to_error(hello.refusal)
    if not hello.session_id:
        raise ProtocolViolation("the peer's hello has no session id")
    return hello
