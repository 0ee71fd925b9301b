"""Products of a simulated node's clients, as node/matrices.py, looking_up.py and product.py have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sedmad.core.membership import Claim, short_id
from sedmad.core.prediction import PeerEstimate, Work
from sedmad.core.routing import PartitionCopies, route
from sedmad.errors import HoldersUnreachable, MatrixNotFound, SedmadError, StaleManifest
from sedmad.testing.store.disk import Key, Manifest

if TYPE_CHECKING:
    from sedmad.testing.store.node import StoreNode

ASK_TIMEOUT_S = 3.0
ROUND_PAUSES_S = (0.1, 0.5, 1.0, 2.0)
STALE_RETRIES = 3


class Asking:
    """Multiplies with matrices, wherever they lie: what comes back is the bytes that every partition was read from."""

    def __init__(self, node: StoreNode) -> None:
        self._node = node
        self._cached: dict[Key, Manifest] = {}
        node.calls.handlers["multiply"] = self.multiply_partitions

    async def multiply(self, name: str) -> tuple[Claim, list[str]]:
        """Return what a name stands for, and the bytes that answered for it."""
        claim = self._claim(name)
        manifest = await self._look_up(claim, after=None)
        for attempt in range(STALE_RETRIES):
            try:
                return claim, await self._ask(manifest)
            except StaleManifest:
                if attempt == STALE_RETRIES - 1:
                    raise
                claim = self._claim(name)
                manifest = await self._look_up(claim, after=manifest)
        raise AssertionError

    async def multiply_partitions(
        self, _peer_id: str, key: Key, order: tuple[int, int], partitions: tuple[int, ...]
    ) -> dict[int, str]:
        """Answer a share of a product."""
        kept = self._node.manifests.get(key)
        if kept is None:
            raise MatrixNotFound("this node holds nothing of that matrix")
        manifest = kept.manifest
        if manifest.order > order:
            raise StaleManifest("the matrix lies elsewhere now")
        for index in partitions:
            if self._node.peer_id not in manifest.copies[index]:
                raise MatrixNotFound(f"partition {index} does not lie here")
        return {index: self._node.fetching.read(manifest.digests[index]) for index in partitions}

    def _claim(self, name: str) -> Claim:
        claim = self._node.directory.get(name)
        if claim is None:
            raise MatrixNotFound(f"there is no matrix {name}")
        return claim

    async def _look_up(self, claim: Claim, *, after: Manifest | None) -> Manifest:
        """Return the manifest behind a name, from here or from whoever keeps it."""
        key, wanted = Key.of(claim), (claim.epoch, claim.seq)
        if after is not None and after.key == key:
            wanted = max(wanted, (after.epoch, after.seq + 1))
        kept = self._node.manifests.get(key)
        known = max(
            filter(None, (kept.manifest if kept else None, self._cached.get(key))),
            key=lambda manifest: manifest.order,
            default=None,
        )
        peers = [row.peer_id for row in self._node.membership.peers() if row.state != "dead"]
        peers.sort(key=lambda peer: short_id(peer) not in claim.guardians)
        for peer in peers:
            if known is not None and known.order >= wanted:
                break
            try:
                kept = await self._node.calls.call(peer, "get_manifest", key, timeout_s=ASK_TIMEOUT_S)
            except SedmadError:
                continue
            assert kept is not None
            if known is None or kept.manifest.order > known.order:
                known = self._cached[key] = kept.manifest
        if known is None:
            raise HoldersUnreachable(f"nobody knows where {claim.name} lies")
        if known.removed:
            raise MatrixNotFound(f"{claim.name} was removed")
        return known

    async def _ask(self, manifest: Manifest) -> list[str]:
        """Ask the holders that the plan of routes names, and others where these fail."""
        answers: dict[int, str] = {}
        failed: set[str] = set()
        work = Work.of(manifest.cut, 1)
        for pause_s in (*ROUND_PAUSES_S, 0.0):
            try:
                await self._ask_once(manifest, answers, failed, work)
            except HoldersUnreachable:
                failed.clear()
                await self._node.tasks.sleep(pause_s)
            if len(answers) == len(manifest.digests):
                return [answers[index] for index in range(len(answers))]
        raise HoldersUnreachable(f"partitions of {manifest} have no holder that answers")

    async def _ask_once(
        self, manifest: Manifest, answers: dict[int, str], failed: set[str], work: Work
    ) -> None:
        missing = [
            PartitionCopies(
                index,
                tuple(peer for peer, resident in copies.items() if resident),
                tuple(peer for peer, resident in copies.items() if not resident),
            )
            for index, copies in enumerate(manifest.copies)
            if index not in answers
        ]
        estimates = {
            peer: PeerEstimate(peer, state=self._node.state_of(peer))  # type: ignore[arg-type]
            for peer in sorted(manifest.holders)
        }
        plan = route(missing, estimates, work, self._node.rng, avoid=failed)
        stale: list[StaleManifest] = []

        async def ask(peer: str, partitions: tuple[int, ...]) -> None:
            arguments = (manifest.key, manifest.order, partitions)
            try:
                share = await self._node.calls.call(peer, "multiply", *arguments, timeout_s=ASK_TIMEOUT_S)
            except StaleManifest as error:
                stale.append(error)
            except SedmadError:
                failed.add(peer)
            else:
                answers.update(share)

        await self._node.tasks.gather(ask(peer, share) for peer, share in plan.assignments.items())
        if stale:
            raise stale[0]
