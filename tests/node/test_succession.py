"""A matrix that was passed on proves it by itself; what was not passed on cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from examples import identity_of, manifest_of

from sedmad.errors import CertificateInvalid, PeerError
from sedmad.net.identity import Identity
from sedmad.node.manifest import Manifest, read_manifest, sign_manifest
from sedmad.node.succession import SUCCESSIONS_MAX, Vote, sign_vote, succession

ANN, BEN, CYD, DAN = (identity_of(name) for name in ("ann", "ben", "cyd", "dan"))
GUARDIANS = (ANN.peer_id, BEN.peer_id, CYD.peer_id)


def stored(manifest: Manifest, identity: Identity) -> Manifest:
    return read_manifest(sign_manifest(manifest, identity))


def votes(manifest: Manifest, epoch: int, candidate: Identity, voters: Sequence[Identity]) -> list[bytes]:
    return [sign_vote(Vote(manifest.key, epoch, candidate.peer_id, voter.peer_id), voter) for voter in voters]


def passed_on(
    manifest: Manifest, candidate: Identity, voters: Sequence[Identity], epoch: int = 1, **changes: object
) -> Manifest:
    """Return the manifest that a candidate writes who has these votes."""
    link = succession(manifest.guardianship, votes(manifest, epoch, candidate, voters))
    return replace(
        manifest,
        owner=candidate.peer_id,
        epoch=epoch,
        seq=manifest.seq + 1,
        successions=(*manifest.successions, link),
        **changes,  # type: ignore[arg-type]
    )


@pytest.fixture
def first() -> Manifest:
    return stored(manifest_of(100, 10, guardians=GUARDIANS), ANN)


def test_most_guardians_pass_a_matrix_on_and_on(first: Manifest) -> None:
    second = stored(passed_on(first, BEN, [BEN, CYD], guardians=(*GUARDIANS, DAN.peer_id)), BEN)
    third = stored(passed_on(second, DAN, [DAN, CYD, ANN], epoch=7), DAN)
    assert (third.owner, third.epoch, len(third.successions)) == (DAN.peer_id, 7, 2)
    # Its new owner goes on writing, under other guardians, without new votes.
    later = stored(replace(third, seq=20, guardians=(DAN.peer_id,)), DAN)
    assert later.order == (7, 20)


@pytest.mark.parametrize(
    "voters", [[], [BEN], [BEN, DAN], [BEN, BEN]], ids=["none", "one", "a stranger", "one twice"]
)
def test_too_few_votes_pass_nothing_on(first: Manifest, voters: list[Identity]) -> None:
    with pytest.raises(CertificateInvalid):
        stored(passed_on(first, BEN, voters), BEN)


def test_votes_count_for_whom_and_when_they_were_given(first: Manifest) -> None:
    good = passed_on(first, BEN, [BEN, CYD])
    other_key = stored(manifest_of(101, 10, guardians=GUARDIANS), ANN)
    forged = [
        (replace(good, owner=CYD.peer_id), CYD),
        (replace(good, epoch=2), BEN),
        (passed_on(first, BEN, [BEN, CYD], epoch=0), BEN),
        (passed_on(first, DAN, [BEN, CYD]), DAN),
        (replace(good, successions=()), BEN),
        (replace(good, successions=good.successions * 2), BEN),
        (replace(good, key=other_key.key, digests=other_key.digests, rows=101), BEN),
        (replace(good, successions=good.successions * (SUCCESSIONS_MAX + 1)), BEN),
    ]
    for manifest, signer in forged:
        with pytest.raises(PeerError):
            stored(manifest, signer)


def test_guardians_are_those_that_the_owner_named_last(first: Manifest) -> None:
    # Dan names himself guardian of something that never was his.
    fake = replace(first, owner=DAN.peer_id, guardians=(DAN.peer_id,))
    fake = replace(fake, guardianship=sign_manifest(fake, DAN).guardianship.SerializeToString())
    with pytest.raises(CertificateInvalid):
        stored(passed_on(fake, DAN, [DAN]), DAN)


def test_a_changed_proof_is_refused(first: Manifest) -> None:
    signed = sign_manifest(passed_on(first, BEN, [BEN, CYD]), BEN)
    for proof in (signed.guardianship, signed.successions[0].before, signed.successions[0].promises[0]):
        signature = proof.signature
        proof.signature = bytes(64)
        with pytest.raises(PeerError):
            read_manifest(signed)
        proof.signature = signature
    read_manifest(signed)
