"""What a hostile member knows: valid messages of its mesh to begin with, and keys to sign what it makes of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from chance import Chance
from drawing import Drawer, Vocabulary
from examples import identity_of, manifest_of
from google.protobuf.message import Message

from sedmad.core.membership.advert import Advert
from sedmad.core.membership.claim import Claim
from sedmad.net.certificates import CERTIFICATE_DOMAIN, make_admin_certificate
from sedmad.net.credentials import Credentials
from sedmad.net.join import JOIN_METHOD
from sedmad.node.clock import wall_time_s
from sedmad.node.manifest import MANIFEST_DOMAIN, Manifest, read_manifest, sign_manifest
from sedmad.node.records import ADVERT_DOMAIN, AUTHORSHIP_DOMAIN, CLAIM_DOMAIN, sign_record
from sedmad.node.succession import (
    GUARDIANSHIP_DOMAIN,
    PROMISE_DOMAIN,
    Vote,
    key_to_wire,
    sign_vote,
    succession,
)
from sedmad.store.digests import partition_digest
from sedmad.store.holdings import Kind
from sedmad.store.manifests import ManifestKey
from sedmad.wire import messages as wire
from sedmad.wire.matrix_digest import matrix_digest
from sedmad.wire.methods import PACKAGE, services
from sedmad.wire.token import encode_token

ROOT, ANN, MALLORY, BOB = (identity_of(name) for name in ("root", "ann", "mallory", "bob"))
# The node under attack never signs for the attacker.
SIGNERS = {identity.peer_id: identity for identity in (MALLORY, BOB)}
NOW_S = int(wall_time_s())
MESH = Credentials(
    ROOT.public_key, make_admin_certificate(ROOT, ANN.public_key, "ann", now_s=NOW_S), root=ROOT
)
CHAINS = {
    identity.peer_id: MESH.admit(ANN, identity.public_key, name, now_s=NOW_S)
    for name, identity in (("mallory", MALLORY), ("bob", BOB))
}
SECRET = bytes(range(32))
METHODS = tuple(
    f"{PACKAGE}.{service.name}/{method.name}" for service in services().values() for method in service.methods
)


# What the node has stored when it is attacked: zeros, as `v`.
STORED = wire.PutMatrixRequest(name="v", rows=64, columns=16, data_type=wire.DATA_TYPE_FLOAT32)
STORED_BYTES = 64 * 16 * 4


def stored_key() -> tuple[ManifestKey, bytes]:
    """Return the key of `v`, and the digest of its one partition."""
    digest = partition_digest(bytes(STORED_BYTES))
    content = matrix_digest(STORED.data_type, STORED.rows, STORED.columns, 64, [digest])
    return ManifestKey(content, ANN.peer_id), digest


def drawer(data: bytes) -> Drawer:
    """Return what draws messages as these bytes decide."""
    return Drawer(Chance(data), VOCABULARY, SEALS)


def token() -> wire.InvitationToken:
    return wire.InvitationToken(
        root_public_key=ROOT.public_key,
        inviter_peer_id=ANN.peer_id,
        addresses=["/ip4/10.0.0.1/tcp/4717"],
        secret=SECRET,
        expires_s=NOW_S + 3600,
    )


def _manifests() -> list[Manifest]:
    """Return a manifest of mallory's, and the one that bob wrote when he took the matrix over."""
    guardians = (MALLORY.peer_id, BOB.peer_id, ANN.peer_id)
    first = manifest_of(300, 50, key=None, owner=MALLORY.peer_id, guardians=guardians)
    content = matrix_digest(
        wire.DATA_TYPE_FLOAT32, first.rows, first.columns, first.partition_rows, first.digests
    )
    key = ManifestKey(content, MALLORY.peer_id)
    copies = tuple({MALLORY.peer_id: Kind.RESIDENT} for _ in first.copies)
    first = read_manifest(sign_manifest(replace(first, key=key, copies=copies), MALLORY))
    copies = tuple({ANN.peer_id: Kind.RESIDENT, MALLORY.peer_id: Kind.STANDBY} for _ in first.copies)
    votes = [sign_vote(Vote(key, 1, BOB.peer_id, voter.peer_id), voter) for voter in (MALLORY, BOB)]
    link = succession(first.guardianship, votes)
    second = replace(first, owner=BOB.peer_id, epoch=1, seq=2, successions=(link,), copies=copies)
    return [first, read_manifest(sign_manifest(second, BOB))]


def _examples() -> list[Message]:
    first, second = _manifests()
    key = key_to_wire(first.key)
    stored, stored_digest = stored_key()
    here = key_to_wire(stored)
    claim = Claim(
        name="w",
        version=1,
        matrix_digest=first.key.matrix_digest,
        first_owner=MALLORY.peer_id,
        owner=MALLORY.peer_id,
        rows=300,
        columns=50,
        dtype="float32",
        survive=1,
        clock=5,
    )
    adverts = [
        Advert(peer_id, name, 7, state="ready", memory_pledged_bytes=1 << 30, disk_pledged_bytes=1 << 30)
        for name, peer_id in (("mallory", MALLORY.peer_id), ("bob", BOB.peer_id))
    ]
    records = [
        wire.SignedRecord.FromString(sign_record(record, SIGNERS[_speaker(record)]))
        for record in (claim, *adverts)
    ]
    signed = [sign_manifest(first, MALLORY), sign_manifest(second, BOB)]
    vote = wire.SignedPromise.FromString(sign_vote(Vote(first.key, 3, MALLORY.peer_id, BOB.peer_id), BOB))
    requests = [
        wire.FrameHeader(
            kind=wire.FRAME_KIND_REQUEST,
            call_id=3,
            sequence=1,
            method=method,
            message=wire.GetManifestRequest(key=key).SerializeToString(),
            remaining_ms=1000,
        )
        for method in (*METHODS, JOIN_METHOD)
    ]
    return [
        *CHAINS.values(),
        *records,
        *[wire.Claim.FromString(record.claim) for record in records if record.claim],
        *[wire.Advert.FromString(record.advert) for record in records if record.advert],
        *signed,
        *[wire.Manifest.FromString(manifest.manifest) for manifest in signed],
        *[wire.Guardianship.FromString(manifest.guardianship.guardianship) for manifest in signed],
        *[wire.Certificate.FromString(chain.certificates[0].certificate) for chain in CHAINS.values()],
        *requests,
        wire.Promise.FromString(vote.promise),
        wire.PromiseVoteRequest(key=key, epoch=3),
        wire.PromiseVoteResponse(promise=vote, manifest=signed[0], established=True, epoch=3),
        wire.StoreManifestRequest(manifest=signed[0], claim=records[0], established=True),
        wire.StoreManifestRequest(manifest=signed[1], put_id=bytes(16)),
        wire.GetManifestResponse(manifest=signed[1], established=True),
        wire.CompareManifestsRequest(known=[wire.ManifestOrder(key=key, epoch=0, seq=1, established=True)]),
        wire.CompareManifestsResponse(newer=signed),
        wire.GetCertificateRequest(peer_id=BOB.peer_id),
        wire.GetCertificateResponse(chain=CHAINS[BOB.peer_id].SerializeToString()),
        wire.ReserveCopiesRequest(
            put_id=bytes(16),
            resident_bytes=first.size_bytes,
            disk_bytes=first.size_bytes,
            rows=300,
            columns=50,
            data_type=wire.DATA_TYPE_FLOAT32,
        ),
        wire.ReserveCopiesRequest(
            put_id=bytes(16),
            resident_bytes=first.size_bytes,
            rows=300,
            columns=50,
            data_type=wire.DATA_TYPE_FLOAT32,
            target_error=0.05,
            profile="wan2022",
            cells=1 << 40,
        ),
        wire.HoldCopyRequest(
            put_id=bytes(16),
            partition_index=0,
            digest=first.digests[0],
            kind=wire.COPY_KIND_RESIDENT,
            sources=[MALLORY.peer_id],
        ),
        wire.ReleasePutRequest(put_id=bytes(16)),
        wire.FetchPartitionRequest(digest=stored_digest),
        wire.MultiplyPartitionsRequest(key=here, seq=1, partitions=[0], columns=1),
        wire.MultiplyPartitionsRequest(key=key, seq=1, partitions=[0], columns=1, noise_keys=[7]),
        wire.DescribeDevicesRequest(key=here),
        wire.DescribeDevicesResponse(
            copies=[wire.DeviceReport(partition_index=0, profile="wan2022", measured_error=0.04, levers=["replicas"])]
        ),
        wire.GetManifestRequest(key=here),
        wire.CompareManifestsRequest(known=[wire.ManifestOrder(key=here, epoch=0, seq=2)]),
        wire.PromiseVoteRequest(key=here, epoch=1),
        wire.StoreReport(copies=1, corrupt=[wire.StoreFault(digest=first.digests[0], key=key)]),
        wire.PutMatrixRequest(name="w", rows=64, columns=16, data_type=wire.DATA_TYPE_FLOAT32, survive=1),
        STORED,
        wire.PutMatrixRequest(
            name="v", rows=16, columns=64, data_type=wire.DATA_TYPE_FLOAT32, replace=True
        ),
        wire.PutMatrixRequest(
            name="noisy", rows=64, columns=16, data_type=wire.DATA_TYPE_FLOAT32, target_error=0.05, profile="wan2022"
        ),
        wire.ApplyMatrixRequest(name="v", columns=1, transposed=True, explain=True, noise_request=5),
        wire.ApplyMatrixRequest(name="w", columns=1),
        wire.GetMatrixRequest(name="w"),
        wire.ApplyMatrixRequest(name="v", columns=1),
        wire.GetMatrixRequest(name="v"),
        wire.RemoveMatrixRequest(name="w"),
        wire.InspectMatrixRequest(name="w"),
        wire.RemoveNameRequest(name="v"),
        wire.CreateInvitationRequest(expires_s=3600),
        wire.SessionHello(chain=CHAINS[MALLORY.peer_id], session_id=5, wall_time_s=NOW_S),
        wire.JoinRequest(secret=SECRET, name="dan"),
        wire.JoinResponse(chain=CHAINS[BOB.peer_id]),
        token(),
        wire.MembershipMessage(probe=wire.Probe(probe_id=1), records=records),
        wire.MembershipMessage(digests=wire.Digests(values=range(8))),
        wire.MembershipMessage(
            inventory=wire.Inventory(bucket_count=8, buckets=[1], keys=[1, 2], stamps=[3, 4])
        ),
        wire.MembershipMessage(gossip=wire.Gossip(wanted=[1, 2], repair=True), records=records),
        wire.MembershipMessage(indirect_probe=wire.IndirectProbe(probe_id=4, target=BOB.peer_id)),
        wire.Rumour(kind=wire.RUMOUR_KIND_DEAD, peer_id=BOB.peer_id, advert_sequence=7, accuser=MALLORY.peer_id),
    ]  # fmt: skip


def _speaker(record: Advert | Claim) -> str:
    return record.peer_id if isinstance(record, Advert) else record.owner


def _signed(domain: str, message: Message, peer_id: str) -> tuple[bytes, bytes]:
    """Return a message's bytes and a signature for them: that of whom it names, where mallory has the key."""
    encoded = message.SerializeToString()
    return encoded, SIGNERS.get(peer_id, MALLORY).sign(domain, encoded)


def _drawn(source: Drawer, message_class: type[Message]) -> Any:
    return source.unsealed(message_class.DESCRIPTOR)


def _seal_manifest(source: Drawer) -> Message:
    manifest = _drawn(source, wire.Manifest)
    if not source.chance.one_in(3):
        digests = [partition.digest for partition in manifest.partitions]
        shape = (manifest.data_type, manifest.rows, manifest.columns, manifest.partition_rows)
        manifest.matrix_digest = matrix_digest(*shape, digests)
    names = ("epoch", "seq", "owner", "guardians", "guardians_before")
    guardianship = wire.Guardianship(
        key=wire.MatrixKey(matrix_digest=manifest.matrix_digest, first_owner=manifest.first_owner),
        **{name: getattr(manifest, name) for name in names},
    )
    encoded, signature = _signed(MANIFEST_DOMAIN, manifest, manifest.owner)
    guarded, signature_of_guarded = _signed(GUARDIANSHIP_DOMAIN, guardianship, manifest.owner)
    signed = source.unsealed(wire.SignedManifest.DESCRIPTOR)
    signed.MergeFrom(
        wire.SignedManifest(
            manifest=encoded,
            signature=signature,
            owner_public_key=SIGNERS.get(manifest.owner, MALLORY).public_key,
            guardianship=wire.SignedGuardianship(guardianship=guarded, signature=signature_of_guarded),
        )
    )
    return signed


def _seal_guardianship(source: Drawer) -> Message:
    guardianship = _drawn(source, wire.Guardianship)
    encoded, signature = _signed(GUARDIANSHIP_DOMAIN, guardianship, guardianship.owner)
    return wire.SignedGuardianship(guardianship=encoded, signature=signature)


def _seal_promise(source: Drawer) -> Message:
    promise = _drawn(source, wire.Promise)
    encoded, signature = _signed(PROMISE_DOMAIN, promise, promise.guardian)
    return wire.SignedPromise(promise=encoded, signature=signature)


def _seal_record(source: Drawer) -> Message:
    if source.chance.below(2):
        advert = _drawn(source, wire.Advert)
        encoded, signature = _signed(ADVERT_DOMAIN, advert, advert.peer_id)
        return wire.SignedRecord(advert=encoded, signature=signature)
    claim = _drawn(source, wire.Claim)
    fixed = (
        "name",
        "version",
        "matrix_digest",
        "first_owner",
        "clock",
        "ancestors",
        "rows",
        "columns",
        "data_type",
    )
    authored = wire.Claim(**{name: getattr(claim, name) for name in fixed})
    claim.authorship = SIGNERS.get(claim.first_owner, MALLORY).sign(
        AUTHORSHIP_DOMAIN, authored.SerializeToString(deterministic=True)
    )
    encoded, signature = _signed(CLAIM_DOMAIN, claim, claim.owner)
    return wire.SignedRecord(claim=encoded, signature=signature)


def _seal_certificate(source: Drawer) -> Message:
    encoded = _drawn(source, wire.Certificate).SerializeToString()
    # Keys of the mesh may be lost as well; what they signed must still be read with care.
    issuer = source.chance.pick((MALLORY, ANN, ROOT))
    return wire.SignedCertificate(certificate=encoded, signature=issuer.sign(CERTIFICATE_DOMAIN, encoded))


EXAMPLES = tuple(_examples())
VOCABULARY = Vocabulary(EXAMPLES)
SEALS = {
    "sedma.v1.SignedManifest": _seal_manifest,
    "sedma.v1.SignedGuardianship": _seal_guardianship,
    "sedma.v1.SignedPromise": _seal_promise,
    "sedma.v1.SignedRecord": _seal_record,
    "sedma.v1.SignedCertificate": _seal_certificate,
}
TOKEN = encode_token(token())
