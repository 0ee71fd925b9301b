from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sedmad.wire.frame import Frame, Priority
from sedmad.wire.messages import FrameHeader
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
