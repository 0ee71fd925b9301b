"""Votes between the ownership core, the disk and the wire: written, signed and checked here, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable

from sedmad.core.ownership import Promise, Refusal, Standing, Vote, VoteAnswer, may_promise
from sedmad.errors import ProtocolViolation
from sedmad.net.identity import Identity
from sedmad.node.manifest import read_manifest
from sedmad.node.manifests import KeptManifest
from sedmad.node.succession import Vote as SignedVote
from sedmad.node.succession import check_counters, read_vote, sign_vote
from sedmad.store import manifests as manifest_table
from sedmad.store import promises as promise_table
from sedmad.store.database import Connection
from sedmad.store.manifests import ManifestKey
from sedmad.store.promises import StoredPromise
from sedmad.wire import messages as wire

_REFUSALS = {
    Refusal.OWNER_ALIVE: wire.VOTE_REFUSAL_OWNER_ALIVE,
    Refusal.PROMISED: wire.VOTE_REFUSAL_PROMISED,
    Refusal.NOT_GUARDIAN: wire.VOTE_REFUSAL_NOT_GUARDIAN,
}
_REFUSALS_READ: dict[int, Refusal] = {number: refusal for refusal, number in _REFUSALS.items()}


def standing_of(kept: KeptManifest) -> Standing:
    """Return what ownership is decided upon, of a manifest that is kept."""
    manifest = kept.manifest
    return Standing(
        key=manifest.key,
        owner=manifest.owner,
        guardians=manifest.guardians,
        epoch=manifest.epoch,
        seq=manifest.seq,
        before=manifest.guardians_before,
        established=kept.established,
        manifest=kept.signed,
    )


def sign_promise(promise: Promise, identity: Identity) -> bytes:
    """Return the bytes that carry a promise of this node's."""
    key = matrix_key(promise.key)
    return sign_vote(SignedVote(key, promise.epoch, promise.candidate, promise.guardian), identity)


def stored_promises(stored: Iterable[StoredPromise], guardian: str) -> list[Promise]:
    """Return this node's promises as the core knows them."""
    return [Promise(row.key, row.epoch, row.candidate, guardian) for row in stored]


def store_votes(connection: Connection, votes: Iterable[Vote]) -> set[Promise]:
    """Write promises down, as far as what is on disk still allows them; return those that must not be given."""
    broken = set()
    for vote in votes:
        promise = vote.promise
        key = matrix_key(promise.key)
        kept = manifest_table.latest(connection, key)
        stored = promise_table.latest(connection, key)
        promised = Promise(key, stored.epoch, stored.candidate, promise.guardian) if stored else None
        standing = Standing(key, "", (), kept.epoch, kept.seq) if kept else None
        if standing is None or may_promise(promised, standing, vote) is not None:
            broken.add(promise)
        else:
            promise_table.promise(connection, StoredPromise(key, promise.epoch, promise.candidate))
    return broken


def answer_to_wire(answer: VoteAnswer, kept: KeptManifest | None) -> wire.PromiseVoteResponse:
    """Return a guardian's answer as it travels, with what it keeps."""
    return wire.PromiseVoteResponse(
        promise=wire.SignedPromise.FromString(answer.vote.signature) if answer.vote else None,
        manifest=kept.signed if kept else None,
        established=kept is not None and kept.established,
        refusal=_REFUSALS[answer.refusal] if answer.refusal else wire.VOTE_REFUSAL_UNSPECIFIED,
        epoch=answer.known_epoch,
    )


def read_answer(response: wire.PromiseVoteResponse, key: ManifestKey, epoch: int, peer_id: str) -> VoteAnswer:
    """Return a guardian's answer, its signatures checked.

    Raises:
        ProtocolViolation, CertificateInvalid: it answers another question, or in another's name.
    """
    check_counters(response.epoch)
    standing = None
    if response.HasField("manifest"):
        manifest = read_manifest(response.manifest)
        standing = standing_of(KeptManifest(manifest, response.manifest, response.established))
        if manifest.key != key:
            raise ProtocolViolation("a vote speaks of another matrix", node=peer_id)
    vote = None
    if response.HasField("promise"):
        told = read_vote(response.promise)
        if standing is None or (told.key, told.epoch, told.guardian) != (key, epoch, peer_id):
            raise ProtocolViolation("a vote is not what was asked for", node=peer_id)
        promise = Promise(key, epoch, told.candidate, told.guardian)
        vote = Vote(promise, response.promise.SerializeToString(), standing)
    refusal = None if vote else _REFUSALS_READ.get(response.refusal, Refusal.PROMISED)
    return VoteAnswer(key, epoch, vote, refusal, response.epoch, standing)


def matrix_key(key: object) -> ManifestKey:
    """Return the key of a matrix, which the core does not look into."""
    assert isinstance(key, ManifestKey)
    return key
