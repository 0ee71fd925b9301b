"""One question in a UDP datagram and its answer: when to ask again, what to ignore, when to give up.

Knows no protocol: NAT-PMP and STUN bring their requests, their waits and a way to recognise the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import trio

Answer = TypeVar("Answer")

# Nothing that is asked for here is larger; a longer datagram is cut, and then not recognised.
DATAGRAM_BYTES_MAX = 2048
# An honest network duplicates an answer a few times. Whoever sends this much else is not worth reading on.
STRAYS_MAX = 64

# What a socket calls the sender: (host, port), with more for IPv6.
SocketAddress = tuple[Any, ...]


class Exchange(Generic[Answer]):
    """Decides when a request is sent and when it is over; reads no clock and no socket.

    Args:
        request: the datagram to send.
        waits_s: seconds to wait after each sending; there are as many sendings as waits.
        read: returns the answer that a datagram from a sender holds, or None where it is something else.
        now: when this begins; the first sending is due at once.

    Attributes:
        answer: what came, None until then.
    """

    def __init__(
        self,
        request: bytes,
        waits_s: Sequence[float],
        read: Callable[[bytes, SocketAddress], Answer | None],
        now: float,
    ) -> None:
        self.answer: Answer | None = None
        self._request = request
        self._waits_s = tuple(waits_s)
        self._read = read
        self._sent = 0
        self._strays = 0
        self._due_at = now

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` is due, None once there is an answer or nothing more to wait for."""
        over = self.answer is not None or self._strays > STRAYS_MAX or self._sent > len(self._waits_s)
        return None if over else self._due_at

    def handle_timeout(self, now: float) -> bytes | None:
        """Return the datagram to send now, None where it is not time yet or all waiting is over."""
        if self.next_timeout() is None or now < self._due_at:
            return None
        self._sent += 1
        if self._sent > len(self._waits_s):
            return None
        self._due_at = now + self._waits_s[self._sent - 1]
        return self._request

    def receive(self, datagram: bytes, sender: SocketAddress) -> None:
        """Take a datagram that came; what is no answer is counted and ignored."""
        answer = self._read(datagram, sender)
        if answer is None:
            self._strays += 1
        elif self.answer is None:
            self.answer = answer


async def ask(
    socket: trio.socket.SocketType, exchange: Exchange[Answer], destination: SocketAddress | None = None
) -> Answer | None:
    """Carry an exchange out over a UDP socket and return its answer, None where none came.

    Args:
        socket: connected, or used by nobody else meanwhile.
        exchange: a fresh one.
        destination: where to send, on a socket that is not connected.

    Raises:
        OSError: the other side's machine said that nobody listens, or there is no way to it.
    """
    while (due_at := exchange.next_timeout()) is not None:
        if (datagram := exchange.handle_timeout(trio.current_time())) is not None:
            await (socket.send(datagram) if destination is None else socket.sendto(datagram, destination))
        else:
            with trio.move_on_at(due_at):
                exchange.receive(*await socket.recvfrom(DATAGRAM_BYTES_MAX))
    return exchange.answer
