"""Shapes that break parsers: endless nesting, endless numbers, millions of nothing."""

from __future__ import annotations

import resource

import pytest
from drawing import contract
from parsers import PARSERS, framed

from sedmad.wire import messages as wire
from sedmad.wire.frame import HEADER_BYTES_MAX

# A hundred thousand parts with nothing in them cost protobuf some 50 bytes each.
GROWTH_MIB_MAX = 64


def npy(shape: bytes) -> bytes:
    text = b"{'descr':'<f4','fortran_order':False,'shape':" + shape + b"}"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


TEXTS = {
    "nested lists": ("configuration", b"listen = " + b"[" * 50_000),
    "nested tables": ("configuration", b"labels = " + b"{a=" * 50_000),
    "a long number": ("configuration", b"memory = " + b"1" * 5_000),
    "a long number as a label": ("configuration", b"[labels]\nzone = " + b"1" * 5_000),
    "nested shape": ("npy", npy(b"(" * 9_000)),
    "a length of 4,000 digits": ("npy", npy(b"(" + b"9" * 4_000 + b",)")),
    "a hexadecimal length": ("npy", npy(b"(0x" + b"f" * 8_000 + b",)")),
    "nothing, far too long": ("npy", npy(b"(0,99999999999999999999999)")),
    "nothing, too long": ("npy", npy(b"(0,9223372036854775807)")),
    "a long token": ("token", b"sedmad1" + b"a" * 4_000),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_that_is_refused(name: str) -> None:
    parser, data = TEXTS[name]
    PARSERS[parser](data)


def field(number: int, wire_type: int) -> bytes:
    key = number << 3 | wire_type
    return bytes([key]) if key < 128 else bytes([key & 127 | 128, key >> 7])


NUMBERS = sorted({found.number for message in contract() for found in message.DESCRIPTOR.fields})
SHAPES = {
    "empty parts": lambda number: (field(number, 2) + b"\0") * 100_000,
    "nested groups": lambda number: field(number, 3) * 20_000,
    "numbers without end": lambda number: field(number, 0) + b"\xff" * 11,
    "a length beyond the end": lambda number: field(number, 2) + b"\xff" * 9 + b"\x01",
    "text that is none": lambda number: field(number, 2) + b"\x02\xff\xfe",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_message_of_a_hostile_shape(shape: str) -> None:
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in NUMBERS:
        data = SHAPES[shape](number)[: HEADER_BYTES_MAX - 64]
        inside = wire.FrameHeader(kind=wire.FRAME_KIND_REQUEST, call_id=1, message=data)
        for name in ("certificates", "manifests", "membership", "records", "status", "votes"):
            PARSERS[name](data)
        for name in ("frames", "calls", "session", "hello", "join"):
            PARSERS[name](framed(inside))
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) // 1024
    assert grown_mib < GROWTH_MIB_MAX
