"""Chains of certificates: which hold, which do not, and why."""

from __future__ import annotations

import stat

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from sedmad.errors import CertificateInvalid, ConfigurationInvalid, MeshMissing, NotPermitted, UsageError
from sedmad.net.certificates import (
    ADMIN_LIFETIME_S,
    CERTIFICATE_DOMAIN,
    CLOCK_TOLERANCE_S,
    MEMBER_LIFETIME_S,
    certificate_digest,
    make_admin_certificate,
    make_member_certificate,
    verify_chain,
)
from sedmad.net.credentials import Credentials
from sedmad.net.identity import Identity
from sedmad.wire.messages import Certificate, CertificateChain, CertificateRole, SignedCertificate

NOW_S = 1_800_000_000
ROOT, ADMIN, MEMBER, STRANGER = (Identity.from_seed(bytes([number]) * 32) for number in range(4))
ADMIN_CHAIN = make_admin_certificate(ROOT, ADMIN.public_key, "first", now_s=NOW_S)
MEMBER_CHAIN = make_member_certificate(ADMIN, ADMIN_CHAIN, MEMBER.public_key, "second", now_s=NOW_S)


def refused(chain: CertificateChain, why: str, *, peer: Identity = MEMBER, now_s: float = NOW_S) -> None:
    with pytest.raises(CertificateInvalid, match=why):
        verify_chain(chain, ROOT.public_key, peer.peer_id, now_s)


def resigned(chain: CertificateChain, signer: Identity, **changes: object) -> CertificateChain:
    """Return the chain with fields of its first certificate changed, and signed again."""
    certificate = Certificate.FromString(chain.certificates[0].certificate)
    for name, value in changes.items():
        setattr(certificate, name, value)
    encoded = certificate.SerializeToString()
    signed = SignedCertificate(certificate=encoded, signature=signer.sign(CERTIFICATE_DOMAIN, encoded))
    return CertificateChain(certificates=[signed, *chain.certificates[1:]])


def test_admins_and_members_are_who_their_chains_say() -> None:
    admin = verify_chain(ADMIN_CHAIN, ROOT.public_key, ADMIN.peer_id, NOW_S)
    assert (admin.name, admin.may_sign, admin.not_after_s) == ("first", True, NOW_S + ADMIN_LIFETIME_S)
    member = verify_chain(MEMBER_CHAIN, ROOT.public_key, MEMBER.peer_id, NOW_S)
    assert (member.peer_id, member.name, member.may_sign) == (MEMBER.peer_id, "second", False)
    assert member.not_after_s == NOW_S + MEMBER_LIFETIME_S
    assert member.digest == certificate_digest(MEMBER_CHAIN) != admin.digest


def test_the_clock_may_be_two_hours_off() -> None:
    for now_s in (NOW_S - CLOCK_TOLERANCE_S, NOW_S + MEMBER_LIFETIME_S + CLOCK_TOLERANCE_S):
        verify_chain(MEMBER_CHAIN, ROOT.public_key, MEMBER.peer_id, now_s)
    refused(MEMBER_CHAIN, "begins only on 2027-01-15", now_s=NOW_S - CLOCK_TOLERANCE_S - 1)
    refused(MEMBER_CHAIN, "expired on 2027-04-15", now_s=NOW_S + MEMBER_LIFETIME_S + CLOCK_TOLERANCE_S + 1)


def test_a_member_does_not_outlive_its_admin() -> None:
    late_s = NOW_S + ADMIN_LIFETIME_S - 86_400
    chain = make_member_certificate(ADMIN, ADMIN_CHAIN, MEMBER.public_key, "late", now_s=late_s)
    assert (
        verify_chain(chain, ROOT.public_key, MEMBER.peer_id, late_s).not_after_s == NOW_S + ADMIN_LIFETIME_S
    )


def test_a_chain_speaks_for_its_holder_only() -> None:
    refused(MEMBER_CHAIN, "another node", peer=STRANGER)


def test_another_mesh_is_refused() -> None:
    other = make_admin_certificate(STRANGER, MEMBER.public_key, "x", now_s=NOW_S)
    refused(other, "another mesh")
    refused(resigned(MEMBER_CHAIN, ADMIN, mesh_id=bytes(32)), "another mesh")


def test_only_admins_sign() -> None:
    by_member = make_member_certificate(MEMBER, MEMBER_CHAIN, STRANGER.public_key, "x", now_s=NOW_S)
    refused(by_member, "issuer is no admin", peer=STRANGER)
    refused(resigned(MEMBER_CHAIN, STRANGER), "signature does not hold")
    refused(resigned(MEMBER_CHAIN, STRANGER, issuer_public_key=STRANGER.public_key), "next in the chain")


def test_admins_are_made_by_the_root_and_members_by_admins() -> None:
    admin = CertificateRole.CERTIFICATE_ROLE_ADMIN
    refused(resigned(MEMBER_CHAIN, ADMIN, role=admin), "only the root makes admins")
    member = CertificateRole.CERTIFICATE_ROLE_MEMBER
    refused(resigned(ADMIN_CHAIN, ROOT, role=member), "made by admins", peer=ADMIN)
    refused(resigned(MEMBER_CHAIN, ADMIN, role=0), "role is unknown")
    refused(resigned(MEMBER_CHAIN, ADMIN, role=9), "role is unknown")


def test_the_size_of_a_chain_is_bounded() -> None:
    refused(CertificateChain(), "none was shown")
    refused(CertificateChain(certificates=[MEMBER_CHAIN.certificates[0]] * 5), "5 certificates")
    refused(resigned(MEMBER_CHAIN, ADMIN, subject_name="x" * 129), "malformed")
    refused(resigned(MEMBER_CHAIN, ADMIN, subject_name="x" * 600), "malformed")
    refused(resigned(MEMBER_CHAIN, ADMIN, serial=b""), "malformed")
    refused(resigned(MEMBER_CHAIN, ADMIN, subject_public_key=b"k"), "malformed")
    refused(
        CertificateChain(certificates=[SignedCertificate(certificate=b"\xff", signature=bytes(64))]),
        "malformed",
    )
    for name in ("", "x" * 129):
        with pytest.raises(UsageError):
            make_member_certificate(ADMIN, ADMIN_CHAIN, MEMBER.public_key, name, now_s=NOW_S)
    with pytest.raises(UsageError):
        make_admin_certificate(ROOT, b"k", "x", now_s=NOW_S)


def test_times_beyond_the_calendar_are_told_as_numbers() -> None:
    refused(resigned(MEMBER_CHAIN, ADMIN, not_before_s=2**62), "begins only at 4611686018427387904")


ENCODED = MEMBER_CHAIN.SerializeToString()


@given(st.integers(0, len(ENCODED) - 1), st.integers(1, 255))
def test_any_flipped_byte_is_refused(position: int, flip: int) -> None:
    damaged = bytearray(ENCODED)
    damaged[position] ^= flip
    with pytest.raises((CertificateInvalid, DecodeError)):
        verify_chain(CertificateChain.FromString(bytes(damaged)), ROOT.public_key, MEMBER.peer_id, NOW_S)


@given(
    st.lists(
        st.builds(SignedCertificate, certificate=st.binary(max_size=600), signature=st.binary(max_size=70))
    )
)
def test_garbage_is_refused(certificates: list[SignedCertificate]) -> None:
    refused(CertificateChain(certificates=certificates), ".")


def test_unknown_fields_give_a_certificate_no_second_name() -> None:
    padded = CertificateChain()
    signed = MEMBER_CHAIN.certificates[0].SerializeToString() + b"\x7a\x01x"
    padded.certificates.append(SignedCertificate.FromString(signed))
    assert certificate_digest(padded) == certificate_digest(MEMBER_CHAIN)


def test_the_founder_admits_a_member_and_both_keep_their_credentials(tmp_path) -> None:
    founder = Credentials.found_mesh(ADMIN, "first", now_s=NOW_S)
    founder.save(tmp_path / "founder")
    assert stat.S_IMODE((tmp_path / "founder" / "root.key").stat().st_mode) == 0o600
    founder = Credentials.load(tmp_path / "founder")
    assert founder.root is not None

    chain = founder.admit(ADMIN, MEMBER.public_key, "second", now_s=NOW_S)
    Credentials(founder.root_public_key, chain).save(tmp_path / "member")
    member = Credentials.load(tmp_path / "member")
    assert member.root is None
    assert member.mesh_id == founder.mesh_id
    assert founder.verify(MEMBER.peer_id, member.chain, NOW_S).name == "second"
    with pytest.raises(NotPermitted):
        member.admit(MEMBER, STRANGER.public_key, "third", now_s=NOW_S)


def test_missing_and_damaged_credentials_are_told_apart(tmp_path) -> None:
    with pytest.raises(MeshMissing):
        Credentials.load(tmp_path)
    Credentials.found_mesh(ADMIN, "first", now_s=NOW_S).save(tmp_path)
    (tmp_path / "root.pub").write_text("zz")
    with pytest.raises(ConfigurationInvalid, match="damaged"):
        Credentials.load(tmp_path)
    (tmp_path / "root.pub").write_text(STRANGER.public_key.hex())
    with pytest.raises(ConfigurationInvalid, match="another mesh"):
        Credentials.load(tmp_path)
    (tmp_path / "root.key").unlink()
    (tmp_path / "chain").write_bytes(b"")
    with pytest.raises(ConfigurationInvalid, match="damaged"):
        Credentials.load(tmp_path)
