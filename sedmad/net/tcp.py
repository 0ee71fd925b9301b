"""TCP for libp2p's swarm: sockets whose sends survive cancellation, and a door that strangers cannot block.

What libp2p's own transport lacks: it binds with SO_REUSEPORT (two daemons would share a port unnoticed), it
never ends the task and the slot of an inbound connection that closed, and its reads are as long as a stranger
says.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import structlog
import trio
from libp2p.abc import IListener
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.transport.exceptions import OpenConnectionError
from libp2p.transport.tcp.tcp import TCP
from multiaddr import Multiaddr

from sedmad.net.pipe import PathKind, Pipe
from sedmad.net.stream_socket import StreamSocket

log = structlog.get_logger("sedmad.net")

# Connections that have not said who they are. A handshake takes milliseconds on a LAN; the oldest makes room.
UNAUTHENTICATED_MAX = 128
LISTEN_BACKLOG = 512

ConnectionHandler = Callable[[ReadWriteCloser], Awaitable[None]]


class TcpStream(Pipe):
    """One TCP connection. One task reads and one writes at a time."""

    def __init__(self, stream: trio.SocketStream, path: PathKind = PathKind.DIRECT) -> None:
        super().__init__(path)
        self._remote = _host_and_port(stream.socket)
        self._socket = StreamSocket(stream.socket)

    @property
    def remote_address(self) -> str:
        if self._remote is None:
            return ""
        host, port = self._remote
        return f"/{'ip6' if ':' in host else 'ip4'}/{host}/tcp/{port}"

    async def receive_into(self, buffer: memoryview) -> int:
        try:
            return await self._socket.receive_into(buffer)
        except trio.ClosedResourceError:
            return 0
        except OSError as error:
            raise ConnectionClosedError(str(error), transport="tcp") from error

    async def send_some(self, data: memoryview) -> int:
        try:
            return await self._socket.send([data])
        except (OSError, trio.ClosedResourceError) as error:
            raise ConnectionClosedError(str(error), transport="tcp") from error

    def send_now(self, data: memoryview) -> int:
        try:
            return self._socket.send_now([data])
        except OSError as error:
            raise ConnectionClosedError(str(error), transport="tcp") from error

    async def close(self) -> None:
        self.abort()
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        self._socket.close()
        self._on_closed()

    def get_remote_address(self) -> tuple[str, int] | None:
        return self._remote


def _host_and_port(socket: trio.socket.SocketType) -> tuple[str, int] | None:
    try:
        host, port, *_ = socket.getpeername()
    except OSError:
        return None
    return host, port


class TcpTransport(TCP):
    """libp2p's TCP transport with our streams and our listener.

    Args:
        nursery: where listeners and inbound connections run.

    Attributes:
        refused_listens: why addresses could not be listened on, as the swarm only says that it failed.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        super().__init__()
        self._nursery = nursery
        self.refused_listens: dict[str, OSError] = {}

    async def dial(self, maddr: Multiaddr) -> RawConnection:
        connection = await super().dial(maddr)
        return RawConnection(TcpStream(connection.stream.stream), True)

    def create_listener(self, handler_function: ConnectionHandler) -> IListener:
        return _TcpListener(handler_function, self._nursery, self.refused_listens)


class _TcpListener(IListener):
    def __init__(
        self, handler: ConnectionHandler, nursery: trio.Nursery, refused_listens: dict[str, OSError]
    ) -> None:
        self._handler = handler
        self._nursery = nursery
        self._refused_listens = refused_listens
        self._listeners: Sequence[trio.SocketListener] = []
        self._serving = trio.CancelScope()
        # In the order of arrival.
        self._unauthenticated: dict[TcpStream, None] = {}

    async def listen(self, maddr: Multiaddr) -> None:
        version = "ip6" if "/ip6/" in str(maddr) else "ip4"
        host, port = maddr.value_for_protocol(version), int(maddr.value_for_protocol("tcp"))
        try:
            self._listeners = await trio.open_tcp_listeners(port, host=host, backlog=LISTEN_BACKLOG)
        except OSError as error:
            self._refused_listens[str(maddr)] = error
            raise OpenConnectionError(str(error)) from error
        self._nursery.start_soon(self._serve)

    async def _serve(self) -> None:
        with self._serving:
            await trio.serve_listeners(self._accept, self._listeners, handler_nursery=self._nursery)

    async def _accept(self, socket_stream: trio.SocketStream) -> None:
        stream = TcpStream(socket_stream)
        if len(self._unauthenticated) >= UNAUTHENTICATED_MAX:
            oldest = next(iter(self._unauthenticated))
            del self._unauthenticated[oldest]
            oldest.abort()
        self._unauthenticated[stream] = None
        forget = partial(self._unauthenticated.pop, stream, None)
        try:
            # The swarm's handler waits until the swarm ends; it must not outlive its connection.
            with trio.CancelScope() as scope:
                stream.watch(forget, scope.cancel)
                await self._handler(stream)
        except Exception:
            # Whatever a stranger's bytes led to: it ends this connection and nothing else.
            log.debug("inbound_connection_failed", exc_info=True)
        finally:
            forget()
            stream.abort()

    def get_addrs(self) -> tuple[Multiaddr, ...]:
        return tuple(_listen_address(listener) for listener in self._listeners)

    async def close(self) -> None:
        self._serving.cancel()
        for listener in self._listeners:
            await listener.aclose()


def _listen_address(listener: trio.SocketListener) -> Multiaddr:
    host, port, *_ = listener.socket.getsockname()
    return Multiaddr(f"/{'ip6' if ':' in host else 'ip4'}/{host}/tcp/{port}")
