"""The host: connections to peers by peer id, streams to them, and the protocols that are served to them.

None of libp2p's types leave this room; its errors become typed ones, and everything it does ends in time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import structlog
import trio
from libp2p.abc import INetConn, INetStream, INetwork, INotifee
from libp2p.custom_types import TProtocol
from libp2p.exceptions import BaseLibp2pError
from libp2p.host.basic_host import BasicHost
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.security.noise.exceptions import PeerIDMismatchesPubkey
from multiaddr import Multiaddr

from sedmad.errors import ConfigurationInvalid, NodeUnreachable
from sedmad.net.addresses import (
    ADDRESSES_PER_PEER_MAX,
    dialable,
    parse_announced_address,
    parse_listen_address,
    reachable_addresses,
)
from sedmad.net.identity import Identity
from sedmad.net.protocols import STREAMS_MAX, STREAMS_PER_PEER_MAX, Handler, Protocols
from sedmad.net.stream import ByteStream
from sedmad.net.swarm import CONNECTIONS_MAX, make_basic_host
from sedmad.net.tcp import TcpTransport
from sedmad.net.yamux_stream import YamuxStream

log = structlog.get_logger("sedmad.net")

# The next address is tried when the one before has not answered by then (RFC 8305).
NEXT_ADDRESS_S = 0.25
# A connection that carries nothing is closed: a session keeps a stream, a stranger has said nothing.
IDLE_CONNECTION_S = 30.0
# When half of the places are taken, those who have nothing to say make room at once.
CROWDED_CONNECTIONS = CONNECTIONS_MAX // 2
CROWDED_IDLE_S = 1.0
IDLE_CHECK_S = 1.0
SHUTDOWN_S = 2.0


class PeerHost(INotifee):
    """Connections to peers. Make one with `open_host`.

    Attributes:
        peer_id: this node's.
        on_connected: called with a peer id when its first connection is there.
        on_disconnected: called with a peer id when its last connection is gone.
    """

    def __init__(self, identity: Identity, basic_host: BasicHost, announce: Sequence[str]) -> None:
        self.peer_id = identity.peer_id
        self.on_connected: Callable[[str], None] = _ignore
        self.on_disconnected: Callable[[str], None] = _ignore
        self._announced = [parse_announced_address(text, self.peer_id) for text in announce]
        self._swarm: Swarm = basic_host.get_network()
        self._protocols = Protocols()
        self._connected: set[str] = set()
        self._dialling: dict[str, trio.Lock] = {}
        self._swarm.set_stream_handler(self._protocols.accept)
        self._swarm.register_notifee(self)

    @property
    def listen_addresses(self) -> list[str]:
        """Where others can dial this node, each with /p2p/PEER_ID: what it was told to announce, else what it
        listens on."""
        bound = [address for listener in self._swarm.listeners.values() for address in listener.get_addrs()]
        return self._announced or [f"{address}/p2p/{self.peer_id}" for address in reachable_addresses(bound)]

    def connected_peers(self) -> list[str]:
        """Return the peer ids of those who are connected now."""
        return list(self._connected)

    def serve(
        self,
        protocol: str,
        handler: Handler,
        *,
        streams_max: int = STREAMS_MAX,
        streams_per_peer_max: int = STREAMS_PER_PEER_MAX,
    ) -> None:
        """Serve a protocol: run `handler(stream, peer_id, remote_address)` for each stream that a peer opens.

        Anybody can open one: the handler trusts the peer id and nothing else. When it returns the stream is
        closed; when it raises the stream is reset, and nothing else ends. Streams beyond the bounds are reset
        unseen.

        Args:
            protocol: such as "/sedma/session/1".
            handler: see above; remote_address is a multiaddress, or "" where it is not known.
            streams_max: concurrent streams of all peers.
            streams_per_peer_max: concurrent streams of one peer.
        """
        self._protocols.add(protocol, handler, streams_max, streams_per_peer_max)

    async def connect(self, peer_id: str, addresses: Sequence[str], timeout_s: float) -> None:
        """Connect, unless connected, to a peer at the first of its addresses that answers with its key.

        Raises:
            NodeUnreachable: none did in time.
        """
        if peer_id == self.peer_id:
            raise NodeUnreachable("a node cannot dial itself", node=peer_id)
        targets = list(filter(None, (dialable(text, peer_id) for text in addresses)))[:ADDRESSES_PER_PEER_MAX]
        failures: list[str] = []
        lock = self._dialling.setdefault(peer_id, trio.Lock())
        with trio.move_on_after(timeout_s):
            async with lock:
                if self._connection(peer_id) is None:
                    await self._dial_first(ID.from_string(peer_id), targets, failures)
        if not lock.locked():
            self._dialling.pop(peer_id, None)
        if self._connection(peer_id) is None:
            why = "; ".join(failures) or ("no answer in time" if targets else "no usable address is known")
            raise NodeUnreachable(f"cannot reach {peer_id}", why=why, node=peer_id)

    async def _dial_first(self, peer_id: ID, targets: list[Multiaddr], failures: list[str]) -> None:
        async def dial(target: Multiaddr, failed: trio.Event) -> None:
            try:
                await self._swarm.dial_addr(target, peer_id)
                nursery.cancel_scope.cancel()
            except (BaseLibp2pError, OSError) as error:
                failures.append(f"{target}: {_root_cause(error)}")
                failed.set()

        async with trio.open_nursery() as nursery:
            for target in targets:
                failed = trio.Event()
                nursery.start_soon(dial, target, failed)
                with trio.move_on_after(NEXT_ADDRESS_S):
                    await failed.wait()

    async def open_stream(self, peer_id: str, protocol: str, timeout_s: float) -> ByteStream:
        """Open a stream to a connected peer.

        Raises:
            NodeUnreachable: it is not connected, does not serve the protocol, or does not answer in time.
        """
        what = f"cannot open a {protocol} stream to {peer_id}"
        connection = self._connection(peer_id)
        if connection is None:
            raise NodeUnreachable(what, why="it is not connected", node=peer_id)
        stream: YamuxStream | None = None
        agreed = False
        try:
            with trio.fail_after(timeout_s):
                stream = await connection.muxed_conn.open_stream()
                communicator = MultiselectCommunicator(stream)
                # Its own time-out is longer than ours, so that ours decides.
                await MultiselectClient().select_one_of(
                    [TProtocol(protocol)], communicator, int(timeout_s) + 2
                )
                agreed = True
        except trio.TooSlowError:
            raise NodeUnreachable(what, why=f"no answer within {timeout_s:g} s", node=peer_id) from None
        except (BaseLibp2pError, UnicodeDecodeError) as error:
            raise NodeUnreachable(what, why=_root_cause(error), node=peer_id) from error
        finally:
            if stream is not None and not agreed:
                stream.abort()
        return ByteStream(stream, peer_id)

    def _connection(self, peer_id: str) -> INetConn | None:
        """Return the newest connection to a peer: the one least likely to be half dead."""
        for connection in reversed(self._swarm.get_connections(ID.from_string(peer_id))):
            if not (connection.is_closed or connection.muxed_conn.is_closed):
                return connection
        return None

    async def disconnect(self, peer_id: str) -> None:
        """Close every connection to a peer."""
        await self._swarm.close_peer(ID.from_string(peer_id))

    async def listen_on(self, address: str, transport: TcpTransport) -> None:
        """Begin to listen.

        Raises:
            ConfigurationInvalid: the address cannot be bound.
        """
        multiaddr = parse_listen_address(address)
        await self._swarm.listen(multiaddr)
        if str(multiaddr) not in self._swarm.listeners:
            error = transport.refused_listens.get(str(multiaddr))
            why = "" if error is None else error.strerror or str(error)
            hint = "Listen elsewhere with --listen /ip4/ADDRESS/tcp/PORT."
            raise ConfigurationInvalid(f"cannot listen on {address}", why=why, hint=hint)

    async def close_idle_connections(self) -> None:
        """Close, for ever, connections that carry no stream."""
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(IDLE_CHECK_S)
                connections = self._swarm.get_connections()
                is_crowded = len(connections) >= CROWDED_CONNECTIONS
                limit = trio.current_time() - (CROWDED_IDLE_S if is_crowded else IDLE_CONNECTION_S)
                for connection in connections:
                    idle_since = connection.muxed_conn.idle_since
                    if idle_since is not None and idle_since < limit:
                        nursery.start_soon(connection.close)

    async def close_connections(self) -> None:
        """Close all connections side by side; libp2p closes one after another."""
        with trio.move_on_after(SHUTDOWN_S) as shutdown:
            shutdown.shield = True
            async with trio.open_nursery() as nursery:
                for connection in self._swarm.get_connections():
                    nursery.start_soon(connection.close)

    # What the swarm tells.

    async def connected(self, network: INetwork, conn: INetConn) -> None:
        peer_id = str(conn.muxed_conn.peer_id)
        if peer_id not in self._connected:
            self._connected.add(peer_id)
            self.on_connected(peer_id)

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        peer_id = str(conn.muxed_conn.peer_id)
        if peer_id in self._connected and self._connection(peer_id) is None:
            self._connected.discard(peer_id)
            self.on_disconnected(peer_id)

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None:
        return

    async def closed_stream(self, network: INetwork, stream: INetStream) -> None:
        return

    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None:
        return

    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None:
        return


@asynccontextmanager
async def open_host(
    identity: Identity, listen: Sequence[str], *, announce: Sequence[str] = ()
) -> AsyncIterator[PeerHost]:
    """Run a host while the body runs.

    Args:
        identity: this node's.
        listen: multiaddresses such as "/ip4/0.0.0.0/tcp/0"; none for a host that only dials.
        announce: what to tell others instead of the addresses that are bound.

    Raises:
        ConfigurationInvalid: an address cannot be bound or announced.
    """
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        transport = TcpTransport(nursery)
        basic_host = make_basic_host(identity, transport)
        async with basic_host.run(listen_addrs=[]):
            try:
                host = PeerHost(identity, basic_host, announce)
                for address in listen:
                    await host.listen_on(address, transport)
                nursery.start_soon(host.close_idle_connections)
                try:
                    yield host
                finally:
                    await host.close_connections()
            except Exception as error:
                # Raised below, as it is: out of here it would come wrapped in a group for each nursery.
                failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
    if isinstance(error, PeerIDMismatchesPubkey):
        return "another node answers there"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _ignore(peer_id: str) -> None:
    """Where nobody listens."""
