"""A session above connections: frames are numbered, acknowledged, and sent again over the next connection.

Sans-IO. While both sides remember each other (`session_id`s in the hello), every numbered frame arrives once and in
order, however many connections that takes. When one side has forgotten, both begin anew and the calls under way fail
with SessionLost; what they asked is asked again above, where requests have ids of their own.
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


@dataclass(slots=True)
class _Sent:
    frame: Frame
    sent_at: float


class ResendWindow:
    """Numbers the frames of one session, from this side.

    Args:
        session_id: random and not 0, new for every object.
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

    def allowed(self) -> Priority | None:
        """Return the last priority that may be sent now; probes always may, as they are not kept."""
        if (
            self._unacknowledged_bytes >= UNACKNOWLEDGED_BYTES_MAX
            or len(self._sent) >= UNACKNOWLEDGED_FRAMES_MAX
        ):
            return Priority.PROBE
        return Priority.BULK if self.window.allows(self._unacknowledged_bulk_bytes) else Priority.PRODUCT

    def attach(self, hello: SessionHello) -> bool:
        """Begin to use a new connection after the hellos.

        Returns:
            False where the other side has forgotten what it knew of this session: both begin anew, and every call under
            way is lost. True where it goes on, or begins for the first time.

        Raises:
            ProtocolViolation: the other side acknowledges what was never sent.
        """
        first = self.peer_session_id == 0
        # 0: the other side sent its hello before, and never had our answer; it has received nothing.
        remembered = hello.session_id == self.peer_session_id and hello.peer_session_id in (
            0,
            self.session_id,
        )
        self.peer_session_id = hello.session_id
        if not (first or remembered):
            self._begin_anew()
            return False
        if hello.peer_session_id == self.session_id:
            self._acknowledge(hello.received_sequence, None)
        self._replay = deque(self._sent)
        self._untold_bytes = 0
        self._tell_at = None
        return True

    def _begin_anew(self) -> None:
        self.received_sequence = 0
        self._next_sequence = 1
        self._sent.clear()
        self._replay.clear()
        self._unacknowledged_bytes = self._unacknowledged_bulk_bytes = 0
        self._untold_bytes = 0
        self._tell_at = None

    def next_replay(self) -> Frame | None:
        """Return the next frame to send again after `attach`, before anything new."""
        while self._replay:
            sent = self._replay.popleft()
            if sent.frame.header.sequence > self._acknowledged_up_to():
                self.resent_bytes += len(sent.frame.payload)
                return self._stamp_acknowledgement(sent.frame)
        return None

    def stamp(self, frame: Frame, now: float) -> Frame:
        """Number a frame that is about to be written, and keep it until it is acknowledged. One-way messages are not
        numbered: a probe of yesterday is of no use."""
        if frame.header.kind != FrameKind.FRAME_KIND_MESSAGE:
            frame.header.sequence = self._next_sequence
            self._next_sequence += 1
            self._sent.append(_Sent(frame, now))
            self._unacknowledged_bytes += frame.size_bytes
            self.sent_bytes += len(frame.payload)
            if frame.priority is Priority.BULK:
                self._unacknowledged_bulk_bytes += frame.size_bytes
        return self._stamp_acknowledgement(frame)

    def accept(self, frame: Frame, now: float) -> bool:
        """Take note of a frame that arrived. Return whether it is news: False for a repeated one and a bare ACK.

        Raises:
            ProtocolViolation: frames are missing, or the other side acknowledges what was never sent.
        """
        header = frame.header
        self._acknowledge(header.acknowledged, now)
        if header.kind == FrameKind.FRAME_KIND_ACK:
            return False
        if header.kind == FrameKind.FRAME_KIND_MESSAGE:
            return True
        if header.sequence <= self.received_sequence:
            return False
        if header.sequence != self.received_sequence + 1:
            raise ProtocolViolation(
                "the peer left out frames",
                why=f"expected {self.received_sequence + 1}, got {header.sequence}",
            )
        self.received_sequence = header.sequence
        self._untold_bytes += len(frame.payload) + 1
        if self._untold_bytes >= ACKNOWLEDGE_BYTES:
            self._tell_at = now
        elif self._tell_at is None:
            self._tell_at = now + ACKNOWLEDGE_AFTER_S
        return True

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
            if sent.frame.priority is Priority.BULK:
                self._unacknowledged_bulk_bytes -= sent.frame.size_bytes
                if now is not None:
                    self.window.acknowledged(sent.frame.size_bytes, now - sent.sent_at, now)
