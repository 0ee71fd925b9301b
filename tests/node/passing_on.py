"""What happens to a matrix without its owner's doing: it is passed on, and what is in doubt is settled."""

from __future__ import annotations

from dataclasses import replace

from rig import RigNode

from sedmad.net.identity import Identity
from sedmad.node.manifest import Manifest, sign_manifest
from sedmad.node.repair_step import RepairSteps
from sedmad.node.succession import Vote, sign_vote, succession
from sedmad.wire import messages as wire


def passed_on(
    manifest: Manifest, candidate: Identity, voters: list[RigNode], epoch: int
) -> wire.SignedManifest:
    """Return what a candidate writes who has these votes."""
    vote = Vote(manifest.key, epoch, candidate.peer_id, "")
    votes = [sign_vote(replace(vote, guardian=voter.peer_id), voter.identity) for voter in voters]
    link = succession(manifest.guardianship, votes)
    successions = (*manifest.successions, link)
    taken = replace(
        manifest, owner=candidate.peer_id, epoch=epoch, seq=manifest.seq + 1, successions=successions
    )
    return sign_manifest(taken, candidate)


def steps_of(node: RigNode) -> RepairSteps:
    """Return a node's steps of repairs."""
    return RepairSteps(
        own_peer_id=node.peer_id,
        sessions=node.sessions,  # type: ignore[arg-type]
        membership=node.membership,  # type: ignore[arg-type]
        manifests=node.manifests,
        holding=node.holding,
        releasing=node.releasing,
        establishing=node.establishing,
    )
