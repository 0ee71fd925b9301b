from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sedmad.wire.frame import Frame, Priority
from sedmad.wire.messages import FrameHeader, FrameKind
from sedmad.wire.outbox import FRAME_OVERHEAD_BYTES, QUEUED_BYTES_MAX, Outbox

priorities = st.sampled_from(Priority)


def numbered(priorities: list[Priority]) -> list[Frame]:
    return [Frame(FrameHeader(call_id=i), bytes(i), priority=p) for i, p in enumerate(priorities)]


@given(st.lists(priorities))
def test_the_most_urgent_leaves_first_and_equals_in_order(queued: list[Priority]) -> None:
    outbox = Outbox()
    for frame in numbered(queued):
        outbox.put(frame)
    taken = []
    while frame := outbox.take():
        taken.append((frame.priority, frame.header.call_id))
    assert taken == sorted((priority, i) for i, priority in enumerate(queued))
    assert len(outbox) == 0


@given(st.lists(priorities), priorities)
def test_nothing_above_what_is_allowed_leaves(queued: list[Priority], allowed: Priority) -> None:
    outbox = Outbox()
    for frame in numbered(queued):
        outbox.put(frame)
    while frame := outbox.take(allowed):
        assert frame.priority <= allowed
    assert len(outbox) == sum(priority > allowed for priority in queued)


def test_room_ends_at_the_bound_of_each_priority_alone() -> None:
    for priority in Priority:
        outbox = Outbox()
        payload = bytes(QUEUED_BYTES_MAX[priority] - FRAME_OVERHEAD_BYTES - 1)
        outbox.put(Frame(FrameHeader(), payload, priority=priority))
        assert outbox.has_room(priority)
        outbox.put(Frame(FrameHeader(), priority=priority))
        assert not outbox.has_room(priority)
        assert all(outbox.has_room(other) for other in Priority if other is not priority)
        outbox.take()
        assert outbox.has_room(priority)
        outbox.put(Frame(FrameHeader(), payload, priority=priority))
        outbox.clear()
        assert outbox.has_room(priority)
        assert len(outbox) == 0
        assert outbox.take() is None


@given(st.binary(max_size=300), st.integers(1, 100), st.integers(0, 1000), st.booleans())
def test_a_long_chunk_of_bulk_leaves_in_frames_that_make_it_up_again(
    payload: bytes, most_bytes: int, offset: int, end: bool
) -> None:
    outbox = Outbox()
    kind = FrameKind.FRAME_KIND_RESPONSE_DATA
    header = FrameHeader(kind=kind, call_id=7, offset=offset, message=b"m", payload_digest=b"digest")
    outbox.put(Frame(header, payload, end, Priority.BULK))
    taken = []
    while frame := outbox.take(bulk_payload_bytes_max=most_bytes):
        taken.append(frame)
        assert frame.size_bytes == len(frame.payload) + len(frame.header.message) + FRAME_OVERHEAD_BYTES
    assert outbox._queued_bytes[Priority.BULK] == 0
    assert b"".join(bytes(frame.payload) for frame in taken) == payload
    for frame in taken:
        assert len(frame.payload) <= most_bytes
        assert frame.header.offset == offset + sum(len(f.payload) for f in taken[: taken.index(frame)])
        assert (frame.header.kind, frame.header.call_id, frame.priority) == (kind, 7, Priority.BULK)
    # What belongs to the beginning is in the first frame, what belongs to the end in the last.
    assert [frame.header.message for frame in taken] == [b"m"] + [b""] * (len(taken) - 1)
    assert [frame.header.payload_digest for frame in taken] == [b""] * (len(taken) - 1) + [b"digest"]
    assert [frame.end for frame in taken] == [False] * (len(taken) - 1) + [end]


def test_other_frames_leave_whole_and_in_between() -> None:
    outbox = Outbox()
    data = FrameHeader(kind=FrameKind.FRAME_KIND_RESPONSE_DATA, call_id=1)
    outbox.put(Frame(data, bytes(100), priority=Priority.BULK))
    first = outbox.take(bulk_payload_bytes_max=30)
    assert first is not None
    assert len(first.payload) == 30
    outbox.put(Frame(FrameHeader(kind=data.kind, call_id=2), bytes(100), priority=Priority.PRODUCT))
    outbox.put(Frame(FrameHeader(kind=FrameKind.FRAME_KIND_RESPONSE), bytes(100), priority=Priority.BULK))
    lengths = []
    while frame := outbox.take(bulk_payload_bytes_max=30):
        lengths.append(len(frame.payload))
    assert lengths == [100, 30, 30, 10, 100]
