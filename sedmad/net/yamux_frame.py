"""Yamux frames: headers, and bodies cut to size. Source: https://github.com/hashicorp/yamux/blob/master/spec.md"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum, IntFlag

from sedmad.wire.frame import Buffer

VERSION = 0
HEADER = struct.Struct("!BBHII")
# What the other side may send on a stream before it hears from us, and the other way round.
INITIAL_WINDOW_BYTES = 256 << 10

# Frames in pieces, header first.
Frames = Iterable[list[Buffer]]


class FrameType(IntEnum):
    """What a frame is; the header's length field is the body's length in DATA only."""

    DATA = 0
    WINDOW_UPDATE = 1
    PING = 2
    GO_AWAY = 3


class Flag(IntFlag):
    """SYN begins a stream, ACK accepts it, FIN ends the sender's direction, RST ends both at once."""

    NONE = 0
    SYN = 1
    ACK = 2
    FIN = 4
    RST = 8


def pack(frame_type: FrameType, flags: int, stream_id: int, length: int) -> bytes:
    """Return a header of 12 bytes."""
    return HEADER.pack(VERSION, frame_type, flags, stream_id, length)


class Bodies:
    """Cuts pieces of any size into bodies of the size that is asked for, copying nothing."""

    def __init__(self, pieces: Sequence[Buffer]) -> None:
        self._views = [memoryview(piece).cast("B") for piece in pieces if len(piece)]
        self._views.reverse()
        self.left_bytes = sum(len(view) for view in self._views)

    def take(self, size: int) -> Iterator[memoryview]:
        self.left_bytes -= size
        while size:
            view = self._views.pop()
            if len(view) > size:
                self._views.append(view[size:])
                view = view[:size]
            size -= len(view)
            yield view


def records(control: bytes, frames: Frames, bytes_max: int) -> Iterator[bytes]:
    """Yield what to encrypt at once: each frame, and frames without bodies together, before the first one."""
    for pieces in frames:
        record = b"".join(pieces)
        if control and len(control) + len(record) <= bytes_max:
            record, control = control + record, b""
        elif control:
            yield control
            control = b""
        yield record
    for start in range(0, len(control), bytes_max):
        yield control[start : start + bytes_max]
