"""Matrices of ours are kept whole: copies of dead nodes are made again, nodes that leave are emptied, and what had no
room is made good once there is some.

Woken by what membership finds and by a slow timer. What to do is `sedmad.core.repair`'s to say, doing it
`sedmad.node.repair_step`'s; here is decided when, and for which matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import structlog
import trio

from sedmad.core.flapping import LossTable
from sedmad.core.membership import events
from sedmad.core.membership.advert import Advert
from sedmad.core.prediction import PeerState
from sedmad.core.repair import plan_repair
from sedmad.core.retrying import Retries
from sedmad.errors import SedmadError
from sedmad.node.clock import monotonic_s
from sedmad.node.establishing import EstablishingService
from sedmad.node.expecting import Expectations
from sedmad.node.holding import HoldingService
from sedmad.node.manifest import Manifest
from sedmad.node.manifests import ManifestService
from sedmad.node.membership import MembershipService
from sedmad.node.offering import gather_offers
from sedmad.node.repair_status import RepairReport, RepairStatus
from sedmad.node.repair_step import RepairStep, RepairSteps, layout_of
from sedmad.store.manifests import MAX_MANIFESTS, ManifestKey

if TYPE_CHECKING:
    # libp2p brings stubs that hide trio's own types, this one among them.
    from trio_typing import TaskStatus

log = structlog.get_logger("sedmad.repairing")

# One to copy while the other waits for its manifest; more would crowd out products.
MATRICES_MAX = 2
# Membership tells of most changes; of room that became free, only adverts do.
LOOK_S = 30.0
# Changes come in crowds, when a switch fails or a room is powered on.
LOOKS_APART_S = 0.1
# The author of a matrix made all of its names; whoever owns it after it may yet hear of one that promises more.
HEARD_AFTER_S = 35.0
# A target that refuses tells what really is free there; the next plan leaves it out.
REFUSALS_MAX = 3


class RepairingService:
    """Repairs the matrices that this node owns.

    Args:
        expectations: of what copies take of devices.
        wanted: which partitions of a matrix products asked for lately; these become resident first.
        losses: how long the dead are waited for.
    """

    def __init__(
        self,
        *,
        own_peer_id: str,
        membership: MembershipService,
        manifests: ManifestService,
        holding: HoldingService,
        establishing: EstablishingService,
        steps: RepairSteps,
        expectations: Expectations | None = None,
        wanted: Callable[[ManifestKey], Collection[int]] = lambda key: (),
        losses: LossTable | None = None,
    ) -> None:
        self._own_peer_id = own_peer_id
        self._membership = membership
        self._manifests = manifests
        self._holding = holding
        self._establishing = establishing
        self._steps = steps
        self._expectations = expectations or Expectations()
        self._wanted = wanted
        self._losses = losses or LossTable()
        self._lost: frozenset[str] = frozenset()
        self._leaving: frozenset[str] = frozenset()
        # All by matrix of ours; those that are whole, and survive no more than is promised, are in none.
        self._queued: set[ManifestKey] = set()
        self._under_way: dict[ManifestKey, RepairStep | None] = {}
        self._retries: Retries[ManifestKey] = Retries()
        self._degraded: dict[ManifestKey, str] = {}
        self._surplus_since_s: dict[ManifestKey, float] = {}
        # What peers offered when they were last heard, as far as it matters here; no more of them than there are peers.
        self._offered: dict[str, tuple[object, ...]] = {}
        self._restored_bytes = 0
        self._wake = trio.Event()
        self._to_repair, self._repairs = trio.open_memory_channel[ManifestKey](MAX_MANIFESTS)

    async def run(self, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Repair what is ours until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(MATRICES_MAX):
                nursery.start_soon(self._work)
            task_status.started()
            while True:
                self._wake = trio.Event()
                wake_s = self._look(monotonic_s())
                await trio.sleep(LOOKS_APART_S)
                with trio.CancelScope(deadline=wake_s):
                    await self._wake.wait()

    def on_event(self, event: events.Event) -> None:
        """Membership found something out."""
        match event:
            case events.PeerDead():
                self._wake.set()
            case events.PeerAlive(peer_id):
                # It may be gone again before the next look, and was heard all the same.
                self._losses.observe((peer_id,), (), monotonic_s())
                self.look_afresh()
            case events.PeerJoined():
                self.look_afresh()
            case events.AdvertChanged(peer_id, signed) if isinstance(signed.record, Advert):
                advert = signed.record
                offered = (
                    advert.state,
                    advert.memory_pledged_bytes,
                    advert.disk_pledged_bytes,
                    advert.memory_short_bytes > 0,
                )
                if self._offered.get(peer_id) != offered:
                    self._offered[peer_id] = offered
                    self.look_afresh()
            case events.PeerForgotten(peer_id):
                self._offered.pop(peer_id, None)
            case _:
                pass

    def look_afresh(self) -> None:
        """Look now for what to repair: there is room, a node to read from or to empty, or a matrix, that was not."""
        self._retries.hurry()
        self._wake.set()

    def degraded(self, key: ManifestKey) -> str:
        """Return why a matrix of ours cannot be made whole; empty if it can be, or is."""
        return self._degraded.get(key, "")

    def status(self) -> RepairStatus:
        """Return what is under repair, and what waits for what."""
        under_repair = [
            RepairReport(self._names(key), len(step.plan.copies), step.made_bytes, step.plan.copied_bytes)
            for key, step in self._under_way.items()
            if step is not None
        ]
        waits = self._degraded | self._retries.reasons()
        waiting = [
            RepairReport(self._names(key), waiting_for=why)
            for key, why in waits.items()
            if self._under_way.get(key) is None
        ]
        dead = {row.peer_id for row in self._membership.peers() if row.state == "dead"}
        return RepairStatus(
            under_repair=tuple(under_repair),
            waiting=tuple(sorted(waiting, key=lambda report: report.names)),
            restored_bytes=self._restored_bytes,
            waited_for=tuple(sorted(map(self._membership.name_of, dead - self._lost))),
        )

    # When, and for which matrix.

    def _look(self, now: float) -> float:
        """Take in who is there, call off what is not needed any more, and queue what is; return when to look again."""
        ours = [manifest for manifest in self._manifests.kept() if self._is_to_be_whole(manifest)]
        dead = self._take_in_peers(ours, now)
        for step in self._under_way.values():
            if step is not None and not step.makes_sense(self._lost | self._leaving, dead):
                step.scope.cancel()
        keys = {manifest.key for manifest in ours}
        self._retries.keep(keys)
        self._degraded = {key: why for key, why in self._degraded.items() if key in keys}
        self._surplus_since_s = {key: at_s for key, at_s in self._surplus_since_s.items() if key in keys}
        due = [key for key in keys - self._queued - self._under_way.keys() if self._retries.is_due(key, now)]
        for key in sorted(due, key=lambda key: (not self._wanted(key), key.matrix_digest)):
            self._queued.add(key)
            self._to_repair.send_nowait(key)
        nexts = (now + LOOK_S, self._losses.next_loss_s(now), self._retries.next_s(now))
        return min(next_s for next_s in nexts if next_s is not None)

    def _take_in_peers(self, ours: list[Manifest], now: float) -> set[str]:
        """Note who is given up and who leaves; return who is dead."""
        named = {peer for manifest in ours for peer in (*manifest.guardians, *manifest.holders)}
        rows = self._membership.peers()
        living = {row.peer_id for row in rows if row.state == "alive"}
        dead = {row.peer_id for row in rows if row.state == "dead"}
        dead |= {peer for peer in named if self._membership.state_of(peer) == "dead"}
        self._losses.observe(living, dead, now)
        lost = self._losses.lost(now) & dead
        if not lost <= self._lost:
            # What could wait for a better time cannot now.
            self._retries.hurry()
        self._lost = lost
        leaving = {row.peer_id for row in rows if row.advert.state == "draining"}
        if self._membership.core.advert.state == "draining":
            leaving.add(self._own_peer_id)
        self._leaving = frozenset(leaving)
        return dead

    def _is_to_be_whole(self, manifest: Manifest) -> bool:
        """Whether a matrix is ours, and here to stay: puts under way and replaced versions have no name."""
        key = manifest.key
        names = self._membership.core.directory.naming(key.matrix_digest, key.first_owner)
        return manifest.owner == self._own_peer_id and bool(names)

    async def _work(self) -> None:
        async for key in self._repairs:
            self._queued.discard(key)
            self._under_way[key] = None
            try:
                await self._repair(key)
            finally:
                del self._under_way[key]

    async def _repair(self, key: ManifestKey) -> None:
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
                if await self._steps.take(step):
                    self._note_done(step)
            except SedmadError as error:
                if step is not None and step.refused_by and refusals < REFUSALS_MAX:
                    refused |= step.refused_by
                    refusals += 1
                    continue
                self._put_off(key, error)
                return
            finally:
                self._under_way[key] = None

    async def _next_step(self, key: ManifestKey, refused: Collection[str]) -> RepairStep | None:
        """Return what to do next for a matrix; None if there is nothing, or nothing that would count."""
        # Many matrices may be whole: others get their turn in between.
        await trio.lowlevel.checkpoint()
        self._degraded.pop(key, None)
        kept = self._manifests.get(key)
        if kept is None or not self._is_to_be_whole(kept.manifest):
            return None
        if not self._establishing.may_plan(kept.manifest):
            self._degraded[key] = "most of its guardians do not answer: nothing is planned until they do"
            return None
        if not kept.established:
            await self._steps.settle(kept.manifest)
            kept = self._manifests.get(key)
            if kept is None or not kept.established:
                return None
        manifest = kept.manifest
        survive = self._survive(manifest, monotonic_s())
        peers = {*manifest.holders, *manifest.guardians}
        offers = [
            offer
            for offer in gather_offers(self._membership, self._holding.ledger)
            if offer.peer_id not in refused
        ]
        devices = await self._expectations.needs_if_any(manifest.accuracy, manifest.partitioning, offers)
        plan = plan_repair(
            replace(layout_of(manifest), survive=survive),
            {peer: cast("PeerState", self._membership.state_of(peer)) for peer in peers},
            offers=offers,
            lost=self._lost,
            leaving=self._leaving,
            wanted=self._wanted(key),
            names={peer: self._membership.name_of(peer) for peer in peers},
            devices=devices,
        )
        if plan.degraded:
            self._degraded[key] = plan.degraded
        if plan.is_empty and survive == manifest.survive:
            return None
        cells = {offer.peer_id: devices.of(offer).cells for offer in offers}
        return RepairStep(manifest, plan, survive, (self._lost | self._leaving) & peers, cells)

    def _survive(self, manifest: Manifest, now: float) -> int:
        """Return the loss of how many nodes a matrix is to survive: what its names promise, as far as that is known."""
        key, directory = manifest.key, self._membership.core.directory
        promised = directory.promised_survive(key.matrix_digest, key.first_owner)
        if promised >= manifest.survive:
            self._surplus_since_s.pop(key, None)
            return promised
        since_s = self._surplus_since_s.setdefault(key, now)
        knows_all_names = key.first_owner == self._own_peer_id or now >= since_s + HEARD_AFTER_S
        return promised if knows_all_names else manifest.survive

    def _note_done(self, step: RepairStep) -> None:
        self._restored_bytes += step.made_bytes
        log.info(
            "matrix_repaired",
            digest=step.before.key.matrix_digest.hex()[:16],
            partitions=len(step.plan.copies),
            copied_bytes=step.made_bytes,
            guardians_changed=step.plan.guardians is not None,
        )

    def _put_off(self, key: ManifestKey, error: SedmadError) -> None:
        why = "; ".join(filter(None, (error.what, error.why)))
        wait_s = self._retries.put_off(key, monotonic_s(), why)
        self._wake.set()
        log.warning(
            "repair_put_off", digest=key.matrix_digest.hex()[:16], again_s=wait_s, why=why, node=error.node
        )

    def _names(self, key: ManifestKey) -> tuple[str, ...]:
        claims = self._membership.core.directory.naming(key.matrix_digest, key.first_owner)
        return tuple(claim.name for claim in claims)
