"""Matrices of a simulated node are kept whole, as node/repairing.py does it, with the real planner."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from sedmad.core.flapping import LossTable
from sedmad.core.repair import plan_repair
from sedmad.core.retrying import Retries
from sedmad.errors import SedmadError
from sedmad.testing.store.disk import Key, Manifest
from sedmad.testing.store.repair_step import CalledOff, RepairStep, RepairSteps
from sedmad.testing.tasks import Bell, Outcome, Places

if TYPE_CHECKING:
    from sedmad.testing.store.node import StoreNode

MATRICES_MAX = 2
LOOK_S = 4.0
REFUSALS_MAX = 3
# As long as a matrix without a name is kept (removing.py).
HEARD_AFTER_S = 3.5
# Half and a quarter of the daemon's.
REPAIR_DELAY_S, UNHEARD_DELAY_S = 2.5, 15.0


class Repairing:
    """Repairs the matrices that a node owns."""

    def __init__(self, node: StoreNode) -> None:
        self._node = node
        self.steps = RepairSteps(node)
        self._losses = LossTable(base_s=REPAIR_DELAY_S, unheard_s=UNHEARD_DELAY_S)
        self._lost: frozenset[str] = frozenset()
        self._queued: set[Key] = set()
        self._under_way: dict[Key, RepairStep | None] = {}
        self._retries: Retries[Key] = Retries()
        self._surplus_since_s: dict[Key, float] = {}
        self._places = Places(node.tasks, MATRICES_MAX)
        self._wake = Bell(node.tasks)

    async def run(self) -> None:
        while True:
            await self._wake.wait(self._look(self._node.tasks.now) - self._node.tasks.now)

    def look(self) -> None:
        self._wake.ring()

    def look_afresh(self) -> None:
        self._retries.hurry()
        self._wake.ring()

    # When, and for which matrix.

    def _look(self, now: float) -> float:
        ours = [manifest for manifest in self._node.manifests.kept() if self._is_to_be_whole(manifest)]
        dead = self._take_in_peers(ours, now)
        for step in self._under_way.values():
            if step is not None and not step.writes and not step.makes_sense(self._lost, dead):
                step.over.fail(CalledOff("somebody came or went"))
        keys = {manifest.key for manifest in ours}
        self._retries.keep(keys)
        self._surplus_since_s = {key: at_s for key, at_s in self._surplus_since_s.items() if key in keys}
        due = [key for key in keys - self._queued - self._under_way.keys() if self._retries.is_due(key, now)]
        for key in sorted(due, key=str):
            self._queued.add(key)
            self._node.tasks.spawn(self._work(key))
        nexts = (now + LOOK_S, self._losses.next_loss_s(now), self._retries.next_s(now))
        return min(next_s for next_s in nexts if next_s is not None)

    def _take_in_peers(self, ours: list[Manifest], now: float) -> set[str]:
        named = {peer for manifest in ours for peer in (*manifest.guardians, *manifest.holders)}
        rows = self._node.membership.peers()
        living = {row.peer_id for row in rows if row.state == "alive"}
        dead = {row.peer_id for row in rows if row.state == "dead"}
        dead |= {peer for peer in named if self._node.state_of(peer) == "dead"}
        self._losses.observe(sorted(living), sorted(dead), now)
        lost = self._losses.lost(now) & dead
        if not lost <= self._lost:
            self._retries.hurry()
        self._lost = lost
        return dead

    def _is_to_be_whole(self, manifest: Manifest) -> bool:
        named = self._node.directory.naming(manifest.key.digest, manifest.key.first_owner)
        return manifest.owner == self._node.peer_id and bool(named)

    async def _work(self, key: Key) -> None:
        async with self._places:
            self._queued.discard(key)
            self._under_way[key] = None
            await self._repair(key)
            del self._under_way[key]

    async def _repair(self, key: Key) -> None:
        """Take steps until nothing is left to do; try again later where one fails."""
        refused: set[str] = set()
        refusals = 0
        while True:
            step = None
            try:
                step = await self._next_step(key, refused)
                if step is None:
                    self._retries.succeed(key)
                    return
                self._under_way[key] = step
                await self.steps.take(step)
            except SedmadError as error:
                if step is not None and step.refused_by and refusals < REFUSALS_MAX:
                    refused |= step.refused_by
                    refusals += 1
                    continue
                self._retries.put_off(key, self._node.tasks.now, str(error))
                self._wake.ring()
                return
            finally:
                self._under_way[key] = None

    async def _next_step(self, key: Key, refused: Collection[str]) -> RepairStep | None:
        kept = self._node.manifests.get(key)
        if kept is None or not self._is_to_be_whole(kept.manifest):
            return None
        if not self._node.establishing.may_plan(kept.manifest):
            return None
        if not kept.established:
            await self.steps.settle(kept.manifest)
            kept = self._node.manifests.get(key)
            if kept is None or not kept.established:
                return None
        manifest = kept.manifest
        survive = self._survive(manifest)
        peers = {*manifest.holders, *manifest.guardians}
        plan = plan_repair(
            replace(manifest.layout(), survive=survive),
            {peer: self._node.state_of(peer) for peer in peers},  # type: ignore[misc]
            offers=[offer for offer in self._node.offers() if offer.peer_id not in refused],
            lost=self._lost,
        )
        if plan.is_empty and survive == manifest.survive:
            return None
        over: Outcome[None] = Outcome(self._node.tasks)
        put_id = self._node.undertakings.new_id()
        return RepairStep(manifest, plan, survive, self._lost & peers, put_id, over)

    def _survive(self, manifest: Manifest) -> int:
        """Return the loss of how many nodes a matrix is to survive: what its names promise, as far as that is known."""
        key, now = manifest.key, self._node.tasks.now
        promised = self._node.directory.promised_survive(key.digest, key.first_owner)
        if promised >= manifest.survive:
            self._surplus_since_s.pop(key, None)
            return promised
        since_s = self._surplus_since_s.setdefault(key, now)
        knows_all_names = key.first_owner == self._node.peer_id or now >= since_s + HEARD_AFTER_S
        return promised if knows_all_names else manifest.survive
