"""Membership on paper: the root signs admins, admins sign members and clients; `verify_chain` says who
somebody is.

Pure: the time is an argument, chance only gives serials. What the messages hold is in certificate.proto.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from google.protobuf.message import DecodeError

from sedmad.errors import CertificateInvalid, UsageError
from sedmad.net.identity import Identity, verify
from sedmad.net.peer_id import PUBLIC_KEY_BYTES, peer_id_of
from sedmad.wire.messages import Certificate, CertificateChain, CertificateRole, SignedCertificate

CERTIFICATE_DOMAIN = "sedma/v1/certificate"
# Members renew by themselves while they are up; a laptop in a drawer for a season must be renewed by an
# admin.
MEMBER_LIFETIME_S = 90 * 86_400
# Only the root can renew an admin, and the root may lie in a safe; an admin that went astray is revoked, not
# outlived.
ADMIN_LIFETIME_S = 10 * 365 * 86_400
# Clocks of laptops and boards without a battery are off by a time zone's hour or two.
CLOCK_TOLERANCE_S = 2 * 3600
CHAIN_CERTIFICATES_MAX = 4
# Keys, serial and times take 170 bytes; the rest is the name.
CERTIFICATE_BYTES_MAX = 512
SUBJECT_NAME_BYTES_MAX = 128
SERIAL_BYTES = 16
SIGNATURE_BYTES = 64


@dataclass(frozen=True, slots=True)
class VerifiedCertificate:
    """What a chain that holds says.

    Attributes:
        peer_id: the holder.
        name: its name when the certificate was made; a label, not an authority.
        role: a CertificateRole.
        not_after_s: Unix seconds.
        digest: 32 bytes that name the holder's certificate.
    """

    peer_id: str
    name: str
    role: CertificateRole.ValueType
    not_after_s: int
    digest: bytes

    @property
    def may_sign(self) -> bool:
        """Whether the holder may make certificates for members and clients."""
        return self.role == CertificateRole.CERTIFICATE_ROLE_ADMIN


def mesh_id_of(root_public_key: bytes) -> bytes:
    """Return the 32 bytes that name a mesh."""
    return hashlib.sha256(root_public_key).digest()


def certificate_digest(chain: CertificateChain) -> bytes:
    """Return SHA-256 of the holder's signed certificate, as adverts name it."""
    holder = chain.certificates[0]
    # Built anew, so that unknown fields on the wire do not give one certificate several names.
    canonical = SignedCertificate(certificate=holder.certificate, signature=holder.signature)
    return hashlib.sha256(canonical.SerializeToString(deterministic=True)).digest()


def make_admin_certificate(
    root: Identity, subject_public_key: bytes, name: str, *, now_s: int
) -> CertificateChain:
    """Return an admin's chain, one certificate signed by the root, valid for ADMIN_LIFETIME_S."""
    role = CertificateRole.CERTIFICATE_ROLE_ADMIN
    signed = _make(
        root, mesh_id_of(root.public_key), role, subject_public_key, name, now_s, now_s + ADMIN_LIFETIME_S
    )
    return CertificateChain(certificates=[signed])


def make_member_certificate(
    admin: Identity,
    admin_chain: CertificateChain,
    subject_public_key: bytes,
    name: str,
    *,
    now_s: int,
    role: CertificateRole.ValueType = CertificateRole.CERTIFICATE_ROLE_MEMBER,
) -> CertificateChain:
    """Return the chain of a new member or client, valid for MEMBER_LIFETIME_S, at most as long as the admin's
    own.

    Raises:
        UsageError: the name is too long or the key no key.
    """
    above = _parse(admin_chain.certificates[0])
    not_after_s = min(now_s + MEMBER_LIFETIME_S, above.not_after_s)
    signed = _make(admin, above.mesh_id, role, subject_public_key, name, now_s, not_after_s)
    return CertificateChain(certificates=[signed, *admin_chain.certificates])


def verify_chain(
    chain: CertificateChain, root_public_key: bytes, subject_peer_id: str, now_s: float
) -> VerifiedCertificate:
    """Return what a chain says of its holder, having checked all of it.

    Args:
        chain: from the holder's certificate up to the one that the root signed.
        root_public_key: 32 bytes; the mesh.
        subject_peer_id: the peer that showed the chain, as the connection authenticated it.
        now_s: Unix seconds.

    Raises:
        CertificateInvalid: with the reason why.
    """
    signed = chain.certificates
    if not 1 <= len(signed) <= CHAIN_CERTIFICATES_MAX:
        why = f"the chain has {len(signed)} certificates" if signed else "none was shown"
        raise CertificateInvalid(
            f"{subject_peer_id} has no certificate of this mesh", why=why, node=subject_peer_id
        )
    try:
        links = [_parse(certificate) for certificate in signed]
        if peer_id_of(links[0].subject_public_key) != subject_peer_id:
            raise _Refused("it was made for another node")
        issuers = [link.subject_public_key for link in links[1:]] + [root_public_key]
        for link, outer, issuer in zip(links, signed, issuers, strict=True):
            _check(link, outer, issuer, root_public_key, now_s)
        _check_roles(links)
    except _Refused as refused:
        raise CertificateInvalid(
            f"the certificate of {subject_peer_id} is not valid here", why=str(refused), node=subject_peer_id
        ) from None
    holder = links[0]
    return VerifiedCertificate(
        subject_peer_id,
        holder.subject_name,
        holder.role,
        min(link.not_after_s for link in links),
        certificate_digest(chain),
    )


class _Refused(Exception):
    """Why a chain does not hold."""


def _make(
    issuer: Identity,
    mesh_id: bytes,
    role: CertificateRole.ValueType,
    subject_public_key: bytes,
    name: str,
    not_before_s: int,
    not_after_s: int,
) -> SignedCertificate:
    if not 1 <= len(name.encode()) <= SUBJECT_NAME_BYTES_MAX:
        raise UsageError("the name of a node must have 1 to 128 bytes", why=f"it has {len(name.encode())}")
    if len(subject_public_key) != PUBLIC_KEY_BYTES:
        raise UsageError("not an Ed25519 public key", why=f"it has {len(subject_public_key)} bytes, not 32")
    encoded = Certificate(
        mesh_id=mesh_id,
        serial=secrets.token_bytes(SERIAL_BYTES),
        role=role,
        subject_public_key=subject_public_key,
        subject_name=name,
        issuer_public_key=issuer.public_key,
        not_before_s=not_before_s,
        not_after_s=not_after_s,
    ).SerializeToString(deterministic=True)
    return SignedCertificate(certificate=encoded, signature=issuer.sign(CERTIFICATE_DOMAIN, encoded))


def _parse(signed: SignedCertificate) -> Certificate:
    if len(signed.certificate) > CERTIFICATE_BYTES_MAX or len(signed.signature) != SIGNATURE_BYTES:
        raise _Refused("it is malformed")
    certificate = Certificate()
    try:
        certificate.ParseFromString(signed.certificate)
    except DecodeError:
        raise _Refused("it is malformed") from None
    if (
        len(certificate.subject_public_key) != PUBLIC_KEY_BYTES
        or len(certificate.serial) != SERIAL_BYTES
        or len(certificate.subject_name.encode()) > SUBJECT_NAME_BYTES_MAX
    ):
        raise _Refused("it is malformed")
    return certificate


def _check(
    certificate: Certificate,
    signed: SignedCertificate,
    issuer_public_key: bytes,
    root_public_key: bytes,
    now_s: float,
) -> None:
    if certificate.mesh_id != mesh_id_of(root_public_key):
        raise _Refused("it belongs to another mesh")
    if certificate.issuer_public_key != issuer_public_key:
        raise _Refused("its issuer is not the next in the chain")
    if not verify(issuer_public_key, CERTIFICATE_DOMAIN, signed.certificate, signed.signature):
        raise _Refused("its signature does not hold")
    if now_s > certificate.not_after_s + CLOCK_TOLERANCE_S:
        raise _Refused(f"it expired {_when(certificate.not_after_s)}")
    if now_s < certificate.not_before_s - CLOCK_TOLERANCE_S:
        raise _Refused(f"it begins only {_when(certificate.not_before_s)}; is this node's clock right?")


def _check_roles(links: Iterable[Certificate]) -> None:
    """The root signs admins and nobody else; admins sign members and clients and no admins."""
    holder, *above = links
    if holder.role == CertificateRole.CERTIFICATE_ROLE_ADMIN:
        if above:
            raise _Refused("only the root makes admins")
    elif holder.role not in (
        CertificateRole.CERTIFICATE_ROLE_MEMBER,
        CertificateRole.CERTIFICATE_ROLE_CLIENT,
    ):
        raise _Refused("its role is unknown")
    elif not above:
        raise _Refused("members and clients are made by admins")
    if len(above) > 1 or any(link.role != CertificateRole.CERTIFICATE_ROLE_ADMIN for link in above):
        raise _Refused("its issuer is no admin")


def _when(unix_s: int) -> str:
    try:
        return f"on {datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d at %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return f"at {unix_s} Unix seconds"
