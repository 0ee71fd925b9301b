"""A session above connections: frames are numbered, acknowledged, and sent again over the next connection.

Sans-IO. While both sides remember each other, every numbered frame arrives once and in order, however many
connections that takes. When one side has forgotten, both begin anew and the calls under way fail with
SessionLost; what they asked is asked again above, where requests have ids of their own.

How both sides always agree, although any hello may be lost or late: the side that opened a connection says
its hello first; the other decides by it (`attach`) and only then answers. Where it begins anew it takes a new
session id, so the answer's id alone tells the opener what was decided, and a pair of ids never stands for two
different numberings.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from sedmad.errors import ProtocolViolation
from sedmad.wire.frame import Frame, Priority
from sedmad.wire.messages import FrameHeader, FrameKind, SessionHello
from sedmad.wire.pacing import BulkWindow

# What may be lost with a connection and must be kept: two panels each way and a full bulk window.
UNACKNOWLEDGED_BYTES_MAX = 32 << 20
UNACKNOWLEDGED_FRAMES_MAX = 8192
# Acknowledgements ride on frames that are sent anyway; alone they go after this many bytes or this long.
ACKNOWLEDGE_BYTES = 128 << 10
ACKNOWLEDGE_AFTER_S = 0.02
SESSION_ID_MAX = 2**64 - 1


@dataclass(slots=True)
class _Sent:
    frame: Frame
    # None once it was sent again: nobody knows then which of the two an acknowledgement means (Karn's
    # algorithm).
    sent_at: float | None


class ResendWindow:
    """Numbers the frames of one session, from this side.

    Args:
        session_id: random and not 0, new for every object.

    Attributes:
        session_id: this side's; changes where this side begins anew.
        peer_session_id: the other side's as last seen; 0 if never.
        received_sequence: every frame up to this one has arrived here.
        window: paces bulk over the present connection.
        sent_bytes: payload written for the first time.
        resent_bytes: payload written again.
    """

    def __init__(self, session_id: int) -> None:
        self.session_id = session_id
        self.peer_session_id = 0
        self.received_sequence = 0
        self.window = BulkWindow()
        self.resent_bytes = 0
        self.sent_bytes = 0
        self._next_sequence = 1
        self._sent: deque[_Sent] = deque()
        self._unacknowledged_bytes = 0
        self._unacknowledged_bulk_bytes = 0
        self._replay: deque[_Sent] = deque()
        self._untold_bytes = 0
        self._tell_at: float | None = None

    def allowed(self) -> Priority:
        """Return the last priority that may be sent now; probes always may, as they are not kept."""
        if (
            self._replay
            or self._unacknowledged_bytes >= UNACKNOWLEDGED_BYTES_MAX
            or len(self._sent) >= UNACKNOWLEDGED_FRAMES_MAX
        ):
            return Priority.PROBE
        return Priority.BULK if self.window.allows(self._unacknowledged_bulk_bytes) else Priority.PRODUCT

    @property
    def bulk_payload_bytes_max(self) -> int:
        """How long a frame of bulk may be on the present connection."""
        return self.window.payload_bytes_max

    def attach(self, hello: SessionHello, *, opened_here: bool) -> bool:
        """Begin to use a new connection on the other side's hello.

        The side that did not open the connection attaches before it writes its own hello. The side that
        opened it attaches on the answer, and only where it has not attached to another connection since its
        hello.

        Returns:
            False where one side has forgotten what it knew of this session: both begin anew, and every call
                under way is lost. True where it goes on, or begins for the first time.

        Raises:
            ProtocolViolation: the other side acknowledges what was never sent. Nothing has changed.
        """
        known = self.peer_session_id in (0, hello.session_id)
        remembered = hello.peer_session_id == self.session_id
        # Whoever answered went on or took a new id. Whoever opened may have missed our last answer: then it
        # will begin at the first frame, which is where we still are unless something has gone to and fro.
        goes_on = known and (opened_here or remembered or self.peer_session_id == 0 or self._is_untouched)
        if goes_on and remembered:
            self._acknowledge(hello.received_sequence, None)
        elif not goes_on:
            self._begin_anew()
            if not opened_here:
                self.session_id = self.session_id % SESSION_ID_MAX + 1
        self.peer_session_id = hello.session_id
        for sent in self._sent:
            sent.sent_at = None
        self._replay = deque(self._sent)
        self._untold_bytes = 0
        self._tell_at = None
        # The connection may go another way than the last.
        self.window = BulkWindow()
        return goes_on

    @property
    def _is_untouched(self) -> bool:
        return self.received_sequence == 0 and self._acknowledged_up_to() == 0

    def _begin_anew(self) -> None:
        self.received_sequence = 0
        self._next_sequence = 1
        self._sent.clear()
        self._unacknowledged_bytes = self._unacknowledged_bulk_bytes = 0

    def next_replay(self) -> Frame | None:
        """Return the next frame to send again after `attach`, before anything new but probes."""
        while self._replay:
            frame = self._replay.popleft().frame
            if frame.header.sequence > self._acknowledged_up_to():
                self.resent_bytes += len(frame.payload)
                return self._stamp_acknowledgement(frame)
        return None

    def stamp(self, frame: Frame, now: float) -> Frame:
        """Number a frame that is about to be written, and keep it until it is acknowledged.

        One-way messages are not numbered: a probe of yesterday is of no use.
        """
        if frame.header.kind != FrameKind.FRAME_KIND_MESSAGE:
            assert not self._replay, "numbered in front of what is sent again"
            frame.header.sequence = self._next_sequence
            self._next_sequence += 1
            self._sent.append(_Sent(frame, now))
            self._unacknowledged_bytes += frame.size_bytes
            self.sent_bytes += len(frame.payload)
            if frame.priority is Priority.BULK:
                self._unacknowledged_bulk_bytes += frame.size_bytes
        return self._stamp_acknowledgement(frame)

    def accept(self, frame: Frame, now: float) -> bool:
        """Take note of a frame that arrived. Return whether it is news: False for a repeated one and a bare
        ACK.

        Raises:
            ProtocolViolation: frames are missing, or the other side acknowledges what was never sent.
        """
        header = frame.header
        self._acknowledge(header.acknowledged, now)
        if header.kind == FrameKind.FRAME_KIND_ACK:
            return False
        if header.kind == FrameKind.FRAME_KIND_MESSAGE:
            return True
        if not 1 <= header.sequence <= self.received_sequence + 1:
            raise ProtocolViolation(
                "the peer left out frames",
                why=f"expected {self.received_sequence + 1}, got {header.sequence}",
            )
        news = header.sequence > self.received_sequence
        if news:
            self.received_sequence = header.sequence
            self._untold_bytes += frame.size_bytes
        if self._untold_bytes >= ACKNOWLEDGE_BYTES:
            self._tell_at = now
        elif self._tell_at is None:
            self._tell_at = now + ACKNOWLEDGE_AFTER_S
        return news

    def next_timeout(self) -> float | None:
        """Return when `acknowledgement` has something to say, or None."""
        return self._tell_at

    def acknowledgement(self, now: float) -> Frame | None:
        """Return a bare ACK where one is due."""
        if self._tell_at is None or now < self._tell_at:
            return None
        return self._stamp_acknowledgement(Frame(FrameHeader(kind=FrameKind.FRAME_KIND_ACK)))

    def _stamp_acknowledgement(self, frame: Frame) -> Frame:
        frame.header.acknowledged = self.received_sequence
        self._untold_bytes = 0
        self._tell_at = None
        return frame

    def _acknowledged_up_to(self) -> int:
        return self._sent[0].frame.header.sequence - 1 if self._sent else self._next_sequence - 1

    def _acknowledge(self, sequence: int, now: float | None) -> None:
        if sequence >= self._next_sequence:
            raise ProtocolViolation("the peer acknowledged frames that were never sent")
        while self._sent and self._sent[0].frame.header.sequence <= sequence:
            sent = self._sent.popleft()
            self._unacknowledged_bytes -= sent.frame.size_bytes
            if sent.frame.priority is not Priority.BULK:
                continue
            if now is not None and sent.sent_at is not None:
                self.window.acknowledged(
                    sent.frame.size_bytes,
                    now - sent.sent_at,
                    now,
                    under_way_bytes=self._unacknowledged_bulk_bytes,
                )
            self._unacknowledged_bulk_bytes -= sent.frame.size_bytes
