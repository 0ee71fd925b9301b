"""The header of a yamux frame. Source: https://github.com/hashicorp/yamux/blob/master/spec.md"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag

VERSION = 0
HEADER = struct.Struct("!BBHII")
# What the other side may send on a stream before it hears from us, and the other way round.
INITIAL_WINDOW_BYTES = 256 << 10


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
