"""Who a node is: an Ed25519 key, its peer id, and signatures that mean one thing only.

Every signature covers a domain string, a zero byte and the data, so that what was signed as a certificate is
never valid as an advert."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sedmad.errors import ConfigurationInvalid
from sedmad.net.peer_id import peer_id_of, public_key_of
from sedmad.net.private_file import read_private, write_private

__all__ = ["Identity", "peer_id_of", "public_key_of", "verify"]

# Adverts and claims reach a node several times each; a few thousand are alive at once. 8192 keys are about 1
# MiB.
VERIFIED_SIGNATURES_MAX = 8192


class Identity:
    """An Ed25519 key pair.

    Attributes:
        public_key: 32 bytes.
        peer_id: libp2p's name of the public key.
    """

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key
        self.public_key = private_key.public_key().public_bytes_raw()
        self.peer_id = peer_id_of(self.public_key)

    @classmethod
    def make(cls) -> Identity:
        """Return a new identity."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> Identity:
        """Return the identity of a seed of 32 bytes (RFC 8032's private key)."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @property
    def seed(self) -> bytes:
        """The secret: 32 bytes."""
        return self._private_key.private_bytes_raw()

    def save(self, path: Path) -> None:
        """Write the key as PEM (PKCS #8) that only its owner can read; a folder that is missing gets mode
        0700.
        """
        pem = self._private_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        write_private(path, pem)

    @classmethod
    def load(cls, path: Path) -> Identity:
        """Return the identity in a file.

        Raises:
            ConfigurationInvalid: the file is missing, open to others, or holds no Ed25519 key.
        """
        pem = read_private(path)
        try:
            private_key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ConfigurationInvalid(f"{path} holds no private key", why=str(error)) from error
        if not isinstance(private_key, Ed25519PrivateKey):
            raise ConfigurationInvalid(
                f"{path} holds no Ed25519 key", why=f"it is a {type(private_key).__name__}"
            )
        return cls(private_key)

    def sign(self, domain: str, data: bytes) -> bytes:
        """Return the signature, 64 bytes, of data as something of a domain such as "sedma/v1/advert"."""
        return self._private_key.sign(_covered(domain, data))


def verify(public_key: bytes, domain: str, data: bytes, signature: bytes) -> bool:
    """Whether the signature over domain and data is the key's. Signatures that held are remembered."""
    covered = _covered(domain, data)
    key = hashlib.sha256(b"%d:%b%d:%b" % (len(public_key), public_key, len(signature), signature))
    key.update(covered)
    digest = key.digest()
    if _verified.contains(digest):
        return True
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, covered)
    except (InvalidSignature, ValueError):
        return False
    _verified.add(digest)
    return True


def _covered(domain: str, data: bytes) -> bytes:
    return domain.encode() + b"\0" + data


class _RecentlyVerified:
    """Digests of signatures that held, the least recently used forgotten first; safe across threads."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._digests: dict[bytes, None] = {}
        self._lock = threading.Lock()

    def contains(self, digest: bytes) -> bool:
        with self._lock:
            if digest not in self._digests:
                return False
            del self._digests[digest]
            self._digests[digest] = None
            return True

    def add(self, digest: bytes) -> None:
        with self._lock:
            self._digests[digest] = None
            if len(self._digests) > self._size:
                del self._digests[next(iter(self._digests))]


_verified = _RecentlyVerified(VERIFIED_SIGNATURES_MAX)
