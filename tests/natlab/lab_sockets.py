"""Sockets of the lab's hosts in the process of the tests, and what arrives at them."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from nat_lab.namespaces import entered

# There is one lab on a machine; other tests may have it for a minute.
WAIT_FOR_LAB_S = 180.0
# What passes is there in milliseconds; so long a broken lab is waited for.
PASSES_WITHIN_S = 10.0
BYTES_MAX = 64


class Sockets:
    """Opens sockets on hosts, and closes them when it ends."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def udp(self, host: str, port: int = 0) -> socket.socket:
        return self._open(host, socket.SOCK_DGRAM, port)

    def tcp(self, host: str, port: int = 0) -> socket.socket:
        made = self._open(host, socket.SOCK_STREAM, port)
        # Closed without a trace, so that tests after this may use the port.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return made

    def listening(self, host: str, port: int) -> socket.socket:
        made = self.tcp(host, port)
        made.listen(8)
        return made

    def _open(self, host: str, kind: socket.SocketKind, port: int) -> socket.socket:
        with entered(host):
            made = self._stack.enter_context(socket.socket(socket.AF_INET, kind))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("", port))
        made.settimeout(PASSES_WITHIN_S)
        return made


@contextmanager
def opened_sockets() -> Iterator[Sockets]:
    with ExitStack() as stack:
        yield Sockets(stack)


def received(end: socket.socket) -> tuple[bytes, tuple[str, int]]:
    """Return the next datagram and whom it is from; it has to come."""
    data, sender = end.recvfrom(BYTES_MAX)
    return data, sender


def can_connect(dialler: socket.socket, target: tuple[str, int]) -> bool:
    """Whether a connection is accepted; TimeoutError if it is neither that, nor refused, nor known to be impossible."""
    try:
        dialler.connect(target)
    except TimeoutError:
        raise
    except OSError:
        return False
    return True


def is_silent(end: socket.socket, for_s: float) -> bool:
    """Whether nothing comes for some seconds: for what must not come at all."""
    return not select.select([end], [], [], for_s)[0]


def is_connected(dialler: socket.socket, within_s: float) -> bool:
    """Whether a socket that is connecting gets there in time."""
    writable = select.select([], [dialler], [], within_s)[1]
    return bool(writable) and dialler.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
