"""How a matrix came to its owner: the guardianships and promises that prove it, signed and read here.

A manifest carries one link for each time that the matrix was passed on. A link shows who guarded the matrix before, in
the words of its owner of that time, and the promises by which a majority of them made one of them the next owner. So
the chain proves itself from the first owner on; whoever reads it needs to have known nothing before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from sedmad.errors import CertificateInvalid, ProtocolViolation, UsageError
from sedmad.net.identity import Identity, public_key_of, verify
from sedmad.store.manifests import ManifestKey
from sedmad.wire import messages as wire

GUARDIANSHIP_DOMAIN = "sedma/v1/guardianship"
PROMISE_DOMAIN = "sedma/v1/promise"
# A kilobyte each, and as many owners that died one after the other: then the matrix has to be stored again.
SUCCESSIONS_MAX = 64
# SQLite keeps numbers below 2^63; half of them are enough for everybody, and whatever is told can be counted on from.
COUNTER_MAX = 1 << 62


@dataclass(frozen=True, slots=True)
class Guardianship:
    """The guardians that an owner named, in the manifest of this order."""

    key: ManifestKey
    epoch: int
    seq: int
    owner: str
    guardians: tuple[str, ...]
    guardians_before: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Vote:
    """A guardian's promise to a candidate: from now on it refuses manifests of earlier epochs."""

    key: ManifestKey
    epoch: int
    candidate: str
    guardian: str


def key_to_wire(key: ManifestKey) -> wire.MatrixKey:
    return wire.MatrixKey(matrix_digest=key.matrix_digest, first_owner=key.first_owner)


def key_from_wire(key: wire.MatrixKey) -> ManifestKey:
    return ManifestKey(key.matrix_digest, key.first_owner)


def check_counters(*counters: int) -> None:
    """Check epochs and seqs that somebody tells.

    Raises:
        ProtocolViolation: nobody has counted so far.
    """
    if max(counters) > COUNTER_MAX:
        raise ProtocolViolation("an epoch or seq is too great", why=f"{max(counters)}, at most {COUNTER_MAX}")


def sign_guardianship(guardianship: Guardianship, identity: Identity) -> bytes:
    """Return the bytes that carry a guardianship of this node's."""
    encoded = wire.Guardianship(
        key=key_to_wire(guardianship.key),
        epoch=guardianship.epoch,
        seq=guardianship.seq,
        owner=guardianship.owner,
        guardians=guardianship.guardians,
        guardians_before=guardianship.guardians_before,
    ).SerializeToString(deterministic=True)
    signature = identity.sign(GUARDIANSHIP_DOMAIN, encoded)
    return wire.SignedGuardianship(guardianship=encoded, signature=signature).SerializeToString()


def read_guardianship(signed: wire.SignedGuardianship) -> Guardianship:
    """Return what a signed guardianship says, once its owner's signature holds.

    Raises:
        ProtocolViolation, CertificateInvalid: it is malformed, or not its owner's.
    """
    try:
        message = wire.Guardianship.FromString(signed.guardianship)
        _check(message.owner, GUARDIANSHIP_DOMAIN, signed.guardianship, signed.signature)
    except (DecodeError, UsageError) as error:
        raise ProtocolViolation("a guardianship is malformed", why=str(error)) from error
    check_counters(message.epoch, message.seq)
    key = key_from_wire(message.key)
    return Guardianship(
        key,
        message.epoch,
        message.seq,
        message.owner,
        tuple(message.guardians),
        tuple(message.guardians_before),
    )


def sign_vote(vote: Vote, identity: Identity) -> bytes:
    """Return the bytes that carry a vote of this node's."""
    encoded = wire.Promise(
        key=key_to_wire(vote.key), epoch=vote.epoch, candidate=vote.candidate, guardian=vote.guardian
    ).SerializeToString(deterministic=True)
    return wire.SignedPromise(
        promise=encoded, signature=identity.sign(PROMISE_DOMAIN, encoded)
    ).SerializeToString()


def read_vote(signed: wire.SignedPromise) -> Vote:
    """Return what a signed promise says, once its guardian's signature holds.

    Raises:
        ProtocolViolation, CertificateInvalid: it is malformed, or not its guardian's.
    """
    try:
        message = wire.Promise.FromString(signed.promise)
        _check(message.guardian, PROMISE_DOMAIN, signed.promise, signed.signature)
    except (DecodeError, UsageError) as error:
        raise ProtocolViolation("a promise is malformed", why=str(error)) from error
    check_counters(message.epoch)
    return Vote(key_from_wire(message.key), message.epoch, message.candidate, message.guardian)


def succession(before: bytes, promises: Iterable[bytes]) -> bytes:
    """Return one link of the chain: the last owner's guardianship, and the promises of most of those guardians."""
    return wire.Succession(
        before=wire.SignedGuardianship.FromString(before),
        promises=[wire.SignedPromise.FromString(promise) for promise in promises],
    ).SerializeToString()


def begun_in(epoch: int, links: Sequence[bytes]) -> int:
    """Return the epoch in which its first owner began a matrix, by a manifest's epoch and encoded links.

    It begins again, in an epoch later than all before, where another owner had ended it.
    """
    if not links:
        return epoch
    before = wire.Succession.FromString(links[0]).before
    return wire.Guardianship.FromString(before.guardianship).epoch


def check_successions(key: ManifestKey, owner: str, epoch: int, links: Sequence[wire.Succession]) -> None:
    """Check that a matrix came from its first owner to `owner`, in `epoch`.

    Raises:
        CertificateInvalid: it did not.
        ProtocolViolation: a link is malformed.
    """
    if len(links) > SUCCESSIONS_MAX:
        raise ProtocolViolation(
            "a matrix was passed on too often", why=f"{len(links)} times, at most {SUCCESSIONS_MAX}"
        )
    if not links and owner == key.first_owner:
        return
    holder, reached = key.first_owner, -1
    for link in links:
        before = read_guardianship(link.before)
        if before.key != key or before.owner != holder or (reached >= 0 and before.epoch != reached):
            raise _never_passed(owner, "a link speaks of another matrix, owner or epoch")
        holder, reached = _elected(key, before, [read_vote(promise) for promise in link.promises], owner)
    if (holder, reached) != (owner, epoch):
        raise _never_passed(owner, f"the guardians made {holder} its owner in epoch {reached}")


def _elected(key: ManifestKey, before: Guardianship, votes: Sequence[Vote], owner: str) -> tuple[str, int]:
    """Return whom the guardians voted for, and the epoch."""
    elections = {(vote.candidate, vote.epoch) for vote in votes if vote.key == key}
    voters = {vote.guardian for vote in votes if vote.key == key}.intersection(before.guardians)
    if len(elections) != 1 or 2 * len(voters) <= len(set(before.guardians)):
        raise _never_passed(owner, "no majority of its guardians promised one node their votes")
    ((candidate, epoch),) = elections
    if candidate not in before.guardians or epoch <= before.epoch:
        raise _never_passed(owner, "the votes are for no guardian, or for no later epoch")
    return candidate, epoch


def _never_passed(owner: str, why: str) -> CertificateInvalid:
    return CertificateInvalid("a manifest's ownership never passed to its owner", why=why, node=owner)


def _check(signer: str, domain: str, encoded: bytes, signature: bytes) -> None:
    if not verify(public_key_of(signer), domain, encoded, signature):
        raise CertificateInvalid("a proof of ownership is not signed by the node that it names", node=signer)
