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
        path: how the bytes go: `direct`, `punched`, `webrtc` or `relayed`.
        remote_address: the other end's multiaddress, "" where it is not known; through a relay, a circuit's.
    """

    def __init__(self, stream: YamuxStream, remote_peer_id: str) -> None:
        self._stream = stream
        self.remote_peer_id = remote_peer_id
        self.path = str(stream.muxed_conn.pipe.path)
        self.remote_address = stream.muxed_conn.pipe.remote_address

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

    async def send_some(self, data: memoryview) -> int:
        """Send the beginning of `data`, at least a byte; return how many bytes went; where cancelled, none did.

        Raises:
            NodeUnreachable: as for `send_all`.
        """
        try:
            return await self._stream.send_some(data)
        except MuxedStreamError as error:
            raise self._broken(error) from error

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

    def send_some_now(self, data: memoryview) -> int:
        """Send the beginning of `data` without waiting; return how many bytes went, which may be none.

        Raises:
            NodeUnreachable: as for `send_all`.
        """
        try:
            return self._stream.send_some_now(data)
        except MuxedStreamError as error:
            raise self._broken(error) from error

    def bound_unread(self, max_bytes: int) -> None:
        """Let no more than this arrive unread, rather than what a fast reader is granted; at least 256 KiB may."""
        self._stream.window_bytes_max = max_bytes

    def end(self) -> None:
        """End this direction after what was sent; the other one goes on."""
        self._stream.end()

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
        self.abort()

    def abort(self) -> None:
        """Do what `reset` does, from where nothing can be awaited."""
        self._stream.abort()

    def _broken(self, error: MuxedStreamError) -> NodeUnreachable:
        return NodeUnreachable(
            f"the stream to {self.remote_peer_id} broke", why=str(error), node=self.remote_peer_id
        )
