"""A connected stream socket on trio's event loop that can be written to without waiting for a turn of the loop.

trio's own sockets give up their turn at every call, which costs more than the system call that they make. Whoever
writes at once must give way by other means: `send` does, `send_now` is for what is short.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Sequence

import trio

from sedmad.wire.frame import Buffer

# What one system call takes; the kernel's own bound is 1024.
PIECES_PER_WRITE = 64


class StreamSocket:
    """A socket taken over from trio. One task reads and one writes at a time.

    Args:
        taken: connected; it must not be used any more.
    """

    def __init__(self, taken: trio.socket.SocketType) -> None:
        self._socket = socket.socket(fileno=taken.detach())
        self._socket.setblocking(False)

    async def receive_into(self, buffer: Buffer) -> int:
        """Fill the beginning of `buffer` with what there is, at least a byte; return how much, 0 at the end.

        Raises:
            OSError: the connection broke, or was closed here.
            trio.ClosedResourceError: it was closed here meanwhile.
        """
        while True:
            await trio.lowlevel.wait_readable(self._socket.fileno())
            try:
                return self._socket.recv_into(buffer)
            except BlockingIOError:
                continue

    def send_now(self, pieces: Sequence[Buffer]) -> int:
        """Send the beginning of what is given, without waiting; return how many bytes went, 0 where none could.

        Raises:
            OSError: the connection broke, or was closed here.
        """
        try:
            return self._socket.sendmsg(pieces[:PIECES_PER_WRITE])
        except BlockingIOError:
            return 0

    async def send(self, pieces: Sequence[Buffer]) -> int:
        """Send the beginning of what is given, at least a byte; where this is cancelled, nothing went.

        Raises:
            OSError: the connection broke, or was closed here.
            trio.ClosedResourceError: it was closed here meanwhile.
        """
        await trio.lowlevel.checkpoint()
        while not (sent_bytes := self.send_now(pieces)):
            await trio.lowlevel.wait_writable(self._socket.fileno())
        return sent_bytes

    def is_hung_up(self) -> bool:
        """Whether the other side has closed the connection, and not only ended its own direction."""
        poll = select.poll()
        # Nothing to wait for: hanging up is told in any case.
        poll.register(self._socket, 0)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Close at once; whoever waits is told."""
        if self._socket.fileno() != -1:
            trio.lowlevel.notify_closing(self._socket.fileno())
            self._socket.close()


def without(pieces: Sequence[Buffer], sent_bytes: int) -> list[Buffer]:
    """Return what is left of buffers when the first bytes of them were sent."""
    for index, piece in enumerate(pieces):
        if sent_bytes < len(piece):
            return [memoryview(piece)[sent_bytes:], *pieces[index + 1 :]]
        sent_bytes -= len(piece)
    return []
