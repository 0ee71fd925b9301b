"""The host: connections to peers by peer id, streams to them, and the protocols that are served to them.

None of libp2p's types leave this room; its errors become typed ones, and everything it does ends in time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import structlog
import trio
from libp2p.abc import INetConn, INetStream, INetwork, INotifee
from libp2p.exceptions import BaseLibp2pError
from libp2p.host.basic_host import BasicHost
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from sedmad.errors import ConfigurationInvalid, NodeUnreachable
from sedmad.net.addresses import (
    ADDRESSES_PER_PEER_MAX,
    circuits_by_relay,
    dialable,
    parse_announced_address,
    parse_listen_address,
    reachable_addresses,
)
from sedmad.net.connection import Connection, root_cause
from sedmad.net.identity import Identity
from sedmad.net.pipe import PathKind, Pipe
from sedmad.net.protocols import STREAMS_MAX, STREAMS_PER_PEER_MAX, Handler, Protocols
from sedmad.net.racing import Attempt, Turns, race
from sedmad.net.relay.client import RelayClient
from sedmad.net.relay.reservation import Reservation
from sedmad.net.stream import ByteStream
from sedmad.net.swarm import CONNECTIONS_MAX, make_basic_host
from sedmad.net.tcp import TcpTransport
from sedmad.net.upgrading import upgrade

log = structlog.get_logger("sedmad.net")

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
        relaying: reserves at relays and dials through them.
    """

    def __init__(self, identity: Identity, basic_host: BasicHost, announce: Sequence[str]) -> None:
        self.peer_id = identity.peer_id
        self.on_connected: Callable[[str], None] = _ignore
        self.on_disconnected: Callable[[str], None] = _ignore
        self._announced = [parse_announced_address(text, self.peer_id) for text in announce]
        self._swarm: Swarm = basic_host.get_network()
        self._protocols = Protocols()
        self._connected: set[str] = set()
        self._turns = Turns()
        self._keeps_idle: list[Callable[[str], bool]] = []
        self._swarm.set_stream_handler(self._protocols.accept)
        self._swarm.register_notifee(self)
        self.relaying = RelayClient(self)

    @property
    def listen_addresses(self) -> list[str]:
        """Where others can dial this node, each with /p2p/PEER_ID: what it was told to announce, else what it
        listens on, and circuits through relays that it reserved at."""
        return [*self.own_addresses, *self.relaying.circuit_addresses]

    @property
    def own_addresses(self) -> list[str]:
        """Those of `listen_addresses` that need no relay."""
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

        Circuits through relays are tried after all other addresses had their turn.

        Raises:
            NodeUnreachable: none did in time.
        """
        attempts = self._direct_attempts(peer_id, addresses)
        attempts += [
            Attempt(f"relay {relay_id}", partial(self.relaying.dial, circuits, timeout_s))
            for relay_id, circuits in circuits_by_relay(addresses, peer_id).items()
        ]
        await self._reach(peer_id, attempts, timeout_s, directly=False)

    async def connect_directly(self, peer_id: str, addresses: Sequence[str], timeout_s: float) -> Connection:
        """Return a connection to a peer that goes through no relay; dial it where there is none, relayed ones or not.

        Raises:
            NodeUnreachable: none of the addresses answered with its key in time.
        """
        attempts = self._direct_attempts(peer_id, addresses)
        return await self._reach(peer_id, attempts, timeout_s, directly=True)

    async def _reach(
        self, peer_id: str, attempts: Sequence[Attempt], timeout_s: float, *, directly: bool
    ) -> Connection:
        if peer_id == self.peer_id:
            raise NodeUnreachable("a node cannot dial itself", node=peer_id)
        find = self.direct_connection if directly else self.connection
        failures: list[str] = []
        with trio.move_on_after(timeout_s):
            async with self._turns.alone(f"{peer_id} {directly}"):
                if find(peer_id) is None:
                    await race(attempts, failures)
        if (connection := find(peer_id)) is None:
            why = "; ".join(failures) or ("no answer in time" if attempts else "no usable address is known")
            raise NodeUnreachable(f"cannot reach {peer_id}", why=why, node=peer_id)
        return connection

    def _direct_attempts(self, peer_id: str, addresses: Sequence[str]) -> list[Attempt]:
        targets = list(filter(None, (dialable(text, peer_id) for text in addresses)))
        return [
            Attempt(str(target), partial(self._dial, target, peer_id))
            for target in targets[:ADDRESSES_PER_PEER_MAX]
        ]

    async def _dial(self, target: Multiaddr, peer_id: str) -> None:
        # Nothing else is waited for while an address is dialled, so that those who dial for a circuit and
        # those who dial for its relay cannot wait for each other.
        async with self._turns.alone(f"{peer_id} {target}"):
            if self.direct_connection(peer_id) is None:
                try:
                    await self._swarm.dial_addr(target, ID.from_string(peer_id))
                except (BaseLibp2pError, OSError) as error:
                    raise NodeUnreachable(f"cannot dial {target}", why=root_cause(error)) from error

    async def upgrade(self, pipe: Pipe, peer_id: str, *, initiator: bool) -> Connection:
        """Make a connection out of a pipe to a peer: Noise, then yamux. Where that fails, the pipe is closed.

        Args:
            pipe: carries it from now on.
            peer_id: who must be at the other end.
            initiator: whether this side begins; the other must not.

        Raises:
            NodeUnreachable: the other side is somebody else, does not speak the protocols, or not in time.
        """
        return await upgrade(self._swarm, pipe, peer_id, initiator)

    async def reserve(
        self, relay_peer_id: str, addresses: Sequence[str], *, now_s: float, timeout_s: float = 10.0
    ) -> Reservation:
        """Have a relay pass on connections to this node, or renew that; see RelayClient.reserve."""
        return await self.relaying.reserve(relay_peer_id, addresses, now_s=now_s, timeout_s=timeout_s)

    async def open_stream(self, peer_id: str, protocol: str, timeout_s: float) -> ByteStream:
        """Open a stream to a connected peer, on the best connection.

        Raises:
            NodeUnreachable: it is not connected, does not serve the protocol, or does not answer in time.
        """
        connection = self.connection(peer_id)
        if connection is None:
            what = f"cannot open a {protocol} stream to {peer_id}"
            raise NodeUnreachable(what, why="it is not connected", node=peer_id)
        return await connection.open_stream(protocol, timeout_s)

    def connections(self, peer_id: str) -> list[Connection]:
        """Return the open connections to a peer, the best first: by path, then the newest, the least likely to
        be half dead.
        """
        newest_first = reversed(self._swarm.get_connections(ID.from_string(peer_id)))
        opened = filter(lambda connection: connection.is_open, map(Connection, newest_first))
        return sorted(opened, key=lambda connection: connection.path.rank)

    def connection(self, peer_id: str) -> Connection | None:
        """Return the best connection to a peer, if there is one."""
        return next(iter(self.connections(peer_id)), None)

    def direct_connection(self, peer_id: str) -> Connection | None:
        """Return the best connection to a peer that goes through no relay, if there is one."""
        best = self.connection(peer_id)
        return None if best is None or best.path is PathKind.RELAYED else best

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
                    if idle_since is not None and idle_since < limit and not self._is_kept_idle(connection):
                        nursery.start_soon(connection.close)

    def keep_idle(self, keeps: Callable[[str], bool]) -> None:
        """Leave direct connections open that carry nothing where `keeps(peer_id)`, as relays' do."""
        self._keeps_idle.append(keeps)

    def _is_kept_idle(self, connection: INetConn) -> bool:
        muxed = connection.muxed_conn
        return muxed.pipe.path is not PathKind.RELAYED and any(
            keeps(str(muxed.peer_id)) for keeps in self._keeps_idle
        )

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
        if peer_id in self._connected and self.connection(peer_id) is None:
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


def _ignore(peer_id: str) -> None:
    """Where nobody listens."""
