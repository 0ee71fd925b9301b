"""Makes connections out of pipes: Noise, then yamux, then libp2p's swarm watches over them."""

from __future__ import annotations

import trio
from libp2p.abc import ISecureConn
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.security.noise.exceptions import PeerIDMismatchesPubkey

from sedmad.errors import NodeUnreachable
from sedmad.net import swarm as swarm_module
from sedmad.net.connection import Connection, root_cause
from sedmad.net.pipe import Pipe


async def upgrade(swarm: Swarm, pipe: Pipe, peer_id: str, initiator: bool) -> Connection:
    """See PeerHost.upgrade."""
    what = f"cannot connect to {peer_id} through {pipe.remote_address or pipe.path}"
    limit_s = swarm_module.UPGRADE_TIMEOUT_S
    connection = None
    try:
        with trio.fail_after(limit_s):
            secured = await _secure(swarm, pipe, ID.from_string(peer_id), initiator)
            muxed = await swarm.upgrader.upgrade_connection(secured, secured.get_remote_peer())
            direction = "outbound" if initiator else "inbound"
            connection = Connection(await swarm.add_conn(muxed, direction))
    except trio.TooSlowError:
        raise NodeUnreachable(what, why=f"no handshake within {limit_s} s", node=peer_id) from None
    except Exception as error:
        # Whatever the other side's bytes led to: what carries them ends with it.
        raise NodeUnreachable(what, why=root_cause(error), node=peer_id) from error
    finally:
        if connection is None:
            pipe.abort()
    return connection


async def _secure(swarm: Swarm, pipe: Pipe, peer_id: ID, initiator: bool) -> ISecureConn:
    secured = await swarm.upgrader.upgrade_security(RawConnection(pipe, initiator), initiator, peer_id)
    # libp2p looks at it where this side begins; NoiseTransport has told the pipe by now.
    if secured.get_remote_peer() != peer_id:
        raise PeerIDMismatchesPubkey
    return secured
