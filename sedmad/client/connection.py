"""The way to the daemon: makes a link, makes it anew when it died, and asks again what may be asked twice."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from sedmad.client.call import Call
from sedmad.client.joining import ProductJoiner
from sedmad.client.link import Link
from sedmad.errors import ProtocolViolation, SessionLost
from sedmad.wire.calls import ResponseReceived
from sedmad.wire.frame import Buffer

# Questions about the node are answered from its memory; what asks other nodes allows for a dead one.
TIMEOUT_S = 10.0

Response = TypeVar("Response", bound=Message)


class Connection:
    """A blocking connection that any number of threads may share.

    Args:
        path: the daemon's control socket.

    Attributes:
        products: joins those of its threads.

    Raises:
        DaemonNotRunning: nobody listens there.
        NotPermitted: the socket belongs to somebody else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.products = ProductJoiner()
        self._lock = threading.Lock()
        self._link = Link(path)

    def __del__(self) -> None:
        # The link's own thread keeps it alive: without this a forgotten connection would stay open.
        if hasattr(self, "_link"):
            self._link.abandon()

    def close(self) -> None:
        """End the connection; calls under way in other threads fail with SessionLost. A later call opens it anew."""
        self._link.close()

    def open(
        self,
        method: str,
        request: Message,
        *,
        payload: Buffer | None = b"",
        timeout_s: float | None = None,
        matrix: str = "",
    ) -> Call:
        """Begin a call, over a new link where the last one died. The arguments are those of `Call`."""
        return Call(
            self._live_link(),
            f"sedma.v1.{method}",
            request.SerializeToString(),
            payload=payload,
            timeout_s=timeout_s,
            matrix=matrix,
        )

    def call(
        self,
        method: str,
        request: Message,
        response_class: type[Response],
        *,
        timeout_s: float = TIMEOUT_S,
        matrix: str = "",
        idempotent: bool = True,
    ) -> Response:
        """Ask and wait for the answer.

        Args:
            method: "NodeService/GetStatus".
            request: the request's message.
            response_class: the class of the answer.
            timeout_s: time until the caller gives up.
            matrix: the name that errors shall tell.
            idempotent: whether to ask once more where the daemon went away in the middle.

        Raises:
            DaemonNotRunning: nobody listens on the socket.
            DeadlineExceeded: no answer in time.
            SessionLost: the daemon went away.
            SedmadError: what the daemon answered with.
        """
        try:
            return self._ask(method, request, response_class, timeout_s, matrix)
        except SessionLost:
            if not idempotent:
                raise
        return self._ask(method, request, response_class, timeout_s, matrix)

    def _ask(
        self, method: str, request: Message, response_class: type[Response], timeout_s: float, matrix: str
    ) -> Response:
        with self.open(method, request, timeout_s=timeout_s, matrix=matrix) as call:
            while not isinstance(event := call.receive(), ResponseReceived):
                call.consume(len(event.payload))
        return decoded(event.message, response_class)

    def _live_link(self) -> Link:
        with self._lock:
            if self._link.failure is not None or self._link.process_id != os.getpid():
                self._link = Link(self.path)
            return self._link


def decoded(message: bytes, response_class: type[Response]) -> Response:
    """Return the daemon's message.

    Raises:
        ProtocolViolation: it is none of this class.
    """
    response = response_class()
    try:
        response.ParseFromString(message)
    except DecodeError as error:
        raise ProtocolViolation(
            "the daemon's answer cannot be read",
            why=f"it is no {response_class.__name__}: {error}",
            hint="Do the daemon and its client have the same version?",
        ) from error
    return response
