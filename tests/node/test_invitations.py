from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from examples import identity_of

from sedmad.errors import NotPermitted, TokenExpired, TokenInvalid, TokenUsed, UsageError
from sedmad.net.credentials import Credentials
from sedmad.net.identity import Identity
from sedmad.node.clock import wall_time_s
from sedmad.node.invitations import EXPIRES_S_MAX, InvitationService
from sedmad.store.database import Database, open_database
from sedmad.wire import messages as wire
from sedmad.wire.token import decode_token

ADMIN, NEW, OTHER = identity_of("ann"), identity_of("new"), identity_of("other")
MEMBERS = {identity_of(name).peer_id: (f"/ip4/10.0.0.{place}/tcp/1",) for place, name in enumerate("abcdefg")}


def service_of(
    identity: Identity, credentials: Credentials, database: Database, addresses: int = 1
) -> InvitationService:
    listened = [f"/ip4/127.0.0.1/tcp/{port}" for port in range(1, addresses + 1)]
    return InvitationService(
        identity, credentials, database, addresses=lambda: listened, members=lambda: MEMBERS
    )


@pytest.fixture
def credentials() -> Credentials:
    return Credentials.found_mesh(ADMIN, "ann", now_s=int(wall_time_s()))


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "store.db") as database:
        yield database


async def test_a_token_admits_one_node(credentials: Credentials, database: Database) -> None:
    service = service_of(ADMIN, credentials, database, addresses=20)
    text, expires_at_s = await service.invite(3600)
    token = decode_token(text)
    assert token.inviter_peer_id == ADMIN.peer_id
    assert token.root_public_key == credentials.root_public_key
    assert token.expires_s == expires_at_s
    assert len(token.addresses) == 8
    request = wire.JoinRequest(secret=token.secret, name="new")
    for _ in range(2):  # the answer to the first may have been lost
        response = await service.admit(request, NEW.peer_id)
        verified = credentials.verify(NEW.peer_id, response.chain, wall_time_s())
        assert verified.name == "new"
        assert not verified.may_sign
        assert 0 < len(response.peers) <= 4
    with pytest.raises(TokenUsed):
        await service.admit(request, OTHER.peer_id)


async def test_a_token_that_nobody_gave_admits_nobody(credentials: Credentials, database: Database) -> None:
    service = service_of(ADMIN, credentials, database)
    with pytest.raises(TokenInvalid):
        await service.admit(wire.JoinRequest(secret=bytes(32), name="new"), NEW.peer_id)


async def test_a_token_ends(
    credentials: Credentials, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = service_of(ADMIN, credentials, database)
    text, expires_at_s = await service.invite(60)
    monkeypatch.setattr("sedmad.node.invitations.wall_time_s", lambda: expires_at_s + 1.0)
    with pytest.raises(TokenExpired):
        await service.admit(wire.JoinRequest(secret=decode_token(text).secret, name="new"), NEW.peer_id)


@pytest.mark.parametrize("expires_s", [0, -1, EXPIRES_S_MAX + 1])
async def test_a_token_is_good_for_a_while_and_not_for_ever(
    expires_s: int, credentials: Credentials, database: Database
) -> None:
    with pytest.raises(UsageError):
        await service_of(ADMIN, credentials, database).invite(expires_s)


async def test_only_an_admin_invites(credentials: Credentials, database: Database) -> None:
    chain = credentials.admit(ADMIN, NEW.public_key, "new", now_s=int(wall_time_s()))
    service = service_of(NEW, Credentials(credentials.root_public_key, chain), database)
    assert not service.is_admin
    with pytest.raises(NotPermitted, match="invite"):
        await service.invite(3600)
    assert service_of(ADMIN, credentials, database).is_admin


async def test_tokens_outlive_a_restart(credentials: Credentials, database: Database) -> None:
    text, _ = await service_of(ADMIN, credentials, database).invite(3600)
    request = wire.JoinRequest(secret=decode_token(text).secret, name="new")
    await service_of(ADMIN, credentials, database).admit(request, NEW.peer_id)
    with pytest.raises(TokenUsed):
        await service_of(ADMIN, credentials, database).admit(request, OTHER.peer_id)
