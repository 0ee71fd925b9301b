"""A stream to a peer, as the rest of the node sees it: bytes both ways, and no libp2p."""

from __future__ import annotations

from collections.abc import Sequence

import trio
from libp2p.stream_muxer.exceptions import MuxedStreamError

from sedmad.errors import NodeUnreachable
from sedmad.net.yamux_stream import YamuxStream
from sedmad.wire.frame import Buffer

# The other side has ended its direction by then, or its rest is not wanted.
CLOSE_S = 5.0
READ_BYTES = 64 << 10


class ByteStream:
    """An authenticated, encrypted stream. One task reads and one writes at a time.

    Attributes:
        remote_peer_id: who is at the other end, as the connection's handshake proved.
        path: how the bytes go: `direct`.
    """

    def __init__(self, stream: YamuxStream, remote_peer_id: str) -> None:
        self._stream = stream
        self.remote_peer_id = remote_peer_id
        self.path = "direct"

    async def receive_some(self, max_bytes: int = READ_BYTES) -> bytes:
        """Return what has arrived, 1 to `max_bytes` bytes; b"" once the peer has ended its direction.

        Raises:
            NodeUnreachable: the peer reset the stream, or the connection broke. What arrived before is
                returned first.
        """
        try:
            return await self._stream.receive_some(max_bytes)
        except MuxedStreamError as error:
            raise self._broken(error) from error

    async def send_all(self, data: Buffer | Sequence[Buffer]) -> None:
        """Send one buffer, or several one after another, which must not change meanwhile.

        A cancelled or failed send resets the stream: nobody knows how much of it went.

        Raises:
            NodeUnreachable: the stream or the connection broke, or the peer took nothing for half a minute.
        """
        pieces = [data] if isinstance(data, bytes | bytearray | memoryview) else data
        sent = False
        try:
            await self._stream.send(pieces)
            sent = True
        except MuxedStreamError as error:
            raise self._broken(error) from error
        finally:
            if not sent:
                self._stream.abort()

    def send_now(self, pieces: Sequence[Buffer]) -> bool:
        """Send buffers one after another without waiting. False: that cannot be done now, and nothing was sent.

        Raises:
            NodeUnreachable: as for `send_all`; the stream is reset then.
        """
        try:
            return self._stream.send_now(pieces)
        except MuxedStreamError as error:
            self._stream.abort()
            raise self._broken(error) from error

    async def close(self) -> None:
        """End this direction, then wait shortly for the peer to end its own; reset the stream if it does not."""
        try:
            self._stream.end()
            with trio.move_on_after(CLOSE_S):
                await self._stream.wait_for_end()
        finally:
            self._stream.abort()

    async def reset(self) -> None:
        """Give up both directions now; nothing happens where both have ended."""
        self._stream.abort()

    def _broken(self, error: MuxedStreamError) -> NodeUnreachable:
        return NodeUnreachable(
            f"the stream to {self.remote_peer_id} broke", why=str(error), node=self.remote_peer_id
        )
