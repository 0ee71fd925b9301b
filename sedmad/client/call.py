"""One call under way, as the thread that made it sees it: send under credit, receive, give up in time."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from sedmad.client.link import Link, again
from sedmad.errors import DeadlineExceeded, SedmadError, SessionLost
from sedmad.wire.calls import ResponseData, ResponseReceived
from sedmad.wire.frame import PAYLOAD_BYTES_MAX, Buffer, flat
from sedmad.wire.status import to_error

# The daemon itself answers by the deadline; this much later the client stops waiting for it.
GRACE_S = 0.25
# Streams have no deadline as a whole, but a daemon that says nothing for this long is taken for gone: it reports
# progress while it moves copies, and a disk that needs longer than this for one report is broken.
SILENCE_S = 60.0
# `remaining_ms` is 32 bits wide; nobody waits for 49 days.
TIMEOUT_S_MAX = (2**32 - 1) / 1000


class Call:
    """Made by `Connection.open`, used by one thread, in a `with` block: leaving it early cancels the call.

    Args:
        link: the connection that carries it.
        method: full name, "sedma.v1.MatrixService/PutMatrix".
        message: the encoded request.
        payload: the whole payload of the request, or None where `send` follows.
        timeout_s: time until the caller gives up; None for streams, which are bounded by silence instead.
        matrix: the name that errors shall tell.
    """

    def __init__(
        self,
        link: Link,
        method: str,
        message: bytes,
        *,
        payload: Buffer | None = b"",
        timeout_s: float | None = None,
        matrix: str = "",
    ) -> None:
        self._link = link
        self._method = method
        self._matrix = matrix
        self._timeout_s = None if timeout_s is None else min(timeout_s, TIMEOUT_S_MAX)
        self._deadline = None if self._timeout_s is None else time.monotonic() + self._timeout_s + GRACE_S
        whole = flat(b"" if payload is None else payload)
        first = whole[:PAYLOAD_BYTES_MAX]
        self._call_id, self._mailbox = link.begin(
            method,
            message,
            first,
            remaining_ms=0 if self._timeout_s is None else max(1, int(self._timeout_s * 1000)),
            end=payload is not None and len(first) == len(whole),
        )
        self._sent_bytes = len(first)
        try:
            self._send_rest(whole)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Call:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Cancel the call if it has not ended."""
        self._link.forget(self._call_id)

    def send(self, payload: Buffer, *, end: bool = False) -> bool:
        """Send one chunk, waiting for credit.

        Args:
            payload: at most 1 MiB, unchanged until the call has ended.
            end: whether it is the last.

        Returns:
            False, and nothing is sent, where the daemon has said something: `receive` it first.
        """
        calls = self._link.calls
        view = flat(payload)
        with self._link.lock:
            self._wait(lambda: calls.credit(self._call_id, outgoing=True) >= len(view))
            if self._mailbox.arrived:
                return False
            calls.send_request(self._call_id, view, offset=self._sent_bytes, end=end)
            self._sent_bytes += len(view)
            self._link.flush()
        return True

    def receive(self) -> ResponseData | ResponseReceived:
        """Return the next thing that the daemon says; a ResponseReceived is the last.

        Raises:
            DeadlineExceeded: the time is up.
            SessionLost: the daemon is gone, or silent.
            SedmadError: what the daemon answered with.
        """
        with self._link.lock:
            self._wait(lambda: False)
            event = self._mailbox.arrived.popleft()
        if isinstance(event, ResponseReceived) and event.status is not None:
            raise to_error(event.status)
        return event

    def consume(self, consumed_bytes: int) -> None:
        """Say that received payload was used up, so that the daemon sends more."""
        with self._link.lock:
            self._link.calls.consume(self._call_id, consumed_bytes, outgoing=True)
            self._link.flush()

    def _send_rest(self, whole: memoryview) -> None:
        while self._sent_bytes < len(whole):
            chunk = whole[self._sent_bytes : self._sent_bytes + PAYLOAD_BYTES_MAX]
            if not self.send(chunk, end=self._sent_bytes + len(chunk) == len(whole)):
                # An answer before the question is complete is a refusal; `receive` tells it.
                return

    def _wait(self, ready: Callable[[], bool]) -> None:
        """Wait until something has arrived or `ready`; the link's lock is held."""
        until = time.monotonic() + SILENCE_S if self._deadline is None else self._deadline
        mailbox = self._mailbox
        while not mailbox.arrived:
            if mailbox.error is not None:
                raise again(mailbox.error)
            if ready():
                return
            remaining_s = until - time.monotonic()
            if remaining_s <= 0:
                raise self._too_late()
            mailbox.changed.wait(remaining_s)

    def _too_late(self) -> SedmadError:
        verb = self._method.rpartition("/")[2]
        if self._timeout_s is None:
            return SessionLost(
                f"the daemon at {self._link.path} has fallen silent",
                why=f"{verb}: nothing was heard for {SILENCE_S:g} s",
                hint="See whether it still runs with: sedmad status",
                matrix=self._matrix,
            )
        return DeadlineExceeded(
            f"no answer within {self._timeout_s:.3g} s",
            why=f"{verb}: the daemon at {self._link.path} did not answer in time",
            matrix=self._matrix,
        )
