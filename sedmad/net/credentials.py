"""What a node shows and signs with: the mesh's root key, its own chain, on the first node the root's secret.

Owns the folder they lie in: `root.pub`, `chain`, and `root.key` where it is not kept elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from sedmad.errors import ConfigurationInvalid, MeshMissing, NotPermitted
from sedmad.net.certificates import (
    VerifiedCertificate,
    make_admin_certificate,
    make_member_certificate,
    mesh_id_of,
    verify_chain,
)
from sedmad.net.identity import Identity
from sedmad.net.peer_id import PUBLIC_KEY_BYTES
from sedmad.net.private_file import read_private, write_private
from sedmad.wire.messages import CertificateChain

ROOT_PUBLIC_KEY_FILE = "root.pub"
CHAIN_FILE = "chain"
ROOT_KEY_FILE = "root.key"


@dataclass(frozen=True, slots=True)
class Credentials:
    """One node's membership of one mesh.

    Attributes:
        root_public_key: 32 bytes.
        chain: the node's own certificate and what is above it.
        root: the root's key pair, on the node that made the mesh.
    """

    root_public_key: bytes
    chain: CertificateChain
    root: Identity | None = None

    @classmethod
    def found_mesh(cls, identity: Identity, name: str, *, now_s: int) -> Credentials:
        """Return the credentials of a new mesh's first node, an admin.

        Raises:
            UsageError: the name is too long.
        """
        root = Identity.make()
        return cls(
            root.public_key, make_admin_certificate(root, identity.public_key, name, now_s=now_s), root
        )

    @property
    def mesh_id(self) -> bytes:
        """SHA-256 of the root's public key."""
        return mesh_id_of(self.root_public_key)

    def verify(self, peer_id: str, chain: CertificateChain, now_s: float) -> VerifiedCertificate:
        """Return what another's chain says of it in this mesh.

        Raises:
            CertificateInvalid: it does not hold.
        """
        return verify_chain(chain, self.root_public_key, peer_id, now_s)

    def admit(self, identity: Identity, public_key: bytes, name: str, *, now_s: int) -> CertificateChain:
        """Return the chain of a new member.

        Args:
            identity: this node's own.
            public_key: the new member's, 32 bytes.
            name: the new member's.
            now_s: Unix seconds.

        Raises:
            NotPermitted: this node is no admin.
            CertificateInvalid: this node's own certificate no longer holds.
            UsageError: the name is too long.
        """
        if not self.verify(identity.peer_id, self.chain, now_s).may_sign:
            raise NotPermitted(
                "this node cannot admit others",
                why="only an admin signs certificates",
                hint="Invite from the node that made the mesh.",
            )
        return make_member_certificate(identity, self.chain, public_key, name, now_s=now_s)

    def save(self, folder: Path) -> None:
        """Write the credentials; the chain last, as it says that the rest is there."""
        write_private(folder / ROOT_PUBLIC_KEY_FILE, self.root_public_key.hex().encode() + b"\n", mode=0o644)
        if self.root is not None:
            self.root.save(folder / ROOT_KEY_FILE)
        write_private(folder / CHAIN_FILE, self.chain.SerializeToString())

    @classmethod
    def load(cls, folder: Path) -> Credentials:
        """Return the credentials in a folder.

        Raises:
            MeshMissing: there are none.
            ConfigurationInvalid: a file is damaged or open to others.
        """
        if not (folder / CHAIN_FILE).exists():
            raise MeshMissing("this node belongs to no mesh", why=f"{folder} holds no certificate")
        chain = CertificateChain()
        try:
            root_public_key = bytes.fromhex((folder / ROOT_PUBLIC_KEY_FILE).read_text("ascii"))
            chain.ParseFromString(read_private(folder / CHAIN_FILE))
        except (OSError, ValueError, DecodeError) as error:
            raise ConfigurationInvalid(f"the certificate in {folder} is damaged", why=str(error)) from error
        if len(root_public_key) != PUBLIC_KEY_BYTES or not chain.certificates:
            raise ConfigurationInvalid(f"the certificate in {folder} is damaged", why="a part is missing")
        root = Identity.load(folder / ROOT_KEY_FILE) if (folder / ROOT_KEY_FILE).exists() else None
        if root is not None and root.public_key != root_public_key:
            raise ConfigurationInvalid(f"{folder / ROOT_KEY_FILE} is the key of another mesh")
        return cls(root_public_key, chain, root)
