"""Matrices whose owner died come to one of their guardians: drives the ownership core, as node/owning.py does."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from sedmad.core.ownership import (
    Behind,
    Ownership,
    OwnershipSettings,
    Promise,
    Standing,
    Surpassed,
    Vote,
    VoteAnswer,
    VoteRequest,
    Won,
    may_promise,
)
from sedmad.errors import SedmadError
from sedmad.testing.store.disk import Kept, Key
from sedmad.testing.tasks import Places

if TYPE_CHECKING:
    from sedmad.testing.store.node import StoreNode

# Quicker than in earnest, so that a run sees several owners.
SETTINGS = OwnershipSettings(
    takeover_after_s=1.5,
    unheard_after_s=8.0,
    rank_s=1.0,
    vote_timeout_s=2.0,
    retry_s=1.0,
    retry_maximum_s=8.0,
    elections=4,
)


class Owning:
    """One life's part in passing matrices on."""

    def __init__(self, node: StoreNode) -> None:
        self._node = node
        self._present: dict[str, bool] = {}
        self._storing = Places(node.tasks)
        self.core = Ownership(
            node.peer_id,
            sign=lambda promise: repr(promise).encode(),
            rng=random.Random(node.rng.getrandbits(64)),  # noqa: S311
            settings=SETTINGS,
            promised=node.disk.promised.values(),
        )

    def start(self) -> None:
        for manifest in self._node.manifests.kept():
            self.on_kept(manifest.key)

    def on_kept(self, key: Key) -> None:
        if kept := self._node.manifests.get(key):
            self.core.keep(kept.standing(), self._node.tasks.now)
        else:
            self.core.forget(key, self._node.tasks.now)
        self.act()

    def on_peer(self, peer_id: str, *, up: bool) -> None:
        if self._present.get(peer_id) == up:
            return
        self._present[peer_id] = up
        tell = self.core.peer_up if up else self.core.peer_down
        tell(peer_id, self._node.tasks.now)
        self.act()

    def on_refused(self, key: Key) -> None:
        kept = self._node.manifests.get(key)
        if kept is not None and kept.manifest.owner == self._node.peer_id:
            self.core.reclaim(key, kept.manifest.epoch + 1, self._node.tasks.now)
            self.act()

    def receive(self, sender: str, message: VoteRequest | VoteAnswer) -> None:
        self.core.receive(sender, message, self._node.tasks.now)
        self.act()

    def act(self) -> None:
        """Do what the core wants: promises onto the disk first, then what they allow."""
        self._node.tasks.spawn(self._act())

    async def _act(self) -> None:
        async with self._storing:
            outgoing = self.core.collect()
            broken: set[Promise] = set()
            if outgoing.votes:
                await self._node.write(lambda: broken.update(filter(None, map(self._store, outgoing.votes))))
        for peer_id, message in outgoing.messages:
            if not (isinstance(message, VoteAnswer) and message.vote and message.vote.promise in broken):
                self._node.send(peer_id, message)
        for event in outgoing.events:
            match event:
                case Won() if not any(vote.promise in broken for vote in event.votes):
                    self._node.tasks.spawn(self._write_down(event))
                case Surpassed(_, standing):
                    self._node.tasks.spawn(self._keep(standing))
                case Behind(_, guardian, _):
                    self._node.reconciling.meet(guardian)

    def _store(self, vote: Vote) -> Promise | None:
        """Write a promise down, if what is on disk still allows it; return it if not."""
        disk, key = self._node.disk, vote.promise.key
        assert isinstance(key, Key)
        kept = disk.kept.get(key)
        if kept is None or may_promise(disk.promised.get(key), kept.standing(), vote) is not None:
            return vote.promise
        disk.promised[key] = vote.promise
        return None

    async def _keep(self, standing: Standing) -> None:
        try:
            await self._node.manifests.keep(standing.manifest, established=standing.established)
        except SedmadError as error:
            self._node.watch.note(f"{self._node.peer_id} does not take {standing.manifest}: {error}")

    async def _write_down(self, won: Won) -> None:
        """Become the owner: the newest manifest again, in a new epoch."""
        newest = won.standing.manifest
        me = self._node.peer_id
        manifest = replace(
            newest,
            owner=me,
            epoch=won.epoch,
            seq=newest.seq + 1,
            successions=(*newest.successions, (me, won.epoch)),
            guardians_before=() if won.standing.established else newest.guardians_before,
            copies_established=won.standing.established or newest.copies_established,
        ).written()
        async with self._node.manifests.writing[newest.key]:
            try:
                kept = await self._node.manifests.keep(manifest, established=False)
                self._node.watch.note(f"{me} wins {manifest}")
                await self._establish(kept)
            except SedmadError as error:
                self._node.watch.note(f"{me} leaves {manifest} in doubt: {error}")
        self._node.on_won(manifest)

    async def _establish(self, kept: Kept) -> None:
        """Establish what was won; where copies may have been given up, living holders say that they have theirs."""
        manifest = kept.manifest
        needed: frozenset[str] = frozenset()
        if not manifest.removed and not manifest.copies_established:
            living = {peer for peer in manifest.holders if self._node.state_of(peer) == "alive"}
            needed = frozenset(living - {self._node.peer_id})
        nothing = self._node.undertakings.new_id() if needed else ""
        await self._node.establishing.make_safe(kept, put_id=nothing, needed=needed)
        await self._node.establishing.finish(kept)
