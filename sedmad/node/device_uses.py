"""What this node's devices are needed for: the same bytes may belong to matrices whose products differ in accuracy."""

from __future__ import annotations

from sedmad.node.holding import HoldingService
from sedmad.node.manifest import key_of_group
from sedmad.node.manifests import ManifestService
from sedmad.node.programming import PartitionKey
from sedmad.store.holdings import Kind


def asked_of_devices(holding: HoldingService, manifests: ManifestService, key: PartitionKey) -> bool:
    """Return whether a resident copy, or a put under way, has these bytes for products of that accuracy."""
    for copy in holding.copies.using(key.digest):
        manifest = manifests.get_kept(key_of_group(copy.group_key))
        if copy.kind is Kind.RESIDENT and manifest is not None and manifest.accuracy == key.accuracy:
            return True
    return holding.storing(key.digest, key.accuracy)
