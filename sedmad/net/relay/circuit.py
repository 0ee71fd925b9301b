"""Copies between two streams as long as it may, holding back whichever side is faster than the other."""

from __future__ import annotations

import trio

from sedmad.errors import NodeUnreachable, first_known
from sedmad.net.relay.limits import CircuitLimit
from sedmad.net.stream import ByteStream

# What a fast side may be ahead of a slow one, in each direction: 10 MB/s over 50 ms.
UNREAD_BYTES_MAX = 512 << 10
COPY_BYTES = 64 << 10
# Sessions probe each other once a second, and whatever else is silent for so long has gone.
IDLE_S = 120.0


class Circuit:
    """What a relay carries between two peers.

    Args:
        streams: to the two.
        limit: when it ends.

    Attributes:
        copied_bytes: both ways.
    """

    def __init__(self, streams: tuple[ByteStream, ByteStream], limit: CircuitLimit | None) -> None:
        self._streams = streams
        self._limit = limit or CircuitLimit()
        self.copied_bytes = 0

    async def run(self) -> str:
        """Copy until both sides have ended, or one broke, or the limit is reached; return why it is over."""
        seconds = float("inf") if self._limit.seconds is None else self._limit.seconds
        one, other = self._streams
        why = "both sides ended it"
        try:
            with trio.move_on_after(seconds) as duration:
                async with trio.open_nursery() as watching:
                    watching.start_soon(self._wait_for_silence)
                    async with trio.open_nursery() as copying:
                        copying.start_soon(self._copy, one, other)
                        copying.start_soon(self._copy, other, one)
                    watching.cancel_scope.cancel()
            if duration.cancelled_caught:
                why = "its time is over"
        except* NodeUnreachable as group:
            if error := first_known(group):
                why = error.why or error.what
        finally:
            for stream in self._streams:
                stream.abort()
        return why

    async def _copy(self, source: ByteStream, target: ByteStream) -> None:
        source.bound_unread(UNREAD_BYTES_MAX)
        left_bytes = float("inf") if self._limit.bytes is None else self._limit.bytes
        while data := await source.receive_some(COPY_BYTES):
            left_bytes -= len(data)
            if left_bytes < 0:
                raise NodeUnreachable("the circuit's bytes are used up")
            if not target.send_now([data]):
                await target.send_all(data)
            self.copied_bytes += len(data)
        target.end()

    async def _wait_for_silence(self) -> None:
        before = -1
        while before != self.copied_bytes:
            before = self.copied_bytes
            await trio.sleep(IDLE_S)
        raise NodeUnreachable("neither side said anything", why=f"for {IDLE_S:g} s")
