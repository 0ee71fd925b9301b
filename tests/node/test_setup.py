from __future__ import annotations

import stat
from pathlib import Path

import pytest

from sedmad.errors import HomeInUse, MeshExists, SedmadError, TokenInvalid, UsageError
from sedmad.home import Home
from sedmad.net.credentials import Credentials
from sedmad.net.identity import Identity
from sedmad.node.clock import wall_time_s
from sedmad.node.setup import init_mesh, join_mesh
from sedmad.store.lock import locked_home
from sedmad.wire.messages import InvitationToken
from sedmad.wire.token import encode_token


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path, tmp_path, tmp_path)


def test_a_new_mesh_has_one_admin(home: Home) -> None:
    made = init_mesh(home, "ann")
    assert made.name == "ann"
    identity = Identity.load(home.identity_key)
    assert identity.peer_id == made.peer_id
    credentials = Credentials.load(home.certificates)
    assert credentials.mesh_id.hex() == made.mesh_id
    assert credentials.verify(made.peer_id, credentials.chain, wall_time_s()).may_sign
    for path in (home.identity_key, *home.certificates.glob("*.key")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_home_has_one_mesh(home: Home) -> None:
    init_mesh(home, "ann")
    before = {path: path.read_bytes() for path in home.certificates.iterdir()}
    with pytest.raises(MeshExists):
        init_mesh(home, "ben")
    assert {path: path.read_bytes() for path in home.certificates.iterdir()} == before


def test_an_identity_that_is_there_is_used(home: Home) -> None:
    identity = Identity.make()
    identity.save(home.identity_key)
    assert init_mesh(home, None).peer_id == identity.peer_id


def test_without_a_name_the_machine_gives_one(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "-Bücher & Zeug." + "x" * 90)
    name = init_mesh(home, None).name
    assert name.isascii()
    assert 0 < len(name) <= 63


@pytest.mark.parametrize("name", ["", "a b", "-a", "ä", "x" * 64, "a\n", "a/b"])
def test_a_name_that_cannot_be_typed_is_refused(name: str, home: Home) -> None:
    with pytest.raises(UsageError):
        init_mesh(home, name)
    assert not home.identity_key.exists()


def test_a_home_in_use_is_left_alone(home: Home) -> None:
    home.create()
    with locked_home(home.lock_file), pytest.raises(HomeInUse):
        init_mesh(home, "ann")


@pytest.mark.parametrize("token", ["", "sedmad", "x" * 500, "sedmad1" + "a" * 100])
def test_what_is_no_token_is_refused_before_anything_is_made(token: str, home: Home) -> None:
    with pytest.raises(TokenInvalid):
        join_mesh(home, token, None)
    assert not home.identity_key.exists()


def test_a_join_that_fails_can_be_tried_again(home: Home) -> None:
    token = InvitationToken(
        root_public_key=bytes(32),
        inviter_peer_id=Identity.make().peer_id,
        addresses=["/ip4/127.0.0.1/tcp/1"],
        secret=bytes(32),
        expires_s=int(wall_time_s()) + 60,
    )
    identities = set()
    for _ in range(2):
        with pytest.raises(SedmadError):
            join_mesh(home, encode_token(token), "ben")
        identities.add(Identity.load(home.identity_key).peer_id)
        assert not list(home.certificates.iterdir())
    assert len(identities) == 1
