"""What a simulated node missed, as node/reconciling.py finds out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sedmad.core.membership import Claim, short_id
from sedmad.errors import SedmadError
from sedmad.testing.store.disk import Kept, Key
from sedmad.testing.tasks import Bell

if TYPE_CHECKING:
    from sedmad.testing.store.node import StoreNode

ASK_TIMEOUT_S = 4.0
AFTER_MEETING_S = 1.0
ROUND_S = 6.0
Known = Mapping[Key, tuple[int, int, bool]]


class Reconciling:
    """Compares manifests with other nodes."""

    def __init__(self, node: StoreNode) -> None:
        self._node = node
        self._meetings: dict[str, float] = {}
        self._wanted: dict[tuple[str, Key], None] = {}
        self._wake = Bell(node.tasks)
        self._next_round = 0
        node.calls.handlers["compare"] = self.compare

    def meet(self, peer_id: str) -> None:
        self._meetings.setdefault(peer_id, self._node.tasks.now + AFTER_MEETING_S)
        self._wake.ring()

    def on_claim(self, claim: Claim) -> None:
        key = Key.of(claim)
        kept = self._node.manifests.get(key)
        if kept is None:
            concerned = short_id(self._node.peer_id) in claim.guardians and not claim.removed
        else:
            concerned = (claim.epoch, claim.seq) > kept.manifest.order
        if concerned and claim.owner != self._node.peer_id:
            self.want(claim.owner, key)

    def want(self, peer_id: str, key: Key) -> None:
        self._wanted[peer_id, key] = None
        self._wake.ring()

    async def run(self) -> None:
        tasks = self._node.tasks
        round_at = tasks.now + ROUND_S
        while True:
            await self._wake.wait(max(0.0, min([round_at, *self._meetings.values()]) - tasks.now))
            while self._wanted:
                peer_id, key = next(iter(self._wanted))
                del self._wanted[peer_id, key]
                await self._ask(peer_id, key)
            now = tasks.now
            for peer_id in [peer_id for peer_id, at in self._meetings.items() if at <= now]:
                del self._meetings[peer_id]
                await self._compare(peer_id)
            if now >= round_at:
                round_at = now + ROUND_S
                await self._compare_with_next()

    async def compare(self, sender: str, known: Known) -> list[Kept]:
        """Tell what is newer here, and note what is newer there."""
        newer: list[Kept] = []
        for key, order in known.items():
            kept = self._node.manifests.get(key)
            if kept is None and (buried := self._node.disk.tombstones.get(key)):
                kept = Kept(buried, True)
            ours = (*kept.manifest.order, kept.established) if kept else (-1, -1, False)
            if kept is not None and kept.established and ours > order:
                newer.append(kept)
            elif ours < order:
                self.want(sender, key)
        return newer

    async def _compare_with_next(self) -> None:
        peers = {peer for manifest in self._node.manifests.kept() for peer in manifest.guardians}
        near = sorted(peer for peer in peers - {self._node.peer_id} if self._node.state_of(peer) == "alive")
        if near:
            self._next_round += 1
            await self._compare(near[self._next_round % len(near)])

    async def _compare(self, peer_id: str) -> None:
        known: dict[Key, tuple[int, int, bool]] = {}
        for manifest in self._node.manifests.kept():
            kept = self._node.manifests.get(manifest.key)
            if kept is not None and (peer_id in manifest.guardians or peer_id in manifest.holders):
                known[manifest.key] = (*manifest.order, kept.established)
        if not known:
            return
        try:
            newer = await self._node.calls.call(peer_id, "compare", known, timeout_s=ASK_TIMEOUT_S)
        except SedmadError:
            return
        for kept in newer:
            await self._take(kept)

    async def _ask(self, peer_id: str, key: Key) -> None:
        try:
            kept = await self._node.calls.call(peer_id, "get_manifest", key, timeout_s=ASK_TIMEOUT_S)
        except SedmadError:
            return
        await self._take(kept)

    async def _take(self, kept: Kept) -> None:
        """Keep a manifest that concerns this node."""
        manifest = kept.manifest
        roles = {manifest.owner, *manifest.guardians, *manifest.holders}
        if self._node.peer_id in roles or self._node.manifests.get(manifest.key):
            try:
                await self._node.manifests.keep(manifest, established=kept.established)
            except SedmadError as error:
                self._node.watch.note(f"{self._node.peer_id} does not take {manifest}: {error}")
