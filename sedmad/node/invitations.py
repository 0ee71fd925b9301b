"""Who may come in: tokens that this node gave out, each good for one new member."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable

import structlog

from sedmad import failpoints
from sedmad.errors import NotPermitted, UsageError
from sedmad.net.credentials import Credentials
from sedmad.net.identity import Identity, public_key_of
from sedmad.node.clock import wall_time_s
from sedmad.store import invitations
from sedmad.store.database import Database
from sedmad.wire import messages as wire
from sedmad.wire.token import encode_token

log = structlog.get_logger("sedmad.invitations")

EXPIRES_S_MAX = 90 * 86_400
SECRET_BYTES = 32
TOKEN_ADDRESSES_MAX = 8


class InvitationService:
    """Makes tokens for clients of this node, and admits whoever brings one.

    Args:
        addresses: returns where this node can be dialled now.
        members: returns addresses of other members by peer id, for the newcomer's first dials.
    """

    def __init__(
        self,
        identity: Identity,
        credentials: Credentials,
        database: Database,
        addresses: Callable[[], list[str]],
        members: Callable[[], dict[str, tuple[str, ...]]],
    ) -> None:
        self._identity = identity
        self._credentials = credentials
        self._database = database
        self._addresses = addresses
        self._members = members

    @property
    def is_admin(self) -> bool:
        """Whether this node signs certificates."""
        return self._credentials.verify(
            self._identity.peer_id, self._credentials.chain, wall_time_s()
        ).may_sign

    async def invite(self, expires_s: int) -> tuple[str, int]:
        """Return a new token and the Unix seconds until which it admits.

        Raises:
            NotPermitted: this node is no admin.
            UsageError: it would be valid for no time, or for longer than 90 days.
        """
        if not self.is_admin:
            raise NotPermitted(
                "this node cannot invite others",
                why="Only an admin signs certificates.",
                hint="Run sedmad invite on the node that made the mesh.",
            )
        if not 0 < expires_s <= EXPIRES_S_MAX:
            raise UsageError("a token is valid for 1 second to 90 days", why=f"{expires_s} s were asked for")
        secret = secrets.token_bytes(SECRET_BYTES)
        expires_at_s = int(wall_time_s()) + expires_s
        await self._database.write(
            lambda connection: invitations.add(
                connection, _hash(secret), expires_s=expires_at_s, now_s=wall_time_s()
            )
        )
        token = wire.InvitationToken(
            root_public_key=self._credentials.root_public_key,
            inviter_peer_id=self._identity.peer_id,
            addresses=self._addresses()[:TOKEN_ADDRESSES_MAX],
            secret=secret,
            expires_s=expires_at_s,
        )
        return encode_token(token), expires_at_s

    async def admit(self, request: wire.JoinRequest, peer_id: str) -> wire.JoinResponse:
        """Admit a newcomer; its token is marked as used, on disk, before its certificate is made.

        Raises:
            TokenInvalid, TokenUsed, TokenExpired: the token does not admit it.
        """
        await self._database.write(
            lambda connection: invitations.use(
                connection, _hash(request.secret), peer_id, now_s=wall_time_s()
            )
        )
        failpoints.reach("invitations.used")
        chain = self._credentials.admit(
            self._identity, public_key_of(peer_id), request.name, now_s=int(wall_time_s())
        )
        log.info("member_admitted", peer=peer_id, name=request.name)
        members = [
            wire.PeerAddresses(peer_id=member, addresses=addresses)
            for member, addresses in list(self._members().items())[:4]
            if member != peer_id
        ]
        return wire.JoinResponse(chain=chain, peers=members)


def _hash(secret: bytes) -> bytes:
    return hashlib.sha256(b"sedma/v1/invitation\0" + secret).digest()
