from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sedmad.errors import LocalError, Overloaded, ProtocolViolation
from sedmad.wire.calls import (
    CREDIT_BYTES,
    CallCancelled,
    Calls,
    CreditReceived,
    Event,
    MessageReceived,
    RequestData,
    RequestReceived,
    ResponseData,
    ResponseReceived,
)
from sedmad.wire.frame import MESSAGE_BYTES_MAX, PAYLOAD_BYTES_MAX, Frame, Priority
from sedmad.wire.messages import FrameHeader, FrameKind, Status
from sedmad.wire.outbox import Outbox
from sedmad.wire.status import to_error

PRODUCT = "sedma.v1.ProductService/MultiplyPartitions"
BULK = "sedma.v1.HoldingService/FetchPartition"
MIB = 1 << 20


def exchange(sender: Calls, receiver: Calls) -> list[Event]:
    return [event for frame in sender.collect() if (event := receiver.receive(frame)) is not None]


def test_a_call_there_and_back() -> None:
    one, other = Calls(), Calls()
    call_id = one.start(PRODUCT, b"ask", remaining_ms=7, payload=b"xy", end=False, traceparent="t")
    one.send_request(call_id, b"z", offset=2, end=True, payload_digest=b"d")
    assert exchange(one, other) == [
        RequestReceived(call_id, PRODUCT, b"ask", 7, b"xy", b"", False, "t"),
        RequestData(call_id, 2, b"z", b"d", True),
    ]
    other.send_response(call_id, b"soon", b"ab", offset=0, payload_digest=b"e")
    other.respond(call_id, b"done", b"c", offset=2)
    assert exchange(other, one) == [
        ResponseData(call_id, b"soon", 0, b"ab", b"e"),
        ResponseReceived(call_id, b"done", 2, b"c", b"", None),
    ]
    assert one.outgoing_count == 0
    assert not one.is_open(call_id, outgoing=True)
    assert not other.is_open(call_id, outgoing=False)


def test_both_sides_may_use_the_same_ids() -> None:
    one, other = Calls(), Calls()
    assert one.start(PRODUCT, b"1") == other.start(PRODUCT, b"2")
    assert len(exchange(one, other)) == len(exchange(other, one)) == 1
    one.respond(1, b"from one")
    assert exchange(one, other) == [ResponseReceived(1, b"from one", 0, b"", b"", None)]
    assert one.is_open(1, outgoing=True)


def test_messages_need_no_call() -> None:
    one, other = Calls(), Calls()
    one.send_message("membership", b"hello")
    assert exchange(one, other) == [MessageReceived("membership", b"hello")]


def test_one_call_too_many_is_answered_with_overloaded() -> None:
    one, other = Calls(), Calls(calls_max=2)
    for _ in range(3):
        one.start(PRODUCT, b"", end=False)
    assert len(exchange(one, other)) == 2
    (refused,) = exchange(other, one)
    assert isinstance(refused, ResponseReceived)
    assert refused.call_id == 3
    assert refused.status is not None
    assert isinstance(to_error(refused.status), Overloaded)
    one.send_request(3, b"late", offset=0)
    one.send_request(1, b"data", offset=0)
    assert [type(event) for event in exchange(one, other)] == [RequestData]


def test_what_follows_the_end_of_a_call_is_dropped() -> None:
    one, other = Calls(), Calls()
    call_id = one.start(PRODUCT, b"", end=False)
    exchange(one, other)
    other.respond(call_id, b"enough")
    one.send_request(call_id, b"more", offset=0)
    one.cancel(call_id)
    assert exchange(one, other) == []
    assert exchange(other, one) == []
    for verb in (one.cancel, other.respond):
        verb(call_id)
    one.send_request(call_id, b"", offset=0)
    other.send_response(call_id)
    one.consume(call_id, 5 * MIB, outgoing=True)
    assert one.collect() == other.collect() == []
    assert one.credit(call_id, outgoing=True) == 0


def test_credit_comes_back_in_steps_once_it_is_consumed() -> None:
    one, other = Calls(), Calls()
    call_id = one.start(PRODUCT, b"", payload=bytes(MIB), end=False)
    for index in range(1, 8):
        one.send_request(call_id, bytes(MIB), offset=index * MIB)
    assert one.credit(call_id, outgoing=True) == 0
    exchange(one, other)
    other.consume(call_id, MIB, outgoing=False)
    assert other.collect() == []
    other.consume(call_id, MIB, outgoing=False)
    assert exchange(other, one) == [CreditReceived(call_id, outgoing=True)]
    assert one.credit(call_id, outgoing=True) == 2 * MIB


def test_only_messages_may_leave_as_probes() -> None:
    """Sessions send probes in front of what they send again; a numbered frame there would be out of order."""
    one, other = Calls(), Calls()
    call_id = one.start(PRODUCT, b"", payload=bytes(MIB), end=False)
    one.send_request(call_id, bytes(MIB), offset=MIB)
    frames = one.collect()
    for frame in frames:
        other.receive(frame)
    other.consume(call_id, 2 * MIB, outgoing=False)
    other.send_response(call_id, b"on the way")
    other.send_message("membership", b"")
    other.respond(call_id)
    one.cancel(call_id)
    frames += other.collect() + one.collect()
    kinds = {frame.header.kind for frame in frames if frame.priority is Priority.PROBE}
    assert kinds == {FrameKind.FRAME_KIND_MESSAGE}
    credit = [frame for frame in frames if frame.header.kind == FrameKind.FRAME_KIND_REQUEST_CREDIT]
    assert [frame.priority for frame in credit] == [Priority.CREDIT]


def test_nobody_gives_credit_for_a_request_that_is_complete() -> None:
    one, other = Calls(), Calls()
    call_id = one.start(PRODUCT, b"", payload=bytes(MIB), end=False)
    one.send_request(call_id, bytes(MIB), offset=MIB, end=True)
    exchange(one, other)
    other.consume(call_id, 2 * MIB, outgoing=False)
    assert other.collect() == []


def test_forgetting_ends_all_and_uses_no_id_twice() -> None:
    calls = Calls()
    first = calls.start(PRODUCT, b"")
    calls.receive(request(1))
    calls.forget()
    assert calls.collect() == []
    assert not calls.is_open(first, outgoing=True)
    assert not calls.is_open(1, outgoing=False)
    assert calls.start(PRODUCT, b"") > first
    assert isinstance(calls.receive(request(1)), RequestReceived)


def test_oversize_messages_and_chunks_are_refused_before_anything_changes() -> None:
    calls = Calls()
    long, wide = bytes(MESSAGE_BYTES_MAX + 1), bytes(PAYLOAD_BYTES_MAX + 1)
    calls.receive(request(1))
    call_id = calls.start(PRODUCT, bytes(MESSAGE_BYTES_MAX), payload=bytes(PAYLOAD_BYTES_MAX), end=False)
    calls.collect()
    for attempt in (
        lambda: calls.start(PRODUCT, long),
        lambda: calls.start(PRODUCT, b"", payload=wide),
        lambda: calls.send_request(call_id, wide, offset=0),
        lambda: calls.send_response(1, long),
        lambda: calls.send_response(1, b"", wide),
        lambda: calls.respond(1, long),
        lambda: calls.respond(1, b"", wide),
        lambda: calls.send_message("membership", long),
    ):
        with pytest.raises(LocalError, match="too long"):
            attempt()
    assert calls.collect() == []
    assert calls.is_open(1, outgoing=False)
    assert calls.outgoing_count == 1


def request(call_id: int, payload: bytes = b"", *, end: bool = False) -> Frame:
    header = FrameHeader(kind=FrameKind.FRAME_KIND_REQUEST, call_id=call_id, method=PRODUCT)
    return Frame(header, payload, end)


def of_kind(
    name: str, call_id: int, payload: bytes = b"", *, end: bool = False, credit_bytes: int = 0
) -> Frame:
    kind = FrameKind.Value(f"FRAME_KIND_{name}")
    return Frame(FrameHeader(kind=kind, call_id=call_id, credit_bytes=credit_bytes), payload, end)


@pytest.mark.parametrize(
    "hostile",
    [
        [request(1), request(1)],
        [request(1, end=True), of_kind("REQUEST_DATA", 1)],
        [request(1), of_kind("REQUEST_DATA", 1, end=True), of_kind("REQUEST_DATA", 1)],
        [request(1), *[of_kind("REQUEST_DATA", 1, bytes(MIB)) for _ in range(9)]],
        [request(1, bytes(CREDIT_BYTES + 1))],
        [of_kind("RESPONSE_DATA", 1, bytes(MIB)) for _ in range(9)],
        [of_kind("REQUEST_CREDIT", 1, credit_bytes=1)],
        [of_kind("REQUEST_CREDIT", 1, credit_bytes=2**64 - 1)],
        [request(1), of_kind("RESPONSE_CREDIT", 1, credit_bytes=1)],
        [of_kind("ACK", 0)],
        [of_kind("HELLO", 0)],
        [of_kind("UNSPECIFIED", 0)],
        [Frame(FrameHeader(kind=99))],  # type: ignore[arg-type]
    ],
)
def test_who_breaks_the_rules_is_told_apart(hostile: list[Frame]) -> None:
    calls = Calls()
    calls.start(PRODUCT, b"", end=False)
    for frame in hostile[:-1]:
        calls.receive(frame)
    with pytest.raises(ProtocolViolation):
        calls.receive(hostile[-1])


@given(
    st.lists(
        st.builds(
            Frame,
            st.builds(
                FrameHeader,
                kind=st.sampled_from(list(FrameKind.values())),
                call_id=st.integers(0, 3),
                method=st.sampled_from([PRODUCT, BULK, "", "nonsense"]),
                credit_bytes=st.sampled_from([0, 1, MIB, 2**64 - 1]),
                status=st.none() | st.just(Status()),
            ),
            st.sampled_from([b"", b"x", bytes(MIB)]),
            st.booleans(),
        ),
        max_size=30,
    )
)
def test_whatever_arrives_is_an_event_nothing_or_a_violation(frames: list[Frame]) -> None:
    calls = Calls(calls_max=2)
    calls.start(PRODUCT, b"", end=False)
    calls.start(BULK, b"")
    try:
        for frame in frames:
            calls.receive(frame)
    except ProtocolViolation:
        pass
    assert len(calls._incoming) <= 2


@dataclass
class Ours:
    """A call as the side that began it sees it."""

    method: str
    sent: int
    ended_sending: bool
    received: int = 0
    unconsumed: int = 0
    end: str = ""


@dataclass
class Theirs:
    """A call as the side that serves it sees it."""

    sent: int = 0
    received: int = 0
    unconsumed: int = 0
    complete: bool = False
    end: str = ""


@dataclass
class Side:
    calls: Calls = field(default_factory=lambda: Calls(calls_max=3))
    outbox: Outbox = field(default_factory=Outbox)
    ours: dict[int, Ours] = field(default_factory=dict)
    theirs: dict[int, Theirs] = field(default_factory=dict)
    wire: deque[Frame] = field(default_factory=deque)

    def flush(self) -> None:
        for frame in self.calls.collect():
            self.outbox.put(frame)


SIZES = st.sampled_from([0, 1, 300_000, MIB])
SIDES = st.integers(0, 1)


class Connection(RuleBasedStateMachine):
    """Two sides, their outboxes that let urgent frames overtake, and a wire that loses nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.sides = [Side(), Side()]

    def pick(self, data: st.DataObject, calls: dict[int, Ours] | dict[int, Theirs]) -> int | None:
        live = [call_id for call_id, call in calls.items() if not call.end]
        return data.draw(st.sampled_from(live)) if live else None

    @rule(side=SIDES, size=SIZES, end=st.booleans(), method=st.sampled_from([PRODUCT, BULK]))
    def start(self, side: int, size: int, end: bool, method: str) -> None:
        one = self.sides[side]
        call_id = one.calls.start(method, b"", payload=bytes(size), end=end)
        assert call_id not in one.ours
        one.ours[call_id] = Ours(method, size, end)
        one.flush()

    @rule(side=SIDES, data=st.data(), size=SIZES, end=st.booleans())
    def send_request(self, side: int, data: st.DataObject, size: int, end: bool) -> None:
        one = self.sides[side]
        call_id = self.pick(data, one.ours)
        if call_id is None or one.ours[call_id].ended_sending:
            return
        if one.calls.credit(call_id, outgoing=True) >= size:
            one.calls.send_request(call_id, bytes(size), offset=one.ours[call_id].sent, end=end)
            one.ours[call_id].sent += size
            one.ours[call_id].ended_sending = end
            one.flush()

    @rule(side=SIDES, data=st.data(), size=SIZES)
    def send_response(self, side: int, data: st.DataObject, size: int) -> None:
        one = self.sides[side]
        call_id = self.pick(data, one.theirs)
        if call_id is not None and one.calls.credit(call_id, outgoing=False) >= size:
            one.calls.send_response(call_id, b"on the way", bytes(size), offset=one.theirs[call_id].sent)
            one.theirs[call_id].sent += size
            one.flush()

    @rule(side=SIDES, data=st.data(), size=SIZES)
    def respond(self, side: int, data: st.DataObject, size: int) -> None:
        one = self.sides[side]
        call_id = self.pick(data, one.theirs)
        if call_id is not None:
            one.calls.respond(call_id, b"", bytes(size), offset=one.theirs[call_id].sent)
            one.theirs[call_id].end = "responded"
            one.flush()

    @rule(side=SIDES, data=st.data())
    def cancel(self, side: int, data: st.DataObject) -> None:
        one = self.sides[side]
        call_id = self.pick(data, one.ours)
        if call_id is not None:
            one.calls.cancel(call_id)
            one.ours[call_id].end = "cancelled"
            one.flush()

    @rule(side=SIDES, data=st.data(), outgoing=st.booleans())
    def consume(self, side: int, data: st.DataObject, outgoing: bool) -> None:
        one = self.sides[side]
        calls = one.ours if outgoing else one.theirs
        waiting = [call_id for call_id, call in calls.items() if call.unconsumed]
        if waiting:
            self.use_up(one, data.draw(st.sampled_from(waiting)), outgoing)

    def use_up(self, one: Side, call_id: int, outgoing: bool) -> None:
        call = one.ours[call_id] if outgoing else one.theirs[call_id]
        one.calls.consume(call_id, call.unconsumed, outgoing=outgoing)
        call.unconsumed = 0
        one.flush()

    @rule(side=SIDES, count=st.integers(1, 5))
    def write(self, side: int, count: int) -> None:
        for _ in range(count):
            if (frame := self.sides[side].outbox.take()) is not None:
                self.sides[side].wire.append(frame)

    @precondition(lambda self: any(side.wire for side in self.sides))
    @rule(side=SIDES, count=st.integers(1, 5))
    def read(self, side: int, count: int) -> None:
        sender, receiver = self.sides[side], self.sides[1 - side]
        for _ in range(min(count, len(sender.wire))):
            event = receiver.calls.receive(sender.wire.popleft())
            if event is not None:
                self.take(receiver, event)
            receiver.flush()

    def take(self, one: Side, event: Event) -> None:
        match event:
            case RequestReceived():
                assert event.call_id not in one.theirs
                size = len(event.payload)
                one.theirs[event.call_id] = Theirs(0, size, size, event.end)
            case RequestData():
                theirs = one.theirs[event.call_id]
                assert not theirs.end
                assert event.offset == theirs.received
                theirs.received += len(event.payload)
                theirs.unconsumed += len(event.payload)
                theirs.complete = event.end
            case CallCancelled():
                assert not one.theirs[event.call_id].end
                one.theirs[event.call_id].end = "cancelled"
            case ResponseData() | ResponseReceived():
                ours = one.ours[event.call_id]
                assert not ours.end
                refused = isinstance(event, ResponseReceived) and event.status is not None
                assert refused or event.offset == ours.received
                ours.received += len(event.payload)
                if isinstance(event, ResponseReceived):
                    ours.end = "refused" if refused else "responded"
                else:
                    ours.unconsumed += len(event.payload)
            case CreditReceived():
                call = (one.ours if event.outgoing else one.theirs)[event.call_id]
                assert not call.end

    @invariant()
    def nobody_buffers_more_than_the_credit(self) -> None:
        for side in self.sides:
            for call in [*side.ours.values(), *side.theirs.values()]:
                assert call.unconsumed <= CREDIT_BYTES

    def settle(self) -> None:
        while any(len(side.outbox) or side.wire for side in self.sides):
            for index in (0, 1):
                self.write(index, 1000)
                self.read(index, 1000)

    def teardown(self) -> None:
        """Whatever happened: every call can still send, be answered, and end once on both sides."""
        self.settle()
        for side in self.sides:
            for outgoing, calls in ((True, side.ours), (False, side.theirs)):
                for call_id in calls:
                    self.use_up(side, call_id, outgoing)
        self.settle()
        for one, other in (self.sides, self.sides[::-1]):
            for call_id, theirs in other.theirs.items():
                if theirs.end:
                    continue
                ours = one.ours[call_id]
                assert not ours.end
                assert theirs.received == ours.sent
                assert other.calls.credit(call_id, outgoing=False) >= PAYLOAD_BYTES_MAX
                if not ours.ended_sending:
                    assert one.calls.credit(call_id, outgoing=True) >= PAYLOAD_BYTES_MAX
                other.calls.respond(call_id, b"", offset=theirs.sent)
                theirs.end = "responded"
            other.flush()
        self.settle()
        for one, other in (self.sides, self.sides[::-1]):
            assert one.calls.outgoing_count == 0
            assert not one.calls._incoming
            for call_id, ours in one.ours.items():
                assert ours.end
                assert ours.end != "responded" or other.theirs[call_id].end == "responded"


TestConnection = Connection.TestCase
TestConnection.settings = settings(max_examples=100, stateful_step_count=60, deadline=None)
