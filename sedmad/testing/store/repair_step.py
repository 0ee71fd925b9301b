"""One step of a repair, as node/repair_step.py takes it: copies are made, then a manifest names them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sedmad.core.mending import NewCopy
from sedmad.core.repair import RepairPlan
from sedmad.errors import HoldersUnreachable, InsufficientCapacity, NotEnoughPeers, SedmadError
from sedmad.testing.store.disk import Kept, Manifest
from sedmad.testing.tasks import Outcome

if TYPE_CHECKING:
    from sedmad.testing.store.node import StoreNode


@dataclass(slots=True)
class RepairStep:
    """A step under way; `over` is when its copies are made, or one fails, or it is called off."""

    before: Manifest
    plan: RepairPlan
    survive: int
    absent: frozenset[str]
    put_id: str
    over: Outcome[None]
    pending: set[NewCopy] = field(init=False)
    refused_by: set[str] = field(default_factory=set)
    writes: bool = False

    def __post_init__(self) -> None:
        self.pending = set(self.plan.new_copies)

    @property
    def holders(self) -> frozenset[str]:
        return frozenset(self.plan.needs())

    def makes_sense(self, absent: Collection[str], dead: Collection[str]) -> bool:
        asked = {peer for copy in self.pending for peer in (copy.target, *copy.sources)}
        return self.absent <= set(absent) and asked.isdisjoint(dead)

    def after(self) -> Manifest:
        return replace(
            self.before,
            seq=self.before.seq + 1,
            survive=self.survive,
            guardians=self.plan.guardians or self.before.guardians,
            copies=self.plan.apply(self.before.layout()).copies,
        )


class CalledOff(SedmadError):
    """A step is not needed any more."""

    reason = "CALLED_OFF"


class RepairSteps:
    """Takes steps for matrices of a node's own."""

    def __init__(self, node: StoreNode) -> None:
        self._node = node

    async def take(self, step: RepairStep) -> None:
        """Make copies and have a manifest name them."""
        undertakings, established = self._node.undertakings, False
        try:
            if step.holders:
                await undertakings.intend(step.put_id, step.holders)
                step.refused_by |= await undertakings.reserve_everywhere(step.put_id, step.plan.needs())
                if step.refused_by:
                    raise InsufficientCapacity("a target has no room")
                await self.make_copies(step)
            established = await self._write(step)
        except CalledOff:
            pass
        except SedmadError:
            if step.holders:
                await undertakings.release(step.put_id, step.holders)
            raise
        if step.holders and not established:
            await undertakings.release(step.put_id, step.holders)

    async def make_copies(self, step: RepairStep) -> None:
        """Make all copies side by side; the first that fails, or being called off, ends it."""
        digests = step.before.digests

        async def make(copy: NewCopy) -> None:
            digest = digests[copy.partition]
            arguments = (step.put_id, copy.partition, digest, copy.target, copy.resident, copy.sources)
            try:
                await self._node.undertakings.hold(*arguments)
            except SedmadError as error:
                step.over.fail(error)
            step.pending.discard(copy)
            if not step.pending:
                step.over.set(None)

        for copy in step.plan.new_copies:
            self._node.tasks.spawn(make(copy))
        await step.over

    async def _write(self, step: RepairStep) -> bool:
        manifests, key = self._node.manifests, step.before.key
        async with manifests.writing[key]:
            kept = manifests.get(key)
            if kept is None or kept.manifest.order != step.before.order:
                return False
            if self._node.directory.promised_survive(key.digest, key.first_owner) > step.survive:
                return False
            step.writes = True
            try:
                await self._node.establishing.establish(
                    step.after(),
                    put_id=step.put_id if step.holders else "",
                    needed=step.holders - {self._node.peer_id},
                    also=lambda: self._node.disk.end(step.put_id),
                )
            except NotEnoughPeers:
                await self._take_back(kept)
                raise
            return True

    async def _take_back(self, kept: Kept) -> None:
        """Have the manifest again that was there before: the copies of the failed one are being given up."""
        before, now = kept.manifest, self._node.manifests.get(kept.manifest.key)
        failed = now.manifest if now else None
        if failed is None or failed.order <= before.order or failed.epoch != before.epoch:
            return
        again = replace(
            failed,
            seq=failed.seq + 1,
            survive=before.survive,
            guardians=before.guardians,
            copies=before.copies,
        )
        try:
            await self._node.establishing.establish(again, back_to=kept)
        except NotEnoughPeers as error:
            self._node.watch.note(f"{self._node.peer_id} leaves {again} in doubt: {error}")

    async def settle(self, manifest: Manifest) -> None:
        """Have a manifest established that a failure or a crash left in doubt; an end is taken back for a name."""
        async with self._node.manifests.writing[manifest.key]:
            kept = self._node.manifests.get(manifest.key)
            if kept is None or kept.established or kept.manifest.order != manifest.order:
                return
            key = manifest.key
            if not self._node.directory.naming(key.digest, key.first_owner):
                return
            living = {peer for peer in manifest.holders if self._node.state_of(peer) == "alive"}
            if any(living.isdisjoint(copies) for copies in manifest.copies):
                raise HoldersUnreachable("a change of a matrix stays in doubt while its holders are away")
            needed = frozenset() if manifest.copies_established else frozenset(living - {self._node.peer_id})
            nothing = self._node.undertakings.new_id() if needed else ""
            await self._node.establishing.establish(
                replace(manifest, seq=manifest.seq + 1, removed=False), put_id=nothing, needed=needed
            )
