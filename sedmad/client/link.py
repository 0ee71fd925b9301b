"""One live socket to the daemon: many calls of many threads over it, each with its own queue of events.

A caller writes what the socket takes without waiting; one background thread reads, and writes what was left. So
nobody waits for a daemon that stands still except with a time-out of its own, and no write is ever cut in two.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import os
import select
import socket
import threading
from collections import deque
from pathlib import Path

from sedmad.errors import (
    ConfigurationInvalid,
    DaemonNotRunning,
    NotPermitted,
    PeerError,
    ProtocolViolation,
    SedmadError,
    SessionLost,
)
from sedmad.wire.calls import (
    EVENTS_MAX,
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
from sedmad.wire.frame import Buffer, FrameDecoder, encode

# A unix socket answers at once or not at all; this bounds the wait behind a full listen queue.
CONNECT_TIMEOUT_S = 5.0
READ_BYTES = 256 << 10
# A wide frame is a header and a payload: this many pieces leave with one system call.
PIECES_PER_WRITE = 16


class Mailbox:
    """What has arrived for one call. The link's lock guards it; one thread waits on it."""

    __slots__ = ("arrived", "changed", "error")

    def __init__(self, lock: threading.Lock) -> None:
        self.changed = threading.Condition(lock)
        self.arrived: deque[ResponseData | ResponseReceived] = deque()
        self.error: SedmadError | None = None


class Link:
    """A connected socket and the calls under way on it; dead for good after the first error.

    Args:
        path: the daemon's control socket.

    Raises:
        DaemonNotRunning: nobody listens there.
        NotPermitted: the socket belongs to somebody else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # A child that was forked shares the socket but has no thread that reads it.
        self.process_id = os.getpid()
        self.lock = threading.Lock()
        self.calls = Calls()
        self.failure: SedmadError | None = None
        self._mailboxes: dict[int, Mailbox] = {}
        self._unsent: deque[memoryview] = deque()
        self._decoder = FrameDecoder()
        self._abandoned = False
        self._socket = _connect(path)
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_sender.setblocking(False)
        threading.Thread(target=self._run, name="sedmad-link", daemon=True).start()

    def begin(
        self, method: str, message: bytes, payload: Buffer, *, remaining_ms: int, end: bool
    ) -> tuple[int, Mailbox]:
        """Start a call; return its id and where its events arrive."""
        with self.lock:
            if self.failure is not None:
                raise again(self.failure)
            mailbox = Mailbox(self.lock)
            call_id = self.calls.start(method, message, remaining_ms=remaining_ms, payload=payload, end=end)
            self._mailboxes[call_id] = mailbox
            self.flush()
        return call_id, mailbox

    def forget(self, call_id: int) -> None:
        """Give up a call: tell the daemon if it has not ended, and drop what arrived."""
        with self.lock:
            self._mailboxes.pop(call_id, None)
            self.calls.cancel(call_id)
            self.flush()

    def flush(self) -> None:
        """Send what the calls have queued as far as the socket takes it; the caller holds the lock."""
        if self.failure is not None:
            return
        try:
            for frame in self.calls.collect():
                self._unsent.extend(memoryview(piece) for piece in encode(frame))
            if self._unsent and not self._write():
                self._wake()
        except OSError as error:
            self._fail(self._lost(error))
        except BaseException:
            # Interrupted between two bytes of a frame: what follows would be misread.
            self._fail(SessionLost("the connection to the daemon was interrupted"))
            raise

    def close(self) -> None:
        """End the connection; calls under way fail with SessionLost."""
        with self.lock:
            self._fail(closed())

    def abandon(self) -> None:
        """Let the link end by itself. For finalizers, which may run while this very thread holds the lock."""
        self._abandoned = True
        self._wake()

    def _write(self) -> bool:
        """Write without waiting; return whether everything is gone."""
        while self._unsent:
            pieces = [self._unsent[index] for index in range(min(PIECES_PER_WRITE, len(self._unsent)))]
            try:
                written = self._socket.sendmsg(pieces)
            except BlockingIOError:
                return False
            while written:
                piece = self._unsent.popleft()
                if written < len(piece):
                    self._unsent.appendleft(piece[written:])
                written -= min(written, len(piece))
        return True

    def _wake(self) -> None:
        # A full pipe already holds a reason to wake, and a closed one has nobody to wake.
        with contextlib.suppress(OSError):
            self._wake_sender.send(b"\0")

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._wake_receiver, select.POLLIN)
        received = bytearray(READ_BYTES)
        view = memoryview(received)
        try:
            while self.failure is None and not self._abandoned:
                poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._unsent else 0))
                for descriptor, happened in poll.poll():
                    if descriptor == self._wake_receiver.fileno():
                        self._wake_receiver.recv(4096)
                    else:
                        self._exchange(view, happened)
        except OSError as error:
            self._fail_locked(self._lost(error))
        except PeerError as error:
            self._fail_locked(error)
        finally:
            with self.lock:
                self._fail(closed())
                self._socket.close()
                self._wake_receiver.close()
                self._wake_sender.close()

    def _exchange(self, view: memoryview, happened: int) -> None:
        if happened & select.POLLOUT:
            with self.lock:
                self.flush()
        if not happened & ~select.POLLOUT:
            return
        try:
            count = self._socket.recv_into(view)
        except BlockingIOError:
            return
        if not count:
            raise self._lost(None)
        frames = self._decoder.receive_data(view[:count])
        with self.lock:
            for frame in frames:
                self._dispatch(self.calls.receive(frame))
            self.flush()

    def _dispatch(self, event: Event | None) -> None:
        match event:
            case None | MessageReceived():
                return
            case RequestReceived() | RequestData() | CallCancelled():
                raise ProtocolViolation("the daemon called its client", why="only clients call")
        mailbox = self._mailboxes.get(event.call_id)
        if mailbox is None:
            return
        if isinstance(event, ResponseReceived):
            del self._mailboxes[event.call_id]
        if len(mailbox.arrived) >= EVENTS_MAX:
            raise ProtocolViolation(
                "the daemon sent more than its client can take", why=f"{EVENTS_MAX} messages wait"
            )
        if not isinstance(event, CreditReceived):
            mailbox.arrived.append(event)
        mailbox.changed.notify()

    def _lost(self, error: OSError | None) -> SessionLost:
        return SessionLost(
            "the connection to the daemon ended in the middle of a call",
            why=f"{self.path}: {error.strerror if error else 'the daemon closed it'}",
            hint="See whether the daemon still runs with: sedmad status",
        )

    def _fail_locked(self, error: SedmadError) -> None:
        with self.lock:
            self._fail(error)

    def _fail(self, error: SedmadError) -> None:
        if self.failure is None:
            self.failure = error
            self._unsent.clear()
            for mailbox in self._mailboxes.values():
                mailbox.error = error
                mailbox.changed.notify()
            self._mailboxes.clear()
            self._wake()


def closed() -> SessionLost:
    """Return what calls under way are told when their connection is closed here."""
    return SessionLost("the connection to the daemon was closed in the middle of a call")


def again(error: SedmadError) -> SedmadError:
    """Return an equal error to raise: one object raised in two threads would share its traceback."""
    return copy.copy(error)


def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(CONNECT_TIMEOUT_S)
    try:
        connection.connect(os.fspath(path))
    except OSError as error:
        connection.close()
        # "AF_UNIX path too long" comes from Python itself and has no number.
        if error.errno is None and not isinstance(error, TimeoutError):
            raise ConfigurationInvalid(f"{path} cannot be the path of a socket", why=str(error)) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise NotPermitted(
                f"the daemon's socket {path} may not be opened",
                why=error.strerror or str(error),
                hint="It belongs to the user who started the daemon: ask as that user.",
            ) from error
        raise DaemonNotRunning(f"no daemon answers at {path}", why=error.strerror or str(error)) from error
    connection.setblocking(False)
    return connection
