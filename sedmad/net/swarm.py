"""How this node uses libp2p: TCP, Noise and yamux, nothing that dials, tells or remembers by itself.

libp2p's swarm is made for public networks. What is switched off here: plaintext and the other transports and
muxers, the auto-connector, identify and ping, tags, the pruner, retries, the negative cache and the 250 ms
that `dial_peer` waits on purpose (streams are opened on connections that `dial_addr` made).
"""

from __future__ import annotations

import logging
from collections import OrderedDict

import trio
from libp2p.abc import IMuxedConn, ISecureConn
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_new_x25519_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE_PROTOCOL
from libp2p.stream_muxer.muxer_multistream import MuxerMultistream
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX_PROTOCOL
from libp2p.transport.upgrader import TransportUpgrader

from sedmad.net.identity import Identity
from sedmad.net.noise import NoiseTransport
from sedmad.net.tcp import TcpTransport
from sedmad.net.yamux import YamuxConnection

# Sessions end at 512 too. The swarm counts handshakes among its connections, hence a quarter more.
CONNECTIONS_MAX = 640
# Two that were dialled at the same time from both ends, one that comes in before the old one is noticed dead,
# and as many again through relays.
CONNECTIONS_PER_PEER_MAX = 6
# From a stranger's first byte to a connection, or the socket is closed.
UPGRADE_TIMEOUT_S = 5


class _QuietConnector(AutoConnector):
    """Dials nobody and remembers nobody; libp2p's own keeps a line on every stranger that ever disconnected."""

    async def run_background_task(self, nursery: trio.Nursery) -> None:
        return

    async def maybe_connect(self) -> None:
        return

    def record_disconnect(self, peer_id: ID) -> None:
        return


class _Muxers(MuxerMultistream):
    """Makes the muxer that was registered; libp2p's own makes its own yamux whatever was."""

    async def new_conn(self, conn: ISecureConn, peer_id: ID) -> IMuxedConn:
        return (await self.select_transport(conn))(conn, peer_id)


def make_basic_host(identity: Identity, transport: TcpTransport) -> BasicHost:
    """Return libp2p's host, not yet running, around our transport, records and muxer."""
    _silence_logs()
    key_pair = create_new_key_pair(identity.seed)
    peer_id = ID.from_pubkey(key_pair.public_key)
    peerstore = PeerStore()
    peerstore.add_key_pair(peer_id, key_pair)
    noise = NoiseTransport(key_pair, noise_privkey=create_new_x25519_key_pair().private_key)
    muxers = {TProtocol(YAMUX_PROTOCOL): YamuxConnection}
    upgrader = TransportUpgrader({NOISE_PROTOCOL: noise}, muxers, UPGRADE_TIMEOUT_S)
    upgrader.muxer_multistream = _Muxers(muxers, UPGRADE_TIMEOUT_S)
    swarm = Swarm(
        peer_id,
        peerstore,
        upgrader,
        [transport],
        retry_config=RetryConfig(max_retries=0),
        connection_config=ConnectionConfig(
            max_connections=CONNECTIONS_MAX,
            max_connections_per_peer=CONNECTIONS_PER_PEER_MAX,
            min_connections=0,
            low_watermark=0,
            high_watermark=CONNECTIONS_MAX,
            inbound_upgrade_timeout=UPGRADE_TIMEOUT_S,
            outbound_upgrade_timeout=UPGRADE_TIMEOUT_S,
        ),
    )
    swarm.auto_connector = _QuietConnector(swarm)
    host = BasicHost(swarm, default_protocols=OrderedDict(), disable_identify_address_discovery=True)
    for protocol in host.get_mux().get_protocols():
        host.remove_stream_handler(protocol)
    for notifee in list(swarm.notifees):
        swarm.remove_notifee(notifee)
    return host


def _silence_logs() -> None:
    """Keep libp2p's lines out of the log: a stranger can cause any number of them, errors included."""
    logging.getLogger("libp2p").setLevel(logging.CRITICAL)
    # It also calls logging.warning and the like, which would install a handler on standard error.
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.NullHandler())
