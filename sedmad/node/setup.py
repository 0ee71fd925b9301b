"""Before a daemon runs: make an identity, make a mesh, or join one."""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import trio

from sedmad.errors import MeshExists, UsageError, first_known
from sedmad.home import Home
from sedmad.net.credentials import CHAIN_FILE, Credentials
from sedmad.net.host import open_host
from sedmad.net.identity import Identity
from sedmad.net.join import request_join
from sedmad.node.bootstrap import BOOTSTRAP_FILE, save_bootstrap
from sedmad.node.clock import wall_time_s
from sedmad.node.log import configure_log
from sedmad.store.lock import locked_home
from sedmad.wire.messages import InvitationToken, JoinResponse
from sedmad.wire.token import decode_token

JOIN_TIMEOUT_S = 15.0
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True)
class InitResult:
    """A new mesh of one."""

    peer_id: str
    name: str
    mesh_id: str


@dataclass(frozen=True, slots=True)
class JoinResult:
    """A new member."""

    peer_id: str
    name: str
    mesh_id: str


def init_mesh(home: Home, name: str | None) -> InitResult:
    """Make an identity where there is none, and a new mesh whose root key lies in this home.

    Raises:
        MeshExists: the home has a mesh already.
    """
    configure_log("warning")
    name = _node_name(name)
    home.create()
    with locked_home(home.lock_file):
        _require_no_mesh(home)
        identity = _identity(home)
        credentials = Credentials.found_mesh(identity, name, now_s=int(wall_time_s()))
        credentials.save(home.certificates)
    return InitResult(identity.peer_id, name, credentials.mesh_id.hex())


def join_mesh(home: Home, token_text: str, name: str | None) -> JoinResult:
    """Make an identity where there is none, and have it admitted by the node that gave the token.

    Raises:
        MeshExists: the home has a mesh already.
        TokenInvalid, TokenUsed, TokenExpired: the token does not admit.
        NodeUnreachable: none of the token's addresses answers.
    """
    token = decode_token(token_text)
    configure_log("warning")
    name = _node_name(name)
    home.create()
    with locked_home(home.lock_file):
        _require_no_mesh(home)
        identity = _identity(home)
        response = _run(partial(_ask_to_join, identity, token, name))
        credentials = Credentials(token.root_public_key, response.chain)
        peers = {peer.peer_id: tuple(peer.addresses) for peer in response.peers}
        peers[token.inviter_peer_id] = tuple(token.addresses)
        save_bootstrap(home.certificates / BOOTSTRAP_FILE, peers)
        credentials.save(home.certificates)
    return JoinResult(identity.peer_id, name, credentials.mesh_id.hex())


def _run(ask: Callable[[], Awaitable[JoinResponse]]) -> JoinResponse:
    try:
        return trio.run(ask)
    except BaseExceptionGroup as group:
        if known := first_known(group):
            raise known from group
        raise


async def _ask_to_join(identity: Identity, token: InvitationToken, name: str) -> JoinResponse:
    async with open_host(identity, listen=[]) as host:
        return await request_join(host, token, name, now_s=wall_time_s(), timeout_s=JOIN_TIMEOUT_S)


def _identity(home: Home) -> Identity:
    if home.identity_key.exists():
        return Identity.load(home.identity_key)
    identity = Identity.make()
    identity.save(home.identity_key)
    return identity


def _require_no_mesh(home: Home) -> None:
    if (home.certificates / CHAIN_FILE).exists():
        raise MeshExists(
            "this home belongs to a mesh already", why=f"its certificate lies in {home.certificates}"
        )


def _node_name(name: str | None) -> str:
    if name is None:
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname()).strip("-.")[:63] or "node"
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a node",
            why="A name has 1 to 63 letters, digits, dots, dashes and underscores.",
        )
    return name
