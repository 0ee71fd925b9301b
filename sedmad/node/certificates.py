"""Whose certificates hold: this node's own, those shown in sessions, and those fetched for adverts of strangers."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from sedmad.errors import CertificateInvalid, MatrixNotFound
from sedmad.net.calls import IncomingCall
from sedmad.net.certificates import VerifiedCertificate
from sedmad.net.credentials import Credentials
from sedmad.node.clock import wall_time_s
from sedmad.wire import messages as wire

# A member more than membership keeps at most; 400 bytes each.
CERTIFICATES_MAX = 4096
MEMBER_ROLES = (wire.CertificateRole.CERTIFICATE_ROLE_ADMIN, wire.CertificateRole.CERTIFICATE_ROLE_MEMBER)


class Certificates:
    """Chains that were checked, by peer id; also serves CertificateService to members."""

    def __init__(self, credentials: Credentials, own_peer_id: str) -> None:
        self._credentials = credentials
        self._chains: dict[str, wire.CertificateChain] = {}
        self._verified: dict[str, VerifiedCertificate] = {}
        self.own = self.check_member(credentials.chain, own_peer_id)

    def check_member(self, chain: wire.CertificateChain, peer_id: str) -> VerifiedCertificate:
        """Return what a member's chain says, and remember it.

        Raises:
            CertificateInvalid: it does not hold, or its holder is no member.
        """
        verified = self._credentials.verify(peer_id, chain, wall_time_s())
        if verified.role not in MEMBER_ROLES:
            raise CertificateInvalid("a client's certificate does not make a member", node=peer_id)
        if peer_id in self._verified or len(self._verified) < CERTIFICATES_MAX:
            self._verified[peer_id] = verified
            self._chains[peer_id] = chain
        return verified

    def vouches_for(self, peer_id: str, digest: bytes) -> bool:
        """Whether an advert that names this certificate speaks for a member."""
        verified = self._verified.get(peer_id)
        return verified is not None and verified.digest == digest

    def check_fetched(self, encoded_chain: bytes, peer_id: str) -> VerifiedCertificate:
        """Return what a chain fetched from a third party says, and remember it; see check_member."""
        try:
            chain = wire.CertificateChain.FromString(encoded_chain)
        except DecodeError as error:
            raise CertificateInvalid("a certificate is malformed", why=str(error), node=peer_id) from error
        return self.check_member(chain, peer_id)

    async def get_certificate(
        self, request: wire.GetCertificateRequest, call: IncomingCall
    ) -> wire.GetCertificateResponse:
        """Give a member the chain of another."""
        chain = self._chains.get(request.peer_id)
        if chain is None:
            raise MatrixNotFound("this node has not seen that certificate", node=request.peer_id, hint="")
        return wire.GetCertificateResponse(chain=chain.SerializeToString())
