from __future__ import annotations

import contextlib
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sedmad.errors import FrameInvalid, LocalError
from sedmad.wire.frame import (
    ALIGNMENT,
    HEADER_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    PREFIX,
    VERSION,
    Frame,
    FrameDecoder,
    encode,
    flat,
)
from sedmad.wire.messages import FrameHeader, FrameKind, Status

headers = st.builds(
    FrameHeader,
    kind=st.sampled_from(list(FrameKind.values())),
    call_id=st.integers(0, 2**64 - 1),
    sequence=st.integers(0, 2**64 - 1),
    method=st.text(max_size=40),
    message=st.binary(max_size=200),
    offset=st.integers(0, 2**64 - 1),
    remaining_ms=st.integers(0, 2**32 - 1),
    status=st.none() | st.builds(Status, reason=st.text(max_size=20)),
)
frames = st.builds(Frame, headers, st.binary(max_size=300), st.booleans())


def encoded(*frames: Frame) -> bytes:
    return b"".join(bytes(piece) for frame in frames for piece in encode(frame))


def decoded(data: bytes, cuts: list[int]) -> list[Frame]:
    decoder = FrameDecoder()
    edges = [0, *sorted(cuts), len(data)]
    return [
        frame for start, stop in itertools.pairwise(edges) for frame in decoder.receive_data(data[start:stop])
    ]


@given(st.lists(frames, max_size=5), st.data())
def test_frames_cut_anywhere_come_out_equal(sent: list[Frame], data: st.DataObject) -> None:
    stream = encoded(*sent)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    received = decoded(stream, cuts)
    assert received == [Frame(frame.header, bytearray(frame.payload), frame.end) for frame in sent]
    assert sum(frame.size_bytes for frame in received) == len(stream)


@given(frames, st.data())
def test_in_frame_exactly_between_frames(frame: Frame, data: st.DataObject) -> None:
    stream = encoded(frame)
    decoder = FrameDecoder()
    assert not decoder.in_frame
    decoder.receive_data(stream[: data.draw(st.integers(1, len(stream) - 1))])
    assert decoder.in_frame
    decoder = FrameDecoder()
    assert len(decoder.receive_data(stream)) == 1
    assert not decoder.in_frame


@given(st.lists(frames, min_size=1, max_size=3))
def test_whoever_reads_missing_bytes_reads_nothing_behind_the_frame(sent: list[Frame]) -> None:
    stream = encoded(*sent)
    decoder = FrameDecoder()
    read = 0
    received: list[Frame] = []
    while not received:
        assert decoder.missing_bytes > 0
        stop = read + decoder.missing_bytes
        received = decoder.receive_data(stream[read:stop])
        read = stop
    assert read == len(encoded(sent[0]))
    assert received[0].header == sent[0].header


@given(st.binary(max_size=400))
def test_garbage_is_refused_and_nothing_else(data: bytes) -> None:
    with contextlib.suppress(FrameInvalid):
        decoded(data, [])


@given(frames, st.data())
def test_a_mutated_frame_is_refused_or_another_frame(frame: Frame, data: st.DataObject) -> None:
    stream = bytearray(encoded(frame))
    for index in data.draw(st.lists(st.integers(0, len(stream) - 1), min_size=1, max_size=4)):
        stream[index] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(FrameInvalid):
        decoded(bytes(stream), [])


@given(frames)
def test_the_payload_begins_at_a_multiple_of_64(frame: Frame) -> None:
    pieces = encode(frame)
    if frame.payload:
        assert len(pieces[0]) % ALIGNMENT == 0
        assert pieces[1] is frame.payload
    else:
        assert len(pieces) == 1


def test_padding_is_zero() -> None:
    stream = bytearray(encoded(Frame(FrameHeader(call_id=1), b"payload")))
    stream[ALIGNMENT - 1] = 1
    with pytest.raises(FrameInvalid, match="padding"):
        FrameDecoder().receive_data(stream)


@pytest.mark.parametrize(
    "prefix",
    [
        (VERSION + 1, 0, 0, 0, 0),
        (VERSION, 2, 0, 0, 0),
        (VERSION, 0, 1, 0, 0),
        (VERSION, 0, 0, HEADER_BYTES_MAX + 1, 0),
        (VERSION, 0, 0, 0, PAYLOAD_BYTES_MAX + 1),
        (VERSION, 0, 0, 0, 2**64 - 1),
    ],
)
def test_a_bad_prefix_is_refused_before_anything_is_allocated(prefix: tuple[int, ...]) -> None:
    decoder = FrameDecoder()
    with pytest.raises(FrameInvalid):
        decoder.receive_data(PREFIX.pack(*prefix))
    assert len(decoder._payload) == 0


def test_an_empty_frame_is_a_frame() -> None:
    assert FrameDecoder().receive_data(PREFIX.pack(VERSION, 0, 0, 0, 0)) == [
        Frame(FrameHeader(), bytearray())
    ]


def test_frames_at_the_bounds_pass_and_one_byte_more_does_not() -> None:
    overhead = FrameHeader(message=bytes(HEADER_BYTES_MAX)).ByteSize() - HEADER_BYTES_MAX
    header = FrameHeader(message=bytes(HEADER_BYTES_MAX - overhead))
    largest = Frame(header, bytes(PAYLOAD_BYTES_MAX))
    assert header.ByteSize() == HEADER_BYTES_MAX
    assert decoded(encoded(largest), [1, 1000, HEADER_BYTES_MAX]) == [
        Frame(header, bytearray(PAYLOAD_BYTES_MAX))
    ]
    with pytest.raises(LocalError):
        encode(Frame(FrameHeader(message=bytes(HEADER_BYTES_MAX - overhead + 1))))
    with pytest.raises(LocalError):
        encode(Frame(FrameHeader(), bytes(PAYLOAD_BYTES_MAX + 1)))


def test_a_decoder_for_strangers_takes_less() -> None:
    decoder = FrameDecoder(header_bytes_max=100, payload_bytes_max=0)
    assert decoder.receive_data(encoded(Frame(FrameHeader(message=bytes(90)))))
    with pytest.raises(FrameInvalid):
        decoder.receive_data(encoded(Frame(FrameHeader(message=bytes(101)))))
    with pytest.raises(FrameInvalid):
        FrameDecoder(100, 0).receive_data(encoded(Frame(FrameHeader(), b"x")))


def test_flat_counts_bytes_and_copies_nothing() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    view = flat(memoryview(array))
    assert len(view) == 48
    array[0, 0] = 7
    assert bytes(view) == array.tobytes()
    assert len(flat(memoryview(np.empty((0, 4))))) == 0
    assert flat(b"abc") == b"abc"
    with pytest.raises(LocalError, match="contiguous"):
        flat(memoryview(array)[::2])
    with pytest.raises(LocalError, match="contiguous"):
        flat(memoryview(np.asfortranarray(array)))
