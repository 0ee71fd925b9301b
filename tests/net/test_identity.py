"""Keys, peer ids and signatures."""

from __future__ import annotations

import stat

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID

from sedmad.errors import ConfigurationInvalid, UsageError
from sedmad.net.identity import VERIFIED_SIGNATURES_MAX, Identity, _RecentlyVerified, verify
from sedmad.net.peer_id import peer_id_of, public_key_of

SEEDS = st.binary(min_size=32, max_size=32)
DOMAIN = "sedma/v1/test"


@given(SEEDS)
def test_a_peer_id_is_libp2ps_and_holds_the_key(seed: bytes) -> None:
    identity = Identity.from_seed(seed)
    assert identity.peer_id == str(ID.from_pubkey(create_new_key_pair(seed).public_key))
    assert identity.peer_id.startswith("12D3Koo")
    assert public_key_of(identity.peer_id) == identity.public_key


@given(
    st.text(max_size=60)
    | st.text("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz", min_size=52, max_size=52)
)
def test_other_text_is_no_peer_id(text: str) -> None:
    with pytest.raises(UsageError):
        public_key_of(text)


def test_a_key_of_another_length_has_no_peer_id() -> None:
    with pytest.raises(UsageError):
        peer_id_of(bytes(33))


@given(SEEDS, st.binary(max_size=200), st.integers(0, 63), st.integers(1, 255))
def test_a_signature_holds_for_its_domain_data_and_key_only(
    seed: bytes, data: bytes, position: int, flip: int
) -> None:
    identity = Identity.from_seed(seed)
    signature = identity.sign(DOMAIN, data)
    for _ in range(2):  # the second time from the cache
        assert verify(identity.public_key, DOMAIN, data, signature)
    damaged = bytearray(signature)
    damaged[position] ^= flip
    assert not verify(identity.public_key, DOMAIN, data, bytes(damaged))
    assert not verify(identity.public_key, DOMAIN + "x", data, signature)
    assert not verify(identity.public_key, DOMAIN, data + b"\0", signature)
    assert not verify(Identity.make().public_key, DOMAIN, data, signature)
    assert not verify(identity.public_key[:31], DOMAIN, data, signature)
    assert not verify(identity.public_key, DOMAIN, data, signature[:63])


def test_the_cache_of_signatures_forgets_the_least_recently_used() -> None:
    cache = _RecentlyVerified(3)
    for digest in (b"a", b"b", b"c"):
        cache.add(digest)
    assert cache.contains(b"a")
    cache.add(b"d")
    assert [cache.contains(digest) for digest in (b"a", b"b", b"c", b"d")] == [True, False, True, True]
    assert VERIFIED_SIGNATURES_MAX < 100_000


def test_a_saved_identity_is_private_and_comes_back(tmp_path) -> None:
    path = tmp_path / "home" / "identity.key"
    identity = Identity.make()
    identity.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert Identity.load(path).peer_id == identity.peer_id
    assert [file.name for file in path.parent.iterdir()] == ["identity.key"]


def test_an_identity_that_others_can_read_is_refused(tmp_path) -> None:
    path = tmp_path / "identity.key"
    Identity.make().save(path)
    path.chmod(0o640)
    with pytest.raises(ConfigurationInvalid) as caught:
        Identity.load(path)
    assert f"chmod 600 {path}" in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_file_without_a_key_is_refused(tmp_path, content: bytes) -> None:
    path = tmp_path / "identity.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationInvalid):
        Identity.load(path)
    with pytest.raises(ConfigurationInvalid):
        Identity.load(tmp_path / "missing")


def test_a_key_of_another_kind_is_refused(tmp_path) -> None:
    path = tmp_path / "identity.key"
    path.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    path.chmod(0o600)
    with pytest.raises(ConfigurationInvalid, match="Ed25519"):
        Identity.load(path)
