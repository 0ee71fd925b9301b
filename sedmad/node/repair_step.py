"""One step of a repair: copies made on the nodes that a plan names, then the manifest that names them.

A step is a put without a client: room is set aside, targets fetch from living holders, and whatever fails is given up
by them as a put would be, also after a crash of this node.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import structlog
import trio

from sedmad import failpoints
from sedmad.core.mending import NewCopy
from sedmad.core.placement import Need
from sedmad.core.repair import Layout, RepairPlan
from sedmad.errors import HoldersUnreachable, NotEnoughPeers, SedmadError
from sedmad.net.sessions import Sessions
from sedmad.node.clock import monotonic_s, wall_time_s
from sedmad.node.establishing import EstablishingService
from sedmad.node.holding import PUT_ID_BYTES, HoldingService
from sedmad.node.manifest import Manifest, kind_to_wire
from sedmad.node.manifests import KeptManifest, ManifestService, names_of
from sedmad.node.membership import MembershipService
from sedmad.node.records import DATA_TYPES
from sedmad.node.releasing import ReleasingService
from sedmad.store import puts as put_table
from sedmad.store.holdings import Kind
from sedmad.wire import messages as wire

log = structlog.get_logger("sedmad.repairing")

RESERVE = "sedma.v1.HoldingService/ReserveCopies"
HOLD = "sedma.v1.HoldingService/HoldCopy"
RESERVE_TIMEOUT_S = 5.0
# A partition waits behind others for its target's two transfers, where puts want some too.
HOLD_TIMEOUT_S = 600.0
# That a node gives, and that it takes, for all repairs of this node together: products come first.
TRANSFERS_MAX = 2


@dataclass(slots=True)
class RepairStep:
    """A step under way.

    Attributes:
        before: the manifest that it was planned on.
        survive: the loss of how many nodes the matrix is to survive from now on.
        absent: nodes that are replaced because they are dead or leave.
        pending: copies that are not made yet.
        made_bytes: of what has to travel, how much is where it belongs.
        refused_by: targets that have less room than was known.
        put_id: what its copies are called until they are the matrix's.
        cells: of each target's crossbar arrays, what a resident copy is expected to take there.
    """

    before: Manifest
    plan: RepairPlan
    survive: int
    absent: frozenset[str]
    cells: Mapping[str, int] = field(default_factory=dict)
    pending: set[NewCopy] = field(init=False)
    made_bytes: int = 0
    refused_by: set[str] = field(default_factory=set)
    put_id: bytes = field(default_factory=lambda: secrets.token_bytes(PUT_ID_BYTES))
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    def __post_init__(self) -> None:
        self.pending = set(self.plan.new_copies)

    @property
    def holders(self) -> frozenset[str]:
        """The targets, as `ReleasingService` wants to know them."""
        return frozenset(self.plan.needs())

    def makes_sense(self, absent: Collection[str], dead: Collection[str]) -> bool:
        """Whether all that are replaced are still dead or leaving, and all that make copies alive.

        A session with a dead node stays open for a while, as it may return: what is asked of it would wait.
        """
        asked = {peer for copy in self.pending for peer in (copy.target, *copy.sources)}
        return self.absent <= set(absent) and asked.isdisjoint(dead)

    def after(self) -> Manifest:
        """Return the manifest that ends it."""
        return successor(
            self.before,
            survive=self.survive,
            guardians=self.plan.guardians or self.before.guardians,
            copies=tuple(
                _kinds(self.plan.copies[index]) if index in self.plan.copies else copies
                for index, copies in enumerate(self.before.copies)
            ),
        )


def layout_of(manifest: Manifest) -> Layout:
    """Return what a manifest says, as plans take it."""
    return Layout(
        matrix_id=manifest.key.matrix_digest,
        partitioning=manifest.partitioning,
        survive=manifest.survive,
        owner=manifest.owner,
        guardians=manifest.guardians,
        copies=tuple(
            {peer_id: kind is Kind.RESIDENT for peer_id, kind in copies.items()} for copies in manifest.copies
        ),
    )


def successor(manifest: Manifest, **changes: object) -> Manifest:
    """Return the manifest that comes after one of ours, not yet signed."""
    following = replace(
        manifest, seq=manifest.seq + 1, previous_digest=manifest.digest, written_at_s=wall_time_s()
    )
    return replace(following, **changes)  # type: ignore[arg-type]


class RepairSteps:
    """Takes steps for matrices of this node's own."""

    def __init__(
        self,
        *,
        own_peer_id: str,
        sessions: Sessions,
        membership: MembershipService,
        manifests: ManifestService,
        holding: HoldingService,
        releasing: ReleasingService,
        establishing: EstablishingService,
    ) -> None:
        self._own_peer_id = own_peer_id
        self._sessions = sessions
        self._membership = membership
        self._manifests = manifests
        self._holding = holding
        self._releasing = releasing
        self._establishing = establishing
        self._giving = _Turns()
        self._taking = _Turns()

    async def take(self, step: RepairStep) -> bool:
        """Make copies and have a manifest name them; False if the step was called off or overtaken.

        Raises:
            InsufficientCapacity: targets in `refused_by` have no room.
            NotEnoughPeers: the manifest could not be established, and was taken back.
            SedmadError: a copy could not be made.
        """
        established = False
        with step.scope:
            try:
                if step.holders:
                    await self._releasing.intend(step)
                    await self._reserve(step)
                    failpoints.reach("repair_step.reserved")
                    await self._make_copies(step)
                    failpoints.reach("repair_step.copied")
                established = await self._write(step)
            finally:
                if step.holders and not established:
                    await self._releasing.release(step)
        return established

    async def settle(self, manifest: Manifest) -> None:
        """Have a manifest of ours established that a failure or a crash left in doubt; an end is taken back for a name.

        Copies that it names may have been given up since, so every living holder has to say that it has its own; unless
        the last established manifest named them already, as then none of them was given up.

        Raises:
            HoldersUnreachable: no holder of some partition lives.
            NotEnoughPeers: too few keep it, or a holder lacks something.
        """
        async with self._manifests.writing(manifest.key):
            kept = self._manifests.get(manifest.key)
            if kept is None or kept.established or kept.manifest.order != manifest.order:
                return
            if not names_of(self._membership.core.directory, manifest.key):
                return
            living = {peer for peer in manifest.holders if self._membership.state_of(peer) == "alive"}
            if any(living.isdisjoint(copies) for copies in manifest.copies):
                raise HoldersUnreachable("a change of a matrix stays in doubt while its holders are away")
            # The id of no put: whoever is given it answers for all copies that the manifest gives it.
            nothing = secrets.token_bytes(PUT_ID_BYTES)
            needed = frozenset() if manifest.copies_established else frozenset(living - {self._own_peer_id})
            with trio.CancelScope(shield=True):
                await self._establishing.establish(
                    successor(manifest, removed=False), put_id=nothing if needed else b"", needed=needed
                )

    async def _reserve(self, step: RepairStep) -> None:
        errors: list[SedmadError] = []

        async def reserve(peer_id: str, need: Need) -> None:
            request = wire.ReserveCopiesRequest(
                put_id=step.put_id,
                resident_bytes=need.memory_bytes,
                disk_bytes=need.disk_bytes,
                rows=step.before.rows,
                columns=step.before.columns,
                data_type=DATA_TYPES[step.before.dtype],
                target_error=step.before.accuracy.target_error,
                profile=step.before.accuracy.profile,
                cells=need.resident_partitions * step.cells.get(peer_id, 0),
            )
            try:
                if peer_id == self._own_peer_id:
                    self._holding.reserve(request, peer_id)
                else:
                    deadline = monotonic_s() + RESERVE_TIMEOUT_S
                    await self._sessions.call(peer_id, RESERVE, request, deadline=deadline)
            except SedmadError as error:
                step.refused_by.add(peer_id)
                errors.append(error)

        async with trio.open_nursery() as nursery:
            for peer_id, need in step.plan.needs().items():
                nursery.start_soon(reserve, peer_id, need)
        if errors:
            raise errors[0]

    async def _make_copies(self, step: RepairStep) -> None:
        """Make all copies side by side; the first that fails ends the others."""
        errors: list[SedmadError] = []

        async def make(copy: NewCopy) -> None:
            source = copy.sources[0] if copy.sources else copy.target
            try:
                async with self._taking.of(copy.target), self._giving.of(source):
                    await self._make_copy(step, copy)
            except SedmadError as error:
                errors.append(error)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for copy in step.plan.new_copies:
                nursery.start_soon(make, copy)
        if errors:
            raise errors[0]

    async def _make_copy(self, step: RepairStep, copy: NewCopy) -> None:
        request = wire.HoldCopyRequest(
            put_id=step.put_id,
            partition_index=copy.partition,
            digest=step.before.digests[copy.partition],
            kind=kind_to_wire(Kind.RESIDENT if copy.resident else Kind.STANDBY),
            sources=copy.sources,
        )
        if copy.target == self._own_peer_id:
            await self._holding.take_copy(request, self._own_peer_id)
        else:
            await self._sessions.call(copy.target, HOLD, request, deadline=monotonic_s() + HOLD_TIMEOUT_S)
        step.pending.discard(copy)
        if copy.sources:
            step.made_bytes += step.before.size_of(copy.partition)

    async def _write(self, step: RepairStep) -> bool:
        key = step.before.key
        async with self._manifests.writing(key):
            kept = self._manifests.get(key)
            if kept is None or kept.manifest.order != step.before.order:
                return False
            # A matrix gets another name without another manifest, where it keeps what that promises.
            directory = self._membership.core.directory
            if directory.promised_survive(key.matrix_digest, key.first_owner) > step.survive:
                return False
            # From here on it is written or taken back, whoever returns.
            with trio.CancelScope(shield=True):
                after = step.after()
                also = partial(put_table.end, put_id=step.put_id) if step.holders else None
                try:
                    await self._establishing.establish(
                        after,
                        put_id=step.put_id if step.holders else b"",
                        needed=step.holders - {self._own_peer_id},
                        also=also,
                    )
                except NotEnoughPeers:
                    await self._take_back(kept)
                    raise
                return True

    async def _take_back(self, kept: KeptManifest) -> None:
        """Have the manifest again that was there before: the copies of the failed one are being given up."""
        before = kept.manifest
        failed = self._manifests.get_kept(before.key)
        if failed is None or failed.order <= before.order or failed.epoch != before.epoch:
            return  # Nothing of ours was written, or the matrix is somebody else's by now.
        again = successor(failed, survive=before.survive, guardians=before.guardians, copies=before.copies)
        try:
            await self._establishing.establish(again, back_to=kept)
        except NotEnoughPeers as error:
            log.warning("repair_in_doubt", digest=before.key.matrix_digest.hex()[:16], why=error.why)


class _Turns:
    """Has transfers of the same node wait for each other."""

    def __init__(self) -> None:
        # Of nodes with transfers under way or waiting.
        self._limiters: dict[str, trio.CapacityLimiter] = {}

    @asynccontextmanager
    async def of(self, peer_id: str) -> AsyncIterator[None]:
        limiter = self._limiters.setdefault(peer_id, trio.CapacityLimiter(TRANSFERS_MAX))
        try:
            async with limiter:
                yield
        finally:
            if not limiter.borrowed_tokens:
                self._limiters.pop(peer_id, None)


def _kinds(copies: Mapping[str, bool]) -> dict[str, Kind]:
    return {peer_id: Kind.RESIDENT if resident else Kind.STANDBY for peer_id, resident in copies.items()}
