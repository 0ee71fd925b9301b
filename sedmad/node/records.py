"""Adverts and claims between the membership core and the wire: signed here, checked here, and nowhere else."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from sedmad.core.membership.advert import Advert
from sedmad.core.membership.claim import Claim
from sedmad.core.membership.record import Record, SignedRecord
from sedmad.errors import CertificateInvalid, ProtocolViolation, UsageError
from sedmad.net.identity import Identity, public_key_of, verify
from sedmad.wire import messages as wire

ADVERT_DOMAIN = "sedma/v1/advert"
CLAIM_DOMAIN = "sedma/v1/claim"
AUTHORSHIP_DOMAIN = "sedma/v1/authorship"

DATA_TYPES = {
    "float16": wire.DATA_TYPE_FLOAT16,
    "float32": wire.DATA_TYPE_FLOAT32,
    "float64": wire.DATA_TYPE_FLOAT64,
    "int8": wire.DATA_TYPE_INT8,
}
DTYPES: dict[int, str] = {number: name for name, number in DATA_TYPES.items()}
NODE_STATES = {
    "starting": wire.NODE_STATE_STARTING,
    "ready": wire.NODE_STATE_READY,
    "draining": wire.NODE_STATE_DRAINING,
}
NODE_STATE_NAMES: dict[int, str] = {number: name for name, number in NODE_STATES.items()}
PEER_STATES = {
    "alive": wire.PEER_STATE_ALIVE,
    "suspect": wire.PEER_STATE_SUSPECT,
    "dead": wire.PEER_STATE_DEAD,
}
_ADVERT_AMOUNTS = (
    "memory_pledged_bytes",
    "memory_used_bytes",
    "memory_free_bytes",
    "memory_short_bytes",
    "disk_pledged_bytes",
    "disk_used_bytes",
    "compute_gflops",
    "memory_bandwidth_bytes_per_s",
    "cells_pledged",
    "cells_used",
    "queue_s",
    "service_s",
    "wall_time_s",
)


def sign_record(record: Record, identity: Identity) -> bytes:
    """Return the bytes that carry a record of this node."""
    if isinstance(record, Advert):
        encoded = _advert_to_wire(record).SerializeToString()
        signed = wire.SignedRecord(advert=encoded, signature=identity.sign(ADVERT_DOMAIN, encoded))
    else:
        message = _claim_to_wire(record)
        if record.first_owner == identity.peer_id:
            message.authorship = identity.sign(AUTHORSHIP_DOMAIN, _authored(record))
        encoded = message.SerializeToString()
        signed = wire.SignedRecord(claim=encoded, signature=identity.sign(CLAIM_DOMAIN, encoded))
    return signed.SerializeToString()


def read_record(signed: bytes) -> SignedRecord:
    """Return what signed bytes say, once the signature of the node they speak of holds.

    Raises:
        ProtocolViolation, CertificateInvalid: the record is malformed, or not signed by whom it names.
    """
    record: Record
    try:
        envelope = wire.SignedRecord.FromString(signed)
        if envelope.WhichOneof("kind") == "advert":
            advert = _advert_from_wire(wire.Advert.FromString(envelope.advert))
            record, signer, domain, encoded = advert, advert.peer_id, ADVERT_DOMAIN, envelope.advert
        else:
            claim = _claim_from_wire(wire.Claim.FromString(envelope.claim))
            record, signer, domain, encoded = claim, claim.owner, CLAIM_DOMAIN, envelope.claim
        if not verify(public_key_of(signer), domain, encoded, envelope.signature):
            raise CertificateInvalid("a record is not signed by the node that it speaks of", node=signer)
        if isinstance(record, Claim):
            _check_authorship(record)
    except (DecodeError, UsageError) as error:
        raise ProtocolViolation("a record is malformed", why=str(error)) from error
    return SignedRecord(record, signed)


def _advert_to_wire(advert: Advert) -> wire.Advert:
    message = wire.Advert(
        peer_id=advert.peer_id,
        name=advert.name,
        sequence=advert.sequence,
        addresses=advert.addresses,
        labels=dict(advert.labels),
        software_version=advert.version,
        state=NODE_STATES[advert.state],
        device_profile=advert.device_profile,
        certificate_digest=advert.certificate_digest,
    )
    for amount in _ADVERT_AMOUNTS:
        setattr(message, amount, getattr(advert, amount))
    return message


def _advert_from_wire(message: wire.Advert) -> Advert:
    return Advert(
        peer_id=message.peer_id,
        name=message.name,
        sequence=message.sequence,
        addresses=tuple(message.addresses),
        labels=tuple(sorted(message.labels.items())),
        version=message.software_version,
        state=NODE_STATE_NAMES.get(message.state, "starting"),  # type: ignore[arg-type]
        device_profile=message.device_profile,
        certificate_digest=message.certificate_digest,
        **{amount: getattr(message, amount) for amount in _ADVERT_AMOUNTS},
    )


def _claim_to_wire(claim: Claim) -> wire.Claim:
    return wire.Claim(
        name=claim.name,
        version=claim.version,
        matrix_digest=claim.matrix_digest,
        first_owner=claim.first_owner,
        owner=claim.owner,
        epoch=claim.epoch,
        seq=claim.seq,
        clock=claim.clock,
        guardians=claim.guardians,
        ancestors=[wire.Ancestor(author=author, version=version) for author, version in claim.ancestors],
        removed=claim.removed,
        rows=claim.rows,
        columns=claim.columns,
        data_type=DATA_TYPES.get(claim.dtype, wire.DATA_TYPE_UNSPECIFIED),
        survive=claim.survive,
        wall_time_s=claim.wall_time_s,
        authorship=claim.authorship,
    )


def _check_authorship(claim: Claim) -> None:
    author = public_key_of(claim.first_owner)
    if not verify(author, AUTHORSHIP_DOMAIN, _authored(claim), claim.authorship):
        raise CertificateInvalid("a claim says what its author did not", node=claim.owner, matrix=claim.name)


def _authored(claim: Claim) -> bytes:
    """Return what the author of a claim fixed, as it is signed."""
    return wire.Claim(
        name=claim.name,
        version=claim.version,
        matrix_digest=claim.matrix_digest,
        first_owner=claim.first_owner,
        clock=claim.clock,
        ancestors=[wire.Ancestor(author=author, version=version) for author, version in claim.ancestors],
        rows=claim.rows,
        columns=claim.columns,
        data_type=DATA_TYPES.get(claim.dtype, wire.DATA_TYPE_UNSPECIFIED),
    ).SerializeToString(deterministic=True)


def _claim_from_wire(message: wire.Claim) -> Claim:
    return Claim(
        name=message.name,
        version=message.version,
        matrix_digest=message.matrix_digest,
        first_owner=message.first_owner,
        owner=message.owner,
        epoch=message.epoch,
        seq=message.seq,
        clock=message.clock,
        guardians=tuple(message.guardians),
        ancestors=tuple((ancestor.author, ancestor.version) for ancestor in message.ancestors),
        removed=message.removed,
        rows=message.rows,
        columns=message.columns,
        dtype=DTYPES.get(message.data_type, ""),
        survive=message.survive,
        wall_time_s=message.wall_time_s,
        authorship=message.authorship,
    )
