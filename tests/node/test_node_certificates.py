from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from examples import identity_of
from rig import fails_with
from stand_ins import PeerCall

from sedmad.errors import CertificateInvalid, MatrixNotFound
from sedmad.net.certificates import make_member_certificate
from sedmad.net.credentials import Credentials
from sedmad.node import certificates as module
from sedmad.node.certificates import Certificates
from sedmad.node.clock import wall_time_s
from sedmad.wire import messages as wire

ADMIN, MEMBER, OTHER = identity_of("ann"), identity_of("ben"), identity_of("cyd")
CREDENTIALS = Credentials.found_mesh(ADMIN, "ann", now_s=int(wall_time_s()))


def chain_of(identity: Any, **options: Any) -> wire.CertificateChain:
    now_s = int(wall_time_s())
    return make_member_certificate(
        ADMIN, CREDENTIALS.chain, identity.public_key, "name", now_s=now_s, **options
    )


@pytest.fixture
def certificates() -> Certificates:
    return Certificates(CREDENTIALS, ADMIN.peer_id)


def test_members_are_known_by_what_they_showed(certificates: Certificates) -> None:
    verified = certificates.check_member(chain_of(MEMBER), MEMBER.peer_id)
    assert certificates.vouches_for(MEMBER.peer_id, verified.digest)
    assert not certificates.vouches_for(MEMBER.peer_id, bytes(32))
    assert not certificates.vouches_for(OTHER.peer_id, verified.digest)
    assert certificates.vouches_for(ADMIN.peer_id, certificates.own.digest)


def test_a_clients_certificate_makes_no_member(certificates: Certificates) -> None:
    chain = chain_of(MEMBER, role=wire.CertificateRole.CERTIFICATE_ROLE_CLIENT)
    with pytest.raises(CertificateInvalid, match="client"):
        certificates.check_member(chain, MEMBER.peer_id)
    assert not certificates.vouches_for(MEMBER.peer_id, b"")


def test_nobody_shows_anothers_certificate(certificates: Certificates) -> None:
    with pytest.raises(CertificateInvalid):
        certificates.check_member(chain_of(MEMBER), OTHER.peer_id)


@pytest.mark.parametrize("encoded", [b"\xff\xff", b"", b"\x0a\x01x"])
def test_a_malformed_chain_is_the_peers_fault(encoded: bytes, certificates: Certificates) -> None:
    with pytest.raises(CertificateInvalid):
        certificates.check_fetched(encoded, MEMBER.peer_id)


async def test_members_get_the_chains_of_others(certificates: Certificates) -> None:
    chain = chain_of(MEMBER)
    call: Any = PeerCall("x")
    request = wire.GetCertificateRequest(peer_id=MEMBER.peer_id)
    await fails_with(MatrixNotFound, partial(certificates.get_certificate, request, call))
    certificates.check_fetched(chain.SerializeToString(), MEMBER.peer_id)
    response = await certificates.get_certificate(request, call)
    assert Certificates(CREDENTIALS, ADMIN.peer_id).check_fetched(response.chain, MEMBER.peer_id)


def test_only_so_many_are_remembered(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CERTIFICATES_MAX", 2)
    for number in range(4):
        identity = identity_of(str(number))
        digest = certificates.check_member(chain_of(identity), identity.peer_id).digest
        assert certificates.vouches_for(identity.peer_id, digest) == (number == 0)
