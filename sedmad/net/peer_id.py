"""Peer ids: how libp2p names the holder of an Ed25519 key, without libp2p.

A peer id is the identity multihash of the protobuf-encoded public key, in base58; it holds the key itself.
Source: https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md
"""

from __future__ import annotations

from functools import lru_cache

from sedmad.errors import UsageError

PUBLIC_KEY_BYTES = 32
# Multihash: identity, 36 bytes. PublicKey message: field 1 (type) = Ed25519, field 2 (data) of 32 bytes.
_PREFIX = bytes([0x00, 0x24, 0x08, 0x01, 0x12, 0x20])
_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_PEER_ID_CHARACTERS = 52


@lru_cache(maxsize=1024)  # a mesh of hundreds; base58 costs some 20 us
def peer_id_of(public_key: bytes) -> str:
    """Return the peer id ("12D3Koo...") of an Ed25519 public key of 32 bytes."""
    if len(public_key) != PUBLIC_KEY_BYTES:
        raise UsageError("not an Ed25519 public key", why=f"it has {len(public_key)} bytes, not 32")
    return _base58(_PREFIX + public_key)


@lru_cache(maxsize=1024)
def public_key_of(peer_id: str) -> bytes:
    """Return the 32 bytes of the Ed25519 public key inside a peer id.

    Raises:
        UsageError: the text is not the peer id of an Ed25519 key.
    """
    number = 0
    if len(peer_id) == _PEER_ID_CHARACTERS and all(character in _ALPHABET for character in peer_id):
        for character in peer_id:
            number = number * 58 + _ALPHABET.index(character)
        # Base58 writes the leading zero byte as a leading "1", which adds nothing to the number.
        length = len(_PREFIX) + PUBLIC_KEY_BYTES
        if number.bit_length() <= length * 8:
            data = number.to_bytes(length, "big")
            if data.startswith(_PREFIX) and _base58(data) == peer_id:
                return data[len(_PREFIX) :]
    raise UsageError("not a peer id", why=f"{peer_id[:80]!r} names no Ed25519 key")


def _base58(data: bytes) -> str:
    number = int.from_bytes(data, "big")
    characters = []
    while number:
        number, digit = divmod(number, 58)
        characters.append(_ALPHABET[digit])
    zeros = len(data) - len(data.lstrip(b"\0"))
    return "1" * zeros + "".join(reversed(characters))
