"""Runs the handlers of the other side's calls, so many at once; each ends in an answer or a typed error."""

from __future__ import annotations

from collections.abc import Callable

import structlog
import trio
from google.protobuf.message import DecodeError, Message

from sedmad.errors import (
    DeadlineExceeded,
    LocalError,
    NotPermitted,
    Overloaded,
    ProtocolViolation,
    SedmadError,
    first_known,
)
from sedmad.net.calls import IncomingCall
from sedmad.wire.calls import CALLS_MAX
from sedmad.wire.methods import Method, MethodTable

log = structlog.get_logger("sedmad.net")


class Handlers:
    """The handlers of one channel.

    Args:
        methods: what may be asked.
        remote: peer id of the asker, for the log.
        on_ended: called with a call and the error to answer with; None where the handler has responded.
    """

    def __init__(
        self,
        methods: MethodTable,
        remote: str,
        on_ended: Callable[[IncomingCall, SedmadError | None], None],
    ) -> None:
        self._methods = methods
        self._remote = remote
        self._on_ended = on_ended
        self._nursery: trio.Nursery | None = None
        # Calls that arrived before `serve`; as many as may run.
        self._waiting: list[tuple[IncomingCall, bytes]] = []

    async def serve(self) -> None:
        """Run handlers until cancelled."""
        async with trio.open_nursery() as nursery:
            for call, encoded in self._waiting:
                nursery.start_soon(self._handle, call, encoded)
            self._waiting.clear()
            self._nursery = nursery
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def begin(self, call: IncomingCall, encoded: bytes) -> None:
        """Start a call's handler with its encoded request."""
        # A handler may outlive its call, cancelled while a thread works for it: it still counts.
        running = len(self._nursery.child_tasks) if self._nursery else len(self._waiting)
        if running >= CALLS_MAX:
            self._on_ended(call, Overloaded("too many calls at once", why=f"at most {CALLS_MAX} may run"))
        elif self._nursery is not None:
            self._nursery.start_soon(self._handle, call, encoded)
        else:
            self._waiting.append((call, encoded))

    async def _handle(self, call: IncomingCall, encoded: bytes) -> None:
        error: SedmadError | None = None
        verb = call.method.rpartition("/")[2][:100]
        try:
            with call.scope:
                await self._answer(call, encoded)
            if call.scope.cancelled_caught:
                error = DeadlineExceeded(f"{verb} had no answer in time", why="it was still under way")
        except* SedmadError as group:
            error = first_known(group)
        except* Exception as group:
            # The last resort: a bug in a handler is told to the asker and the log, and ends nothing else.
            log.exception("handler_failed", method=verb, remote=self._remote)
            error = error or LocalError(f"{verb} failed", why=_first_line(group))
        self._on_ended(call, error)

    async def _answer(self, call: IncomingCall, encoded: bytes) -> None:
        method = self._methods.get(call.method)
        if method is None:
            raise NotPermitted(f"there is no method {call.method[:100]!r} here")
        await call.respond(await method.handler(_parse(method, encoded), call))


def _first_line(group: BaseExceptionGroup[BaseException]) -> str:
    """Return what went wrong first, in a line."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


def _parse(method: Method, encoded: bytes) -> Message:
    request = method.request_class()
    try:
        request.ParseFromString(encoded)
    except DecodeError as error:
        raise ProtocolViolation("the request is malformed", why=str(error)) from error
    return request
