from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sedmad.errors import ProtocolViolation
from sedmad.wire.frame import Frame, Priority
from sedmad.wire.messages import FrameHeader, FrameKind, SessionHello
from sedmad.wire.resend import (
    ACKNOWLEDGE_AFTER_S,
    ACKNOWLEDGE_BYTES,
    SESSION_ID_MAX,
    UNACKNOWLEDGED_BYTES_MAX,
    UNACKNOWLEDGED_FRAMES_MAX,
    ResendWindow,
)

DATA = FrameKind.FRAME_KIND_REQUEST_DATA
MESSAGE = FrameKind.FRAME_KIND_MESSAGE
ACK = FrameKind.FRAME_KIND_ACK


def frame(number: int = 0, payload: bytes = b"x", priority: Priority = Priority.PRODUCT) -> Frame:
    header = FrameHeader(kind=DATA, call_id=number)
    return Frame(header, payload, priority=priority, size_bytes=len(payload) + 100)


def on_the_wire(sent: Frame) -> Frame:
    """Return what the other side gets: a copy, as the same frame may be stamped anew and sent again."""
    header = FrameHeader()
    header.CopyFrom(sent.header)
    return Frame(header, bytes(sent.payload), size_bytes=sent.size_bytes)


def hello_of(window: ResendWindow) -> SessionHello:
    return SessionHello(
        session_id=window.session_id,
        peer_session_id=window.peer_session_id,
        received_sequence=window.received_sequence,
    )


def connect(opener: ResendWindow, acceptor: ResendWindow) -> tuple[bool, bool]:
    told = hello_of(opener)
    accepted = acceptor.attach(told, opened_here=False)
    return opener.attach(hello_of(acceptor), opened_here=True), accepted


def pair() -> tuple[ResendWindow, ResendWindow]:
    one, other = ResendWindow(1), ResendWindow(1000)
    assert connect(one, other) == (True, True)
    return one, other


def send(sender: ResendWindow, receiver: ResendWindow, sent: Frame, now: float = 0.0) -> bool:
    return receiver.accept(on_the_wire(sender.stamp(sent, now)), now)


def replayed(window: ResendWindow) -> list[int]:
    numbers = []
    while again := window.next_replay():
        numbers.append(again.header.sequence)
    return numbers


def test_frames_are_numbered_from_one_and_messages_are_not() -> None:
    one, _ = pair()
    assert one.stamp(frame(), 0.0).header.sequence == 1
    assert one.stamp(Frame(FrameHeader(kind=MESSAGE)), 0.0).header.sequence == 0
    assert one.stamp(frame(), 0.0).header.sequence == 2


def test_only_what_was_not_acknowledged_is_sent_again() -> None:
    one, other = pair()
    for number in range(5):
        send(one, other, frame(number, bytes(10)))
    assert one.accept(on_the_wire(other.acknowledgement(1.0) or frame()), 1.0) is False
    one.stamp(frame(5, bytes(7)), 1.0)
    one.stamp(Frame(FrameHeader(kind=MESSAGE)), 1.0)
    assert connect(one, other) == (True, True)
    assert replayed(one) == [6]
    assert (one.sent_bytes, one.resent_bytes) == (57, 7)
    assert replayed(other) == []


def test_the_hello_acknowledges_too() -> None:
    one, other = pair()
    for number in range(3):
        send(one, other, frame(number))
    assert connect(other, one) == (True, True)
    assert replayed(one) == []


def test_an_acknowledgement_during_the_replay_shortens_it() -> None:
    one, other = pair()
    for number in range(4):
        one.stamp(frame(number), 0.0)
    connect(one, other)
    first = one.next_replay()
    assert first is not None
    other.accept(on_the_wire(first), 0.0)
    other.received_sequence = 3
    one.accept(on_the_wire(other.acknowledgement(1.0) or frame()), 1.0)
    assert replayed(one) == [4]


def test_a_frame_sent_again_carries_the_present_acknowledgement() -> None:
    one, other = pair()
    lost = one.stamp(frame(), 0.0)
    assert lost.header.acknowledged == 0
    send(other, one, frame())
    connect(one, other)
    assert one.next_replay() is lost
    assert lost.header.acknowledged == 1
    assert one.next_timeout() is None


def test_nothing_new_but_probes_goes_before_the_replay() -> None:
    one, other = pair()
    one.stamp(frame(), 0.0)
    assert one.allowed() is Priority.BULK
    connect(one, other)
    assert one.allowed() is Priority.PROBE
    replayed(one)
    assert one.allowed() is Priority.BULK


def test_a_lost_answer_costs_nothing() -> None:
    one, other = ResendWindow(1), ResendWindow(2)
    assert other.attach(hello_of(one), opened_here=False)
    other.stamp(frame(7), 0.0)
    # Either side may open the next connection.
    assert other.attach(hello_of(one), opened_here=False)
    assert replayed(other) == [1]
    assert connect(other, one) == (True, True)
    assert replayed(other) == [1]


def test_a_restarted_side_makes_both_begin_anew() -> None:
    for restarted_opens in (True, False):
        one, other = pair()
        send(one, other, frame())
        send(other, one, frame())
        one.stamp(frame(), 0.0)
        fresh = ResendWindow(77)
        results = connect(fresh, one) if restarted_opens else connect(one, fresh)[::-1]
        assert results == (True, False)
        assert replayed(one) == replayed(fresh) == []
        assert send(one, fresh, frame())
        assert send(fresh, one, frame())


def test_beginning_anew_where_the_answer_was_lost_is_said_again() -> None:
    one, other = pair()
    send(one, other, frame())
    send(other, one, frame())
    fresh = ResendWindow(77)
    fresh.attach(hello_of(one), opened_here=False)
    fresh.stamp(frame(5), 0.0)
    # `one` never saw the answer and still remembers `other`.
    assert connect(one, fresh) == (False, True)
    assert replayed(fresh) == [1]


def test_a_late_hello_never_makes_the_sides_disagree() -> None:
    one, fresh = pair()[0], ResendWindow(77)
    late = hello_of(one)
    connect(fresh, one)
    send(one, fresh, frame())
    send(fresh, one, frame())
    # The hello of a connection that `one` has given up is read only now.
    fresh.attach(late, opened_here=False)
    assert connect(one, fresh) == (False, False)
    assert send(one, fresh, frame())
    assert send(fresh, one, frame())


def test_a_session_id_is_never_nothing() -> None:
    one, other = ResendWindow(SESSION_ID_MAX), ResendWindow(5)
    connect(other, one)
    send(other, one, frame())
    connect(ResendWindow(6), one)
    assert one.session_id == 1


def test_acknowledging_what_was_never_sent_is_a_violation_and_changes_nothing() -> None:
    one, other = pair()
    one.stamp(frame(), 0.0)
    with pytest.raises(ProtocolViolation, match="never sent"):
        one.accept(Frame(FrameHeader(kind=ACK, acknowledged=2)), 0.0)
    lie = hello_of(other)
    lie.received_sequence = 2
    for opened_here in (True, False):
        with pytest.raises(ProtocolViolation, match="never sent"):
            one.attach(lie, opened_here=opened_here)
    assert connect(one, other) == (True, True)
    assert replayed(one) == [1]


@pytest.mark.parametrize("sequence", [0, 3, 2**64 - 1])
def test_missing_and_unnumbered_frames_are_violations(sequence: int) -> None:
    one, other = pair()
    send(one, other, frame())
    with pytest.raises(ProtocolViolation, match="left out"):
        other.accept(Frame(FrameHeader(kind=DATA, sequence=sequence)), 0.0)


def test_acknowledgements_wait_for_company_but_not_long() -> None:
    one, other = pair()
    assert other.next_timeout() is None
    send(one, other, frame(), now=1.0)
    assert other.next_timeout() == 1.0 + ACKNOWLEDGE_AFTER_S
    send(one, other, frame(), now=1.01)
    assert other.next_timeout() == 1.0 + ACKNOWLEDGE_AFTER_S
    assert other.acknowledgement(1.0) is None
    alone = other.acknowledgement(1.0 + ACKNOWLEDGE_AFTER_S)
    assert alone is not None
    assert (alone.header.kind, alone.header.acknowledged, alone.header.sequence) == (ACK, 2, 0)
    assert other.next_timeout() is None
    send(one, other, frame(), now=2.0)
    assert other.stamp(frame(), 2.0).header.acknowledged == 3
    assert other.next_timeout() is None
    send(one, other, frame(payload=bytes(ACKNOWLEDGE_BYTES)), now=3.0)
    assert other.next_timeout() == 3.0


def test_repeated_frames_are_no_news_and_are_acknowledged_again() -> None:
    one, other = pair()
    sent = on_the_wire(one.stamp(frame(), 0.0))
    assert other.accept(sent, 0.0)
    other.acknowledgement(1.0)
    assert not other.accept(sent, 2.0)
    assert other.next_timeout() == 2.0 + ACKNOWLEDGE_AFTER_S


def test_a_full_window_stops_all_but_probes() -> None:
    one, _other = pair()
    chunk = bytes(1 << 20)
    while one.allowed() > Priority.PRODUCT:
        one.stamp(frame(0, chunk, Priority.BULK), 0.0)
    assert one.allowed() is Priority.PRODUCT
    sent = 0
    while one.allowed() > Priority.PROBE:
        one.stamp(frame(0, chunk), 0.0)
        sent += len(chunk)
    assert sent <= UNACKNOWLEDGED_BYTES_MAX
    one.accept(Frame(FrameHeader(kind=ACK, acknowledged=one._next_sequence - 1)), 0.01)
    assert one.allowed() is Priority.BULK
    for _ in range(UNACKNOWLEDGED_FRAMES_MAX):
        assert one.allowed() is Priority.BULK
        one.stamp(frame(), 0.0)
    assert one.allowed() is Priority.PROBE


def test_an_outage_is_no_delay_of_the_path() -> None:
    one, other = pair()
    one.stamp(frame(0, bytes(1 << 20), Priority.BULK), 0.0)
    connect(one, other)
    before = one.window.window_bytes
    again = one.next_replay()
    assert again is not None
    other.accept(on_the_wire(again), 30.0)
    one.accept(Frame(FrameHeader(kind=ACK, acknowledged=1)), 30.0)
    assert one.window.window_bytes == before


@dataclass
class Side:
    """One node: its session, what was sent and what arrived since it last began anew."""

    window: ResendWindow
    sent: list[int] = field(default_factory=list)
    received: list[int] = field(default_factory=list)
    # The connection that it is attached to, and what is under way over it to the other side.
    connection: int = 0
    wire: deque[Frame] = field(default_factory=deque)

    def attach(self, connection: int, hello: SessionHello, *, opened_here: bool) -> bool:
        goes_on = self.window.attach(hello, opened_here=opened_here)
        if not goes_on:
            self.sent.clear()
            self.received.clear()
        self.connection = connection
        return goes_on


class Sessions(RuleBasedStateMachine):
    """Two sides, connections that break at any moment, hellos that are late or lost, restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.next_number = 1
        self.next_session_id = 1
        self.next_connection = 1
        self.sides = [self.side(), self.side()]
        # Hellos whose streams their writers have given up, and the other side has not read yet.
        self.late: list[tuple[int, SessionHello]] = []
        self.may_begin_anew = False

    def side(self) -> Side:
        self.next_session_id += 1000
        return Side(ResendWindow(self.next_session_id))

    @property
    def connected(self) -> bool:
        one, other = self.sides
        return bool(one.connection) and one.connection == other.connection

    @initialize(opener=st.integers(0, 1))
    def meet(self, opener: int) -> None:
        self.a_connection_is_made(opener)

    @rule(side=st.integers(0, 1), size=st.sampled_from([1, 1000, 200_000]), bulk=st.booleans())
    def write(self, side: int, size: int, bulk: bool) -> None:
        sender = self.sides[side]
        if not sender.connection:
            return
        priority = Priority.BULK if bulk else Priority.PRODUCT
        if again := sender.window.next_replay():
            sender.wire.append(on_the_wire(again))
        elif sender.window.allowed() >= priority:
            new = frame(self.next_number, bytes(size), priority)
            sender.sent.append(self.next_number)
            self.next_number += 1
            sender.wire.append(on_the_wire(sender.window.stamp(new, self.now)))

    @rule(side=st.integers(0, 1))
    def probe(self, side: int) -> None:
        if self.sides[side].connection:
            message = Frame(FrameHeader(kind=MESSAGE))
            self.sides[side].wire.append(on_the_wire(self.sides[side].window.stamp(message, self.now)))

    @rule(side=st.integers(0, 1), elapsed_s=st.sampled_from([0.0, 0.001, 0.05]))
    def acknowledge(self, side: int, elapsed_s: float) -> None:
        self.now += elapsed_s
        sender = self.sides[side]
        if sender.connection and (alone := sender.window.acknowledgement(self.now)):
            sender.wire.append(on_the_wire(alone))

    @rule(side=st.integers(0, 1), count=st.integers(1, 4))
    def arrive(self, side: int, count: int) -> None:
        sender, receiver = self.sides[side], self.sides[1 - side]
        for _ in range(min(count, len(sender.wire)) if self.connected else 0):
            arrived = sender.wire.popleft()
            if receiver.window.accept(arrived, self.now) and arrived.header.kind == DATA:
                receiver.received.append(arrived.header.call_id)

    @rule()
    def the_connection_breaks(self) -> None:
        for side in self.sides:
            side.connection = 0
            side.wire.clear()

    @rule(opener=st.integers(0, 1))
    def a_connection_is_made(self, opener: int) -> None:
        one, other = self.sides[opener], self.sides[1 - opener]
        told = hello_of(one.window)
        accepted = self.read_hello(opener, told)
        assert hello_of(one.window) == told
        opened = one.attach(other.connection, hello_of(other.window), opened_here=True)
        assert (opened and accepted) or self.may_begin_anew
        self.may_begin_anew = False
        assert one.window.peer_session_id == other.window.session_id
        assert other.window.peer_session_id == one.window.session_id

    @rule(opener=st.integers(0, 1))
    def the_answer_is_lost(self, opener: int) -> None:
        self.read_hello(opener, hello_of(self.sides[opener].window))

    def read_hello(self, opener: int, hello: SessionHello) -> bool:
        self.the_connection_breaks()
        self.next_connection += 1
        return self.sides[1 - opener].attach(self.next_connection, hello, opened_here=False)

    @precondition(lambda self: len(self.late) < 3)
    @rule(opener=st.integers(0, 1))
    def a_hello_is_under_way(self, opener: int) -> None:
        self.late.append((opener, hello_of(self.sides[opener].window)))

    @precondition(lambda self: self.late)
    @rule(data=st.data())
    def a_late_hello_is_read(self, data: st.DataObject) -> None:
        self.may_begin_anew = True
        self.read_hello(*self.late.pop(data.draw(st.integers(0, len(self.late) - 1))))

    @rule(side=st.integers(0, 1))
    def one_side_restarts(self, side: int) -> None:
        self.may_begin_anew = True
        self.the_connection_breaks()
        self.sides[side] = self.side()

    @invariant()
    def what_arrived_is_what_was_sent_once_and_in_order(self) -> None:
        if self.connected:
            for sender, receiver in (self.sides, self.sides[::-1]):
                assert receiver.received == sender.sent[: len(receiver.received)]

    def teardown(self) -> None:
        """Everything arrives once there is a connection that lasts, and then nothing is kept."""
        self.a_connection_is_made(0)
        for side in (0, 1):
            while again := self.sides[side].window.next_replay():
                self.sides[side].wire.append(on_the_wire(again))
            self.arrive(side, len(self.sides[side].wire))
        self.now += 1.0
        for side in (0, 1):
            self.acknowledge(side, 0.0)
            self.arrive(side, 1)
        for sender, receiver in (self.sides, self.sides[::-1]):
            assert receiver.received == sender.sent
            assert not sender.window._sent
            assert sender.window._unacknowledged_bytes == 0
            assert sender.window._unacknowledged_bulk_bytes == 0


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
