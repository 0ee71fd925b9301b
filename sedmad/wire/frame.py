"""The frame: a fixed prefix, a protobuf header, zero padding to 64 bytes, a raw payload; drawn in
frame.proto.

This module knows nothing of calls or sessions. `encode` gives the pieces of a frame without copying the
payload; `FrameDecoder` takes bytes as they come and gives whole frames, checking every bound before it
allocates.
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

# A header carries one protobuf message: the largest are manifests (about 50 bytes a partition: 20,000 fit)
# and gossip. Arrays never travel here.
HEADER_BYTES_MAX = 1 << 20
# The message in a header; the rest is for the header's other fields, a Status with its texts at their longest
# included.
MESSAGE_BYTES_MAX = HEADER_BYTES_MAX - (64 << 10)
# One chunk: long enough to amortise a frame, short enough that a probe behind it waits ~12 ms at 80 MB/s.
PAYLOAD_BYTES_MAX = 1 << 20
# Before the other side is known to be a member (session hello, join), little is read from it.
STRANGER_HEADER_BYTES_MAX = 4096

Buffer = bytes | bytearray | memoryview


class Priority(IntEnum):
    """What leaves first; never on the wire."""

    # One-way messages: a probe that waits says that its node is slow.
    PROBE = 0
    # Without credit the other side stands still.
    CREDIT = 1
    PRODUCT = 2
    BULK = 3


@dataclass(slots=True)
class Frame:
    """A header and its payload; `end` says that the caller's direction of the call is closed.

    Whoever queues a frame leaves the bytes of its payload as they are until the frame was written, and on a
    session until it was acknowledged.
    """

    header: FrameHeader
    payload: Buffer = b""
    end: bool = False
    # What the sender's outbox needs to know.
    priority: Priority = field(default=Priority.PROBE, compare=False)
    size_bytes: int = field(default=0, compare=False)


def flat(payload: Buffer) -> memoryview:
    """Return a buffer as a row of bytes, uncopied: arrays count in elements, frames in bytes.

    Raises:
        LocalError: the buffer is not contiguous in C order.
    """
    view = memoryview(payload)
    if not view.c_contiguous:
        raise LocalError("a payload must be contiguous in C order")
    if view.ndim == 1 and view.itemsize == 1:
        return view
    return view.cast("B") if view.nbytes else memoryview(b"")


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
        # What comes before the payload, and how long it will be as far as is known.
        self._head = bytearray()
        self._head_bytes = PREFIX.size
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
        while len(view):
            view = self._take_head(view) if self._frame is None else self._take_payload(view)
            if self._frame is not None and self._filled == len(self._payload):
                self._frame.payload = self._payload
                frames.append(self._frame)
                self._frame = None
        return frames

    @property
    def in_frame(self) -> bool:
        """Whether a frame has begun and is not complete: the stream must not end here."""
        return self._frame is not None or bool(self._head)

    @property
    def missing_bytes(self) -> int:
        """How many bytes at least are still to come of this frame: reading these reads nothing behind it."""
        if self._frame is None:
            return self._head_bytes - len(self._head)
        return len(self._payload) - self._filled

    def _take_head(self, view: memoryview) -> memoryview:
        missing_bytes = self._head_bytes - len(self._head)
        self._head += view[:missing_bytes]
        if len(self._head) == self._head_bytes == PREFIX.size:
            self._head_bytes = self._check_prefix()
        if len(self._head) == self._head_bytes:
            self._begin_payload()
        return view[missing_bytes:]

    def _check_prefix(self) -> int:
        """Return how long the head is that this prefix announces."""
        version, flags, zero, header_bytes, payload_bytes = PREFIX.unpack(self._head)
        if version != VERSION or flags & ~END or zero:
            raise FrameInvalid("the peer sent bytes that are no frame", why=f"prefix {self._head.hex()}")
        if header_bytes > self.header_bytes_max or payload_bytes > self.payload_bytes_max:
            raise FrameInvalid(
                "the peer sent an oversize frame",
                why=f"header {header_bytes} bytes of at most {self.header_bytes_max}, "
                f"payload {payload_bytes} of at most {self.payload_bytes_max}",
            )
        end_of_header: int = PREFIX.size + header_bytes
        return end_of_header + (-end_of_header % ALIGNMENT if payload_bytes else 0)

    def _begin_payload(self) -> None:
        _, flags, _, header_bytes, payload_bytes = PREFIX.unpack_from(self._head)
        end_of_header = PREFIX.size + header_bytes
        if any(self._head[end_of_header:]):
            raise FrameInvalid("the peer sent a frame whose padding is not zero")
        header = FrameHeader()
        try:
            header.ParseFromString(bytes(self._head[PREFIX.size : end_of_header]))
        except DecodeError as error:
            raise FrameInvalid("the peer sent a frame with a malformed header", why=str(error)) from error
        self._frame = Frame(header, end=bool(flags & END), size_bytes=self._head_bytes + payload_bytes)
        self._payload = bytearray(payload_bytes)
        self._filled = 0
        self._head.clear()
        self._head_bytes = PREFIX.size

    def _take_payload(self, view: memoryview) -> memoryview:
        taken_bytes = min(len(view), len(self._payload) - self._filled)
        self._payload[self._filled : self._filled + taken_bytes] = view[:taken_bytes]
        self._filled += taken_bytes
        return view[taken_bytes:]
