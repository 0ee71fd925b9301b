"""What `Calls` says of a frame that arrived."""

from __future__ import annotations

from dataclasses import dataclass

from sedmad.wire.frame import Buffer
from sedmad.wire.messages import Status


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """The other side asks; more payload may follow as RequestData unless `end`."""

    call_id: int
    method: str
    message: bytes
    remaining_ms: int
    payload: Buffer
    payload_digest: bytes
    end: bool
    traceparent: str


@dataclass(frozen=True, slots=True)
class RequestData:
    """More of a request's payload; the last where `end`."""

    call_id: int
    offset: int
    payload: Buffer
    payload_digest: bytes
    end: bool


@dataclass(frozen=True, slots=True)
class ResponseData:
    """A message or a chunk on the way to the response."""

    call_id: int
    message: bytes
    offset: int
    payload: Buffer
    payload_digest: bytes


@dataclass(frozen=True, slots=True)
class ResponseReceived:
    """The call has ended, with success where `status` is None."""

    call_id: int
    message: bytes
    offset: int
    payload: Buffer
    payload_digest: bytes
    status: Status | None


@dataclass(frozen=True, slots=True)
class CallCancelled:
    """The other side no longer wants the answer to a call that it began."""

    call_id: int


@dataclass(frozen=True, slots=True)
class CreditReceived:
    """More payload may be sent: `outgoing` tells whether the call is one that began here."""

    call_id: int
    outgoing: bool


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A one-way message."""

    method: str
    message: bytes


Event = (
    RequestReceived
    | RequestData
    | ResponseData
    | ResponseReceived
    | CallCancelled
    | CreditReceived
    | MessageReceived
)
