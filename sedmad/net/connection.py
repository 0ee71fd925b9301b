"""A connection to a peer: what it goes over, and streams on this very one where there are several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import trio
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.security.noise.exceptions import PeerIDMismatchesPubkey

from sedmad.errors import NodeUnreachable
from sedmad.net.pipe import PathKind
from sedmad.net.stream import ByteStream
from sedmad.net.yamux_stream import YamuxStream


@dataclass(frozen=True, slots=True)
class Connection:
    """An authenticated, encrypted connection. Two of these are equal where they are the same one.

    Args:
        swarm_connection: libp2p's, which stays in this room.
    """

    swarm_connection: Any

    @property
    def peer_id(self) -> str:
        """Who is at the other end."""
        return str(self.swarm_connection.muxed_conn.peer_id)

    @property
    def path(self) -> PathKind:
        """How its bytes go."""
        path: PathKind = self.swarm_connection.muxed_conn.pipe.path
        return path

    @property
    def remote_address(self) -> str:
        """The other end's multiaddress; through a relay, a circuit's."""
        return str(self.swarm_connection.muxed_conn.pipe.remote_address)

    @property
    def is_limited(self) -> bool:
        """Whether a relay said that it ends it after some time or bytes."""
        return bool(self.swarm_connection.muxed_conn.pipe.is_limited)

    @property
    def is_open(self) -> bool:
        """Whether streams can be opened, as far as this side knows."""
        return not (self.swarm_connection.is_closed or self.swarm_connection.muxed_conn.is_closed)

    async def open_stream(self, protocol: str, timeout_s: float) -> ByteStream:
        """Open a stream on this connection.

        A relayed connection that does not answer in time is closed: the relay may have gone silent, and only
        another circuit would tell.

        Raises:
            NodeUnreachable: the peer does not serve the protocol, or does not answer in time.
        """
        what = f"cannot open a {protocol} stream to {self.peer_id}"
        stream: YamuxStream | None = None
        agreed = False
        try:
            with trio.fail_after(timeout_s):
                stream = await self.swarm_connection.muxed_conn.open_stream()
                communicator = MultiselectCommunicator(stream)
                # Its own time-out is longer than ours, so that ours decides.
                await MultiselectClient().select_one_of(
                    [TProtocol(protocol)], communicator, int(timeout_s) + 2
                )
                agreed = True
        except trio.TooSlowError:
            if self.path is PathKind.RELAYED:
                await self.close()
            raise NodeUnreachable(what, why=f"no answer within {timeout_s:g} s", node=self.peer_id) from None
        except (BaseLibp2pError, UnicodeDecodeError) as error:
            raise NodeUnreachable(what, why=root_cause(error), node=self.peer_id) from error
        finally:
            if stream is not None and not agreed:
                stream.abort()
        return ByteStream(stream, self.peer_id)

    async def close(self) -> None:
        """Close it; streams that are open break. Done in half a second, cancelled or not: libp2p tells nobody of a
        connection whose closing was cut short.
        """
        with trio.CancelScope(shield=True):
            await self.swarm_connection.close()


def root_cause(error: BaseException) -> str:
    """Return in a line what libp2p wrapped in errors of its own."""
    while error.__cause__ is not None:
        error = error.__cause__
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
    if isinstance(error, PeerIDMismatchesPubkey):
        return "another node answers there"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
