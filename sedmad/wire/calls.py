"""Many calls over one connection: who asked what, who may send how much, what has ended.

Sans-IO, and the same on both sides of a control socket and of a session: `receive` takes a frame and returns
an event, the verbs (`start`, `send_request`, `send_response`, `respond`, `cancel`, `consume`) queue frames
that `collect` gives to the driver. Ids chosen here and ids chosen by the other side never meet: kinds of
frames tell them apart.

Rule 1: per call and direction a side sends at most CREDIT_BYTES of payload that the other has not consumed,
so nobody buffers more than CALLS_MAX * CREDIT_BYTES, and in practice one panel per call. Messages on the way
cost
no credit: whoever queues events bounds their number (EVENTS_MAX).
Rule 2: after RESPONSE or CANCEL the call is forgotten; frames for forgotten calls are dropped in silence,
because the two sides end a call at different moments.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sedmad.errors import LocalError, Overloaded, ProtocolViolation
from sedmad.wire.events import (
    CallCancelled,
    CreditReceived,
    Event,
    MessageReceived,
    RequestData,
    RequestReceived,
    ResponseData,
    ResponseReceived,
)
from sedmad.wire.frame import MESSAGE_BYTES_MAX, PAYLOAD_BYTES_MAX, Buffer, Frame, Priority
from sedmad.wire.messages import FrameHeader, FrameKind, Status
from sedmad.wire.priorities import priority_of
from sedmad.wire.status import to_status

__all__ = [
    "CALLS_MAX",
    "CREDIT_BYTES",
    "EVENTS_MAX",
    "CallCancelled",
    "Calls",
    "CreditReceived",
    "Event",
    "MessageReceived",
    "RequestData",
    "RequestReceived",
    "ResponseData",
    "ResponseReceived",
]

# A whole panel (8 MiB at most) is sent without waiting; bulk over 40 ms at 80 MB/s needs less.
CREDIT_BYTES = 8 << 20
# Joined products keep a busy peer below ten; a put of 256 partitions holds two transfers per node at once.
CALLS_MAX = 256
# Credit is returned in steps of at least this, so that small chunks do not cost a frame each.
CREDIT_STEP_BYTES = CREDIT_BYTES // 4
# Frames that wait for whoever reads a call: credit at 2 KiB a chunk, hours of progress reports.
EVENTS_MAX = CREDIT_BYTES // 2048


def _check_bounds(message: bytes, payload: Buffer) -> None:
    if len(message) > MESSAGE_BYTES_MAX:
        raise LocalError(f"a message of {len(message)} bytes is too long", why=f"at most {MESSAGE_BYTES_MAX}")
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise LocalError(f"a chunk of {len(payload)} bytes is too long", why=f"at most {PAYLOAD_BYTES_MAX}")


@dataclass(slots=True)
class _Direction:
    """Payload accounting of one call as this side sees it."""

    priority: Priority
    may_send_bytes: int = CREDIT_BYTES
    may_receive_bytes: int = CREDIT_BYTES
    consumed_bytes: int = 0
    receiving: bool = True


@dataclass(slots=True)
class Calls:
    """One side of a connection.

    Args:
        calls_max: calls that the other side may have running here at once; one more is answered with
            OVERLOADED.
    """

    calls_max: int = CALLS_MAX
    _next_call_id: int = 1
    _outgoing: dict[int, _Direction] = field(default_factory=dict)
    _incoming: dict[int, _Direction] = field(default_factory=dict)
    _frames: list[Frame] = field(default_factory=list)

    @property
    def outgoing_count(self) -> int:
        """Calls that began here and have not ended."""
        return len(self._outgoing)

    def start(
        self,
        method: str,
        message: bytes,
        *,
        remaining_ms: int = 0,
        payload: Buffer = b"",
        end: bool = True,
        traceparent: str = "",
    ) -> int:
        """Begin a call and return its id. The payload, at most one chunk, goes with the request.

        Raises:
            LocalError: the message or the payload is longer than a frame may be; so do the other verbs.
        """
        _check_bounds(message, payload)
        call_id = self._next_call_id
        self._next_call_id += 1
        priority = priority_of(method)
        self._outgoing[call_id] = _Direction(priority, CREDIT_BYTES - len(payload))
        header = FrameHeader(
            kind=FrameKind.FRAME_KIND_REQUEST,
            call_id=call_id,
            method=method,
            message=message,
            remaining_ms=remaining_ms,
            traceparent=traceparent,
        )
        self._frames.append(Frame(header, payload, end, priority))
        return call_id

    def credit(self, call_id: int, *, outgoing: bool) -> int:
        """Return how many bytes of payload may be sent on a call now; 0 also where the call has ended."""
        direction = (self._outgoing if outgoing else self._incoming).get(call_id)
        return direction.may_send_bytes if direction else 0

    def is_open(self, call_id: int, *, outgoing: bool) -> bool:
        """Whether a call has not ended."""
        return call_id in (self._outgoing if outgoing else self._incoming)

    def send_request(
        self, call_id: int, payload: Buffer, *, offset: int, end: bool = False, payload_digest: bytes = b""
    ) -> None:
        """Send a further chunk of a call that began here; the caller has seen to the credit.

        Nothing happens where the call has ended, here and in the other verbs.
        """
        _check_bounds(b"", payload)
        direction = self._outgoing.get(call_id)
        if direction is None:
            return
        direction.may_send_bytes -= len(payload)
        assert direction.may_send_bytes >= 0, "sent without credit"
        header = FrameHeader(
            kind=FrameKind.FRAME_KIND_REQUEST_DATA,
            call_id=call_id,
            offset=offset,
            payload_digest=payload_digest,
        )
        self._frames.append(Frame(header, payload, end, direction.priority))

    def cancel(self, call_id: int) -> None:
        """Give up a call that began here."""
        direction = self._outgoing.pop(call_id, None)
        if direction is not None:
            # Behind what the call has sent before, never in front of its request.
            header = FrameHeader(kind=FrameKind.FRAME_KIND_CANCEL, call_id=call_id)
            self._frames.append(Frame(header, priority=direction.priority))

    def send_response(
        self,
        call_id: int,
        message: bytes = b"",
        payload: Buffer = b"",
        *,
        offset: int = 0,
        payload_digest: bytes = b"",
    ) -> None:
        """Send a message or a chunk on the way to the response; the caller has seen to the credit."""
        _check_bounds(message, payload)
        direction = self._incoming.get(call_id)
        if direction is None:
            return
        direction.may_send_bytes -= len(payload)
        assert direction.may_send_bytes >= 0, "sent without credit"
        header = FrameHeader(
            kind=FrameKind.FRAME_KIND_RESPONSE_DATA,
            call_id=call_id,
            message=message,
            offset=offset,
            payload_digest=payload_digest,
        )
        self._frames.append(Frame(header, payload, priority=direction.priority))

    def respond(
        self,
        call_id: int,
        message: bytes = b"",
        payload: Buffer = b"",
        *,
        offset: int = 0,
        status: Status | None = None,
    ) -> None:
        """End a call of the other side. A last chunk may go with it, whatever the credit."""
        _check_bounds(message, payload)
        direction = self._incoming.pop(call_id, None)
        if direction is None:
            return
        header = FrameHeader(
            kind=FrameKind.FRAME_KIND_RESPONSE, call_id=call_id, message=message, offset=offset, status=status
        )
        self._frames.append(Frame(header, payload, priority=direction.priority))

    def send_message(self, method: str, message: bytes) -> None:
        """Send a one-way message."""
        _check_bounds(message, b"")
        self._frames.append(
            Frame(FrameHeader(kind=FrameKind.FRAME_KIND_MESSAGE, method=method, message=message))
        )

    def consume(self, call_id: int, consumed_bytes: int, *, outgoing: bool) -> None:
        """Say that received payload of a call has been used up, so that the other side may send more."""
        direction = (self._outgoing if outgoing else self._incoming).get(call_id)
        if direction is None or not direction.receiving:
            return
        direction.consumed_bytes += consumed_bytes
        if direction.consumed_bytes < CREDIT_STEP_BYTES:
            return
        direction.may_receive_bytes += direction.consumed_bytes
        kind = FrameKind.FRAME_KIND_RESPONSE_CREDIT if outgoing else FrameKind.FRAME_KIND_REQUEST_CREDIT
        header = FrameHeader(kind=kind, call_id=call_id, credit_bytes=direction.consumed_bytes)
        self._frames.append(Frame(header, priority=Priority.CREDIT))
        direction.consumed_bytes = 0

    def forget(self) -> None:
        """Drop every call without a word: the other side knows of none. Ids go on; none is used twice."""
        self._outgoing.clear()
        self._incoming.clear()
        self._frames.clear()

    def collect(self) -> list[Frame]:
        """Return the frames to send, in order, and forget them."""
        frames, self._frames = self._frames, []
        return frames

    def receive(self, frame: Frame) -> Event | None:
        """Take a frame of the other side.

        Raises:
            ProtocolViolation: the frame breaks the rules of this module. Close the connection.
        """
        header = frame.header
        match header.kind:
            case FrameKind.FRAME_KIND_REQUEST:
                return self._receive_request(frame)
            case FrameKind.FRAME_KIND_REQUEST_DATA:
                return self._receive_request_data(frame)
            case FrameKind.FRAME_KIND_RESPONSE_DATA:
                return self._receive_response_data(frame)
            case FrameKind.FRAME_KIND_RESPONSE:
                return self._receive_response(frame)
            case FrameKind.FRAME_KIND_CANCEL:
                forgotten = self._incoming.pop(header.call_id, None) is None
                return None if forgotten else CallCancelled(header.call_id)
            case FrameKind.FRAME_KIND_REQUEST_CREDIT:
                return self._receive_credit(frame, outgoing=True)
            case FrameKind.FRAME_KIND_RESPONSE_CREDIT:
                return self._receive_credit(frame, outgoing=False)
            case FrameKind.FRAME_KIND_MESSAGE:
                return MessageReceived(header.method, header.message)
        raise ProtocolViolation("the peer sent a frame that has no place here", why=f"kind {header.kind}")

    def _receive_request_data(self, frame: Frame) -> Event | None:
        header = frame.header
        direction = self._incoming.get(header.call_id)
        if direction is None:
            return None
        if not direction.receiving:
            raise ProtocolViolation("the peer sent payload after the end of its request")
        direction.receiving = not frame.end
        self._charge(direction, frame)
        return RequestData(header.call_id, header.offset, frame.payload, header.payload_digest, frame.end)

    def _receive_response_data(self, frame: Frame) -> Event | None:
        header = frame.header
        direction = self._outgoing.get(header.call_id)
        if direction is None:
            return None
        self._charge(direction, frame)
        return ResponseData(
            header.call_id, header.message, header.offset, frame.payload, header.payload_digest
        )

    def _receive_response(self, frame: Frame) -> Event | None:
        header = frame.header
        if self._outgoing.pop(header.call_id, None) is None:
            return None
        status = header.status if header.HasField("status") else None
        return ResponseReceived(
            header.call_id, header.message, header.offset, frame.payload, header.payload_digest, status
        )

    def _receive_request(self, frame: Frame) -> Event | None:
        header = frame.header
        if header.call_id in self._incoming:
            raise ProtocolViolation("the peer used a call id twice", why=f"call {header.call_id}")
        direction = _Direction(priority_of(header.method), receiving=not frame.end)
        self._incoming[header.call_id] = direction
        if len(self._incoming) > self.calls_max:
            error = Overloaded("too many calls at once", why=f"at most {self.calls_max} may run")
            self.respond(header.call_id, status=to_status(error))
            return None
        self._charge(direction, frame)
        return RequestReceived(
            header.call_id,
            header.method,
            header.message,
            header.remaining_ms,
            frame.payload,
            header.payload_digest,
            frame.end,
            header.traceparent,
        )

    def _receive_credit(self, frame: Frame, *, outgoing: bool) -> Event | None:
        direction = (self._outgoing if outgoing else self._incoming).get(frame.header.call_id)
        if direction is None:
            return None
        direction.may_send_bytes += frame.header.credit_bytes
        if direction.may_send_bytes > CREDIT_BYTES:
            raise ProtocolViolation("the peer gave more credit than there is")
        return CreditReceived(frame.header.call_id, outgoing)

    @staticmethod
    def _charge(direction: _Direction, frame: Frame) -> None:
        direction.may_receive_bytes -= len(frame.payload)
        if direction.may_receive_bytes < 0:
            raise ProtocolViolation("the peer sent more payload than it had credit for")
