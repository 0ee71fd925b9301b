"""What is not yet as it should be once all is calm: copies that are missing, bytes too many, nodes that disagree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sedmad.core.repair import plan_repair
from sedmad.testing.store.disk import Key, Manifest
from sedmad.testing.store.node import StoreNode
from sedmad.testing.store.truth import Truth, names_of


def unsettled(nodes: Mapping[str, StoreNode], truth: Truth) -> Iterator[str]:
    """Yield what is wrong; `nodes` are all that are left, and run."""
    yield from _disagreements(nodes)
    for key in sorted(truth.ledgers, key=str):
        if truth.can_be_owned(key):
            yield from _of_matrix(key, nodes, truth)
    for node in nodes.values():
        yield from _leftovers(node, nodes, truth)


def _disagreements(nodes: Mapping[str, StoreNode]) -> Iterator[str]:
    (first, names), *others = ((peer, names_of(node)) for peer, node in nodes.items())
    for peer, theirs in others:
        if names != theirs:
            different = sorted(name for name in {*names, *theirs} if names.get(name) != theirs.get(name))
            yield f"{first} and {peer} disagree about {' '.join(different)}"


def _of_matrix(key: Key, nodes: Mapping[str, StoreNode], truth: Truth) -> Iterator[str]:
    newest = truth.newest(key)
    assert newest is not None
    manifest = newest.manifest
    owner = nodes.get(manifest.owner)
    if owner is None:
        yield f"{manifest} has no owner"
        return
    if not owner.directory.naming(key.digest, key.first_owner):
        yield f"{manifest} has no name, and is still there"
        return
    if any(
        not any(node.disk.has_copy(key, index, digest) for node in nodes.values())
        for index, digest in enumerate(manifest.digests)
    ):
        return  # It is lost, as it was allowed to be: nothing can settle what is in doubt about it.
    for peer in sorted(manifest.holders.union(manifest.guardians) & nodes.keys()):
        kept = nodes[peer].manifests.get(key)
        if kept is None or kept.manifest.order != manifest.order or not kept.established:
            yield f"{peer} does not keep {manifest}, or not as established"
            return
    promised = owner.directory.promised_survive(key.digest, key.first_owner)
    if manifest.survive != promised:
        yield f"{manifest} survives {manifest.survive} losses, and its names promise {promised}"
    states = dict.fromkeys(nodes, "alive")
    gone = manifest.concerned - nodes.keys()
    plan = plan_repair(manifest.layout(), states, offers=owner.offers(), lost=gone)  # type: ignore[arg-type]
    if not plan.is_empty:
        yield f"{manifest} is not repaired"
    for peer in sorted(manifest.holders & nodes.keys()):
        if lacking := _lacking(nodes[peer], manifest, nodes):
            yield f"{peer} lacks {key}/{lacking}"


def _lacking(node: StoreNode, manifest: Manifest, nodes: Mapping[str, StoreNode]) -> list[int]:
    """Return what a node lacks, has room for, and could have from somebody."""
    return [
        index
        for index, resident in node.holding.lacking(manifest).items()
        if any(
            nodes[peer].disk.has_copy(manifest.key, index, manifest.digests[index])
            for peer in manifest.copies[index]
            if peer in nodes
        )
        and node.ledger.disk.available_bytes
        and (not resident or node.ledger.memory.available_bytes)
    ]


def _leftovers(node: StoreNode, nodes: Mapping[str, StoreNode], truth: Truth) -> Iterator[str]:
    """Yield what lies on a disk and belongs to nothing."""
    disk = node.disk
    for group, index in disk.holdings:
        kept = disk.kept.get(group) if isinstance(group, Key) else None
        if kept is None or node.peer_id not in kept.manifest.copies[index]:
            yield f"{node.peer_id} holds {group}/{index}, and no manifest that it keeps says so"
    used = {holding.digest for holding in disk.holdings.values()}
    if orphans := sorted(disk.blobs.keys() - used):
        yield f"{node.peer_id} has bytes that nothing needs: {' '.join(orphans)}"
    if node.holding.puts or node.ledger.disk.reserved_bytes or node.ledger.memory.reserved_bytes:
        yield f"{node.peer_id} has room set aside for {' '.join(node.holding.puts) or 'nothing'}"
    if unended := [put_id for put_id, holders in disk.puts.items() if holders <= nodes.keys()]:
        yield f"{node.peer_id} has not cleared up {' '.join(unended)}"
