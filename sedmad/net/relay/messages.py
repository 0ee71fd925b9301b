"""What relays and their users say: protobuf messages, each behind its length, one each way before a circuit."""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf.message import DecodeError
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Status, StopMessage

from sedmad.errors import ProtocolViolation
from sedmad.net.relay.limits import CircuitLimit
from sedmad.net.stream import ByteStream

HOP_PROTOCOL = "/libp2p/circuit/relay/0.2.0/hop"
STOP_PROTOCOL = "/libp2p/circuit/relay/0.2.0/stop"
# As in go-libp2p. A reservation with eight addresses and a voucher takes some 600.
MESSAGE_BYTES_MAX = 4096
# libp2p's peer ids are multihashes: 34 bytes of a digest, 38 to 42 around a short key.
PEER_ID_BYTES_MAX = 64

AnyMessage = TypeVar("AnyMessage", HopMessage, StopMessage)


REASONS = {
    Status.RESERVATION_REFUSED: "it takes no more reservations",
    Status.RESOURCE_LIMIT_EXCEEDED: "it carries as many circuits as it may",
    Status.PERMISSION_DENIED: "it does not serve this node",
    Status.CONNECTION_FAILED: "it could not reach the other node",
    Status.NO_RESERVATION: "the other node has no reservation there",
    Status.MALFORMED_MESSAGE: "it could not read the request",
    Status.UNEXPECTED_MESSAGE: "it did not expect the request",
}


class MessageDecoder:
    """Cuts one message out of a stream and not a byte behind it, as a circuit's first bytes follow at once."""

    def __init__(self) -> None:
        self._length_bytes = 0
        self._length_shift = 0
        self._body: bytearray | None = None

    @property
    def missing_bytes(self) -> int:
        """How much to give next, at most; at least one while the message is not complete."""
        return 1 if self._body is None else self._length_bytes - len(self._body)

    def receive_data(self, data: bytes) -> bytes | None:
        """Take up to `missing_bytes`; return the message when it is complete.

        Raises:
            ProtocolViolation: it is longer than MESSAGE_BYTES_MAX.
        """
        if self._body is not None:
            self._body += data
        else:
            (digit,) = data
            self._length_bytes |= (digit & 0x7F) << self._length_shift
            self._length_shift += 7
            if self._length_bytes > MESSAGE_BYTES_MAX or self._length_shift > 14:
                raise ProtocolViolation(
                    "a relay's message is too long", why=f"at most {MESSAGE_BYTES_MAX} bytes"
                )
            if digit < 0x80:
                self._body = bytearray()
        if self._body is not None and len(self._body) == self._length_bytes:
            return bytes(self._body)
        return None


async def receive_message(stream: ByteStream, message_class: type[AnyMessage]) -> AnyMessage:
    """Return the next message on a stream, and read nothing behind it.

    Raises:
        ProtocolViolation: something else came, or the stream ended.
        NodeUnreachable: the stream broke.
    """
    decoder = MessageDecoder()
    encoded = None
    while encoded is None:
        data = await stream.receive_some(decoder.missing_bytes)
        if not data:
            raise ProtocolViolation("the stream ended before its message", node=stream.remote_peer_id)
        encoded = decoder.receive_data(data)
    message = message_class()
    try:
        message.ParseFromString(encoded)
    except DecodeError as error:
        raise ProtocolViolation("the message is malformed", why=str(error)) from error
    if not message.HasField("type"):
        raise ProtocolViolation("the message is malformed", why="it has no type", node=stream.remote_peer_id)
    return message


async def send_message(stream: ByteStream, message: HopMessage | StopMessage) -> None:
    """Send a message.

    Raises:
        NodeUnreachable: the stream broke.
    """
    encoded = message.SerializeToString()
    await stream.send_all([_varint(len(encoded)), encoded])


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number >= 0x80:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def limit_in(message: Any) -> CircuitLimit | None:
    """Return the limit that a message tells, None where there is none: 0 stands for no limit too."""
    limit = CircuitLimit(float(message.limit.duration) or None, message.limit.data or None)
    return None if limit == CircuitLimit() else limit


def tell_limit(message: Any, limit: CircuitLimit | None) -> None:
    """Write a limit into a message."""
    if limit is not None:
        message.limit.duration = int(limit.seconds or 0)
        message.limit.data = limit.bytes or 0
