"""The frame: a fixed prefix, a protobuf header, zero padding to 64 bytes, a raw payload. See frame.proto for a picture.

This module knows nothing of calls or sessions. `encode` gives the pieces of a frame without copying the payload;
`FrameDecoder` takes bytes as they come and gives whole frames, checking every bound before it allocates.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum

from google.protobuf.message import DecodeError

from sedmad.errors import FrameInvalid, LocalError
from sedmad.wire.messages import FrameHeader

VERSION = 1
END = 1
PREFIX = struct.Struct("<BBHIQ")
ALIGNMENT = 64

# A header carries one protobuf message: the largest are manifests (about 50 bytes a partition: 20,000 fit) and
# gossip. Arrays never travel here.
HEADER_BYTES_MAX = 1 << 20
# One chunk: long enough to amortise a frame, short enough that a probe behind it waits ~12 ms at 80 MB/s.
PAYLOAD_BYTES_MAX = 1 << 20
# Before the other side is known to be a member (session hello, join), little is read from it.
STRANGER_HEADER_BYTES_MAX = 4096

Buffer = bytes | bytearray | memoryview


class Priority(IntEnum):
    """What leaves first; never on the wire."""

    PROBE = 0
    PRODUCT = 1
    BULK = 2


@dataclass(slots=True)
class Frame:
    """A header and its payload; `end` says that the caller's direction of the call is closed."""

    header: FrameHeader
    payload: Buffer = b""
    end: bool = False
    # What the sender's outbox needs to know.
    priority: Priority = field(default=Priority.PROBE, compare=False)
    size_bytes: int = field(default=0, compare=False)


def encode(frame: Frame) -> list[Buffer]:
    """Return the frame's bytes as one or two pieces, the payload itself uncopied.

    Raises:
        LocalError: the frame exceeds the bounds of the format.
    """
    header = frame.header.SerializeToString()
    payload_bytes = len(frame.payload)
    if len(header) > HEADER_BYTES_MAX or payload_bytes > PAYLOAD_BYTES_MAX:
        raise LocalError(f"a frame of {len(header)} + {payload_bytes} bytes exceeds the format's bounds")
    prefix = PREFIX.pack(VERSION, END if frame.end else 0, 0, len(header), payload_bytes)
    if not payload_bytes:
        return [prefix + header]
    padding = -(PREFIX.size + len(header)) % ALIGNMENT
    return [prefix + header + bytes(padding), frame.payload]


class FrameDecoder:
    """Turns bytes, in pieces of any size, into frames.

    Args:
        header_bytes_max: bound on a frame's header.
        payload_bytes_max: bound on a frame's payload.
    """

    def __init__(
        self, header_bytes_max: int = HEADER_BYTES_MAX, payload_bytes_max: int = PAYLOAD_BYTES_MAX
    ) -> None:
        self.header_bytes_max = header_bytes_max
        self.payload_bytes_max = payload_bytes_max
        self._received = bytearray()
        self._frame: Frame | None = None
        self._payload = bytearray()
        self._filled = 0

    def receive_data(self, data: Buffer) -> list[Frame]:
        """Take the next bytes of the stream and return the frames that they complete.

        Raises:
            FrameInvalid: the bytes are no frame of this version within the bounds. Read no further.
        """
        frames: list[Frame] = []
        view = memoryview(data)
        while True:
            if self._frame is None:
                self._received += view
                view = memoryview(b"")
                if not self._begin_frame():
                    return frames
                assert self._frame is not None
            view = self._fill(view)
            if self._filled < len(self._payload):
                return frames
            self._frame.payload = self._payload
            frames.append(self._frame)
            self._frame = None
            self._payload = bytearray()

    @property
    def in_frame(self) -> bool:
        """Whether a frame has begun and is not complete: the stream must not end here."""
        return self._frame is not None or bool(self._received)

    def _begin_frame(self) -> bool:
        received = self._received
        if len(received) < PREFIX.size:
            return False
        version, flags, zero, header_bytes, payload_bytes = PREFIX.unpack_from(received)
        if version != VERSION or flags & ~END or zero:
            raise FrameInvalid(
                "the peer sent bytes that are no frame", why=f"prefix {bytes(received[:16]).hex()}"
            )
        if header_bytes > self.header_bytes_max or payload_bytes > self.payload_bytes_max:
            raise FrameInvalid(
                "the peer sent an oversize frame",
                why=f"header {header_bytes} bytes of at most {self.header_bytes_max}, "
                f"payload {payload_bytes} of at most {self.payload_bytes_max}",
            )
        end_of_header = PREFIX.size + header_bytes
        start_of_payload = end_of_header + (-end_of_header % ALIGNMENT if payload_bytes else 0)
        if len(received) < start_of_payload:
            return False
        header = FrameHeader()
        try:
            header.ParseFromString(bytes(received[PREFIX.size : end_of_header]))
        except DecodeError as error:
            raise FrameInvalid("the peer sent a frame with a malformed header", why=str(error)) from error
        self._frame = Frame(header, end=bool(flags & END), size_bytes=start_of_payload + payload_bytes)
        self._payload = bytearray(payload_bytes)
        self._filled = 0
        rest = received[start_of_payload:]
        self._received = bytearray()
        remainder = self._fill(memoryview(rest))
        self._received += remainder
        return True

    def _fill(self, view: memoryview) -> memoryview:
        take = min(len(view), len(self._payload) - self._filled)
        self._payload[self._filled : self._filled + take] = view[:take]
        self._filled += take
        return view[take:]
