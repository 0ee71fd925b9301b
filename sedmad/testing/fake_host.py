"""Hosts and streams in memory, with what PeerHost and ByteStream promise, and connections that break on demand."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence

import trio

from sedmad.errors import NodeUnreachable, SedmadError
from sedmad.wire.frame import Buffer

# As much as a stream holds that nobody reads.
WINDOW_BYTES = 256 << 10
# A slow connection is occupied by so much at a time.
PACKET_BYTES = 8 << 10


class FakeStream:
    """One end of a connection."""

    path = "direct"

    def __init__(self, connection: FakeConnection, local: str, remote_peer_id: str) -> None:
        self.connection = connection
        self.local = local
        self.remote_peer_id = remote_peer_id
        self.arrived = bytearray()
        self.read_bytes = 0
        self.ended = False
        self.frozen = False
        self.other: FakeStream
        self._changed = trio.lowlevel.ParkingLot()

    async def receive_some(self, max_bytes: int = 65536) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self.arrived or self.frozen:
            if self.connection.broken:
                raise NodeUnreachable("the stream broke", node=self.remote_peer_id)
            if self.ended and not self.frozen:
                return b""
            await self._changed.park()
        data = bytes(self.arrived[:max_bytes])
        del self.arrived[:max_bytes]
        self.read_bytes += len(data)
        self.other.changed()
        return data

    async def send_all(self, data: Buffer | Sequence[Buffer]) -> None:
        pieces = [data] if isinstance(data, bytes | bytearray | memoryview) else data
        sent = False
        try:
            for piece in pieces:
                view = memoryview(piece)
                assert view.itemsize == 1
                while len(view):
                    await self.connection.delay(min(len(view), PACKET_BYTES))
                    await self._wait_for_window()
                    room = WINDOW_BYTES - len(self.other.arrived)
                    if self.connection.network.rate_bytes_per_s is not None:
                        room = min(room, PACKET_BYTES)
                    self.other.arrived += view[:room]
                    self.other.changed()
                    view = view[room:]
            sent = True
        finally:
            if not sent:
                self.connection.cut()

    def send_now(self, pieces: Sequence[Buffer]) -> bool:
        """Return False: here, bytes always take their time."""
        return False

    async def _wait_for_window(self) -> None:
        while len(self.other.arrived) >= WINDOW_BYTES and not self.connection.broken:
            await self._changed.park()
        if self.connection.broken:
            raise NodeUnreachable("the stream broke", node=self.remote_peer_id)

    async def close(self) -> None:
        self.other.ended = True
        self.other.changed()
        with trio.move_on_after(5):
            while not (self.ended or self.connection.broken):
                await self._changed.park()
        self.connection.cut()

    async def reset(self) -> None:
        self.connection.cut()

    def changed(self) -> None:
        self._changed.unpark_all()


class FakeConnection:
    """Two streams that carry each other's bytes until it is cut."""

    def __init__(self, network: FakeNetwork, opener: str, acceptor: str) -> None:
        self.network = network
        self.broken = False
        self.ends = (FakeStream(self, opener, acceptor), FakeStream(self, acceptor, opener))
        self.ends[0].other, self.ends[1].other = self.ends[1], self.ends[0]

    async def delay(self, packet_bytes: int) -> None:
        rate = self.network.rate_bytes_per_s
        if rate is None:
            await trio.sleep(self.network.rng.uniform(0, self.network.delay_s_max))
        else:
            await trio.sleep(packet_bytes / rate)

    def cut(self, *, losing: bool = False) -> None:
        """End it; what is under way arrives, or where it is `losing` only some of it does."""
        if self.broken:
            return
        self.broken = True
        self.network.live.remove(self)
        for end in self.ends:
            if losing:
                del end.arrived[self.network.rng.randint(0, len(end.arrived)) :]
            end.changed()


Handler = Callable[[FakeStream, str, str], Awaitable[None]]


class FakeNetwork:
    """Where the hosts find each other.

    Args:
        nursery: runs the handlers of streams.
        rng: delays and losses.
        delay_s_max: bytes take up to this long.

    Attributes:
        rate_bytes_per_s: what each connection carries each way, without other delays; None for no bound.
    """

    def __init__(self, nursery: trio.Nursery, rng: random.Random, delay_s_max: float = 0.005) -> None:
        self.rate_bytes_per_s: float | None = None
        self.nursery = nursery
        self.rng = rng
        self.delay_s_max = delay_s_max
        self.hosts: dict[str, FakeHost] = {}
        self.live: list[FakeConnection] = []
        self.opened = 0

    def connect(self, opener: str, acceptor: str) -> FakeConnection:
        connection = FakeConnection(self, opener, acceptor)
        self.live.append(connection)
        self.opened += 1
        return connection


class FakeHost:
    """What Sessions uses of a PeerHost."""

    def __init__(self, network: FakeNetwork, peer_id: str) -> None:
        self.network = network
        self.peer_id = peer_id
        self.handler: Handler | None = None
        self.dialled: list[tuple[str, list[str]]] = []
        network.hosts[peer_id] = self

    def serve(self, protocol: str, handler: Handler) -> None:
        assert protocol == "/sedma/session/1"
        self.handler = handler

    async def connect(self, peer_id: str, addresses: Sequence[str], timeout_s: float) -> None:
        self.dialled.append((peer_id, list(addresses)))
        await trio.sleep(self.network.rng.uniform(0, self.network.delay_s_max))
        if peer_id not in self.network.hosts:
            raise NodeUnreachable("nobody answers", node=peer_id)

    async def open_stream(self, peer_id: str, protocol: str, timeout_s: float) -> FakeStream:
        await trio.sleep(self.network.rng.uniform(0, self.network.delay_s_max))
        host = self.network.hosts.get(peer_id)
        if host is None or host.handler is None:
            raise NodeUnreachable("nobody serves it", node=peer_id)
        mine, theirs = self.network.connect(self.peer_id, peer_id).ends
        self.network.nursery.start_soon(host._handle, theirs)
        return mine

    async def _handle(self, stream: FakeStream) -> None:
        assert self.handler is not None
        try:
            await self.handler(stream, stream.remote_peer_id, "/memory")
        except* SedmadError:
            pass
        else:
            await stream.close()
        finally:
            await stream.reset()
