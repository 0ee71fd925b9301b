"""A matrix goes away: its owner says so in a last manifest, and everybody frees what they hold of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from sedmad import failpoints
from sedmad.core.membership.claim import Claim
from sedmad.core.membership.record import SignedRecord
from sedmad.errors import MatrixNotFound, NotEnoughPeers, NotPermitted, OwnerUnreachable, SedmadError
from sedmad.net.calls import IncomingCall
from sedmad.net.identity import Identity
from sedmad.net.sessions import Sessions
from sedmad.node.clock import monotonic_s, wall_time_s
from sedmad.node.establishing import EstablishingService, key_of, with_guardians_before
from sedmad.node.keeping import keep_record
from sedmad.node.manifests import KeptManifest, ManifestService
from sedmad.node.membership import MembershipService
from sedmad.node.records import sign_record
from sedmad.node.replies import read_reply
from sedmad.store.database import Database
from sedmad.store.manifests import ManifestKey
from sedmad.wire import messages as wire

if TYPE_CHECKING:
    # libp2p brings stubs that hide trio's own types, this one among them.
    from trio_typing import TaskStatus

log = structlog.get_logger("sedmad.removing")

REMOVE = "sedma.v1.OwnerService/RemoveName"
REMOVE_TIMEOUT_S = 15.0
# Products of the default deadline that began with a replaced version may still end with it.
REPLACED_AFTER_S = 35.0
LOOK_S = 60.0
# Guardians that do not answer now may, later.
FREE_AGAIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Removal:
    """What a removal freed, and which nodes could not be told."""

    freed_bytes: int
    unreachable: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RoomToCome:
    """What replaced versions take on all nodes together, and how long it takes until the last of them is freed."""

    size_bytes: int
    within_s: float


class RemovingService:
    """Removes names and frees matrices; serves OwnerService of the contract to members."""

    def __init__(
        self,
        *,
        identity: Identity,
        database: Database,
        sessions: Sessions,
        membership: MembershipService,
        manifests: ManifestService,
        establishing: EstablishingService,
    ) -> None:
        self._identity = identity
        self._own_peer_id = identity.peer_id
        self._database = database
        self._sessions = sessions
        self._membership = membership
        self._manifests = manifests
        self._establishing = establishing
        # When matrices of ours are freed that go by and by; no more of them than there are manifests here.
        self._to_free: dict[ManifestKey, float] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Free in the background what no name stands for any more, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                while True:
                    # A matrix loses its name in more ways than news tells of: to a claim that pushed its own out, say.
                    await trio.sleep(LOOK_S)
                    if self._database.restored_from is None:
                        self.free_all_unnamed()
            finally:
                # What is asked of a node that ends finds no task for it; the next start looks again.
                self._nursery = None

    async def remove(self, name: str) -> Removal:
        """Remove a name, here or at its owner.

        Raises:
            MatrixNotFound: there is no such name.
            OwnerUnreachable: another node owns it and does not answer.
        """
        claim = self._membership.core.directory.get(name)
        if claim is None:
            raise MatrixNotFound(f"there is no matrix {name}", matrix=name)
        if claim.owner == self._own_peer_id:
            return await self.remove_own(claim)
        owner = self._membership.name_of(claim.owner)
        try:
            encoded = await self._sessions.call(
                claim.owner,
                REMOVE,
                wire.RemoveNameRequest(name=name),
                deadline=monotonic_s() + REMOVE_TIMEOUT_S,
            )
        except SedmadError as error:
            if error.code not in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                raise
            raise OwnerUnreachable(
                f"{name} cannot be removed now",
                why=f"its owner {owner} does not answer",
                node=owner,
                matrix=name,
            ) from error
        response = read_reply(wire.RemoveNameResponse, encoded, claim.owner)
        return Removal(response.freed_bytes, tuple(response.unreachable))

    async def remove_name(
        self, request: wire.RemoveNameRequest, call: IncomingCall
    ) -> wire.RemoveNameResponse:
        """Remove a name that this node owns, for a member."""
        claim = self._membership.core.directory.get(request.name)
        if claim is None or claim.owner != self._own_peer_id:
            raise NotPermitted("this node does not own that name", matrix=request.name[:128])
        removal = await self.remove_own(claim)
        return wire.RemoveNameResponse(freed_bytes=removal.freed_bytes, unreachable=removal.unreachable)

    def on_replaced(self, claim: Claim) -> None:
        """A newer version has taken a name of ours: free the old one when nobody multiplies with it any more."""
        if claim.owner == self._own_peer_id:
            self.free_unnamed(key_of(claim), claim.name)

    def free_all_unnamed(self) -> None:
        """Free what no name stands for. Gossip has time to say otherwise, and a put under way to be named."""
        for manifest in self._manifests.kept():
            if manifest.owner == self._own_peer_id and not self._is_named(manifest.key):
                self.free_unnamed(manifest.key)

    def free_unnamed(self, key: ManifestKey, name: str = "") -> None:
        """Free a matrix of ours by and by, if no name stands for it then."""
        if self._nursery is not None and key not in self._to_free:
            self._to_free[key] = monotonic_s() + REPLACED_AFTER_S
            self._nursery.start_soon(self._free_later, key, name)

    def room_to_come(self) -> RoomToCome | None:
        """Return what matrices of ours without a name give back, and when; None if there are none."""
        going = {
            key: manifest
            for key in self._to_free
            if (manifest := self._manifests.get_kept(key)) is not None and not self._is_named(key)
        }
        if not going:
            return None
        size_bytes = sum(
            manifest.size_of(index) * len(copies)
            for manifest in going.values()
            for index, copies in enumerate(manifest.copies)
        )
        last_s = max(self._to_free[key] for key in going)
        return RoomToCome(size_bytes, max(0.0, last_s - monotonic_s()))

    async def remove_own(self, claim: Claim) -> Removal:
        """Take back a name of ours and free its matrix, as soon as most of its guardians agree.

        Raises:
            NotEnoughPeers: most of its guardians are out of reach, and may pass it on to another owner.
        """
        manifest = self._manifests.get_kept(key_of(claim))
        if manifest is not None and not self._establishing.may_plan(manifest):
            restored = self._database.restored_from is not None
            raise NotEnoughPeers(
                f"{claim.name} cannot be removed now",
                why="this node's tables were damaged, and it still asks others what it forgot"
                if restored
                else "most of its guardians do not answer, and may have another owner",
                matrix=claim.name,
                hint="Try again in a minute." if restored else "Try again when they are back.",
            )
        # On disk before anybody hears of it: what is gone elsewhere must not come back from here.
        tombstone = claim.tombstone(wall_time_s())
        signed = SignedRecord(tombstone, sign_record(tombstone, self._identity))
        with trio.CancelScope(shield=True):
            await self._database.write(partial(keep_record, signed=signed))
            self._membership.publish_claim(tombstone)
            failpoints.reach("removing.name_published")
            # Its name is gone: nobody could ask for the rest again.
            try:
                return await self._free(key_of(claim), claim.name)
            except SedmadError as error:
                log.warning("matrix_not_freed", name=claim.name, why=str(error))
                self.free_unnamed(key_of(claim), claim.name)
                others = manifest.holders - {self._own_peer_id} if manifest else ()
                return Removal(0, tuple(sorted(map(self._membership.name_of, others))))

    async def _free_later(self, key: ManifestKey, name: str = "") -> None:
        try:
            await trio.sleep(REPLACED_AFTER_S)
            while not await self._try_free(key, name):
                self._to_free[key] = monotonic_s() + FREE_AGAIN_S
                await trio.sleep(FREE_AGAIN_S)
        finally:
            del self._to_free[key]

    async def _try_free(self, key: ManifestKey, name: str) -> bool:
        try:
            await self._free(key, name)
        except SedmadError as error:
            log.warning("matrix_not_freed", name=name, digest=key.matrix_digest.hex()[:16], why=str(error))
            return False
        return True

    async def _free(self, key: ManifestKey, name: str) -> Removal:
        async with self._manifests.writing(key):
            kept = self._manifests.get(key)
            if kept is None or kept.manifest.owner != self._own_peer_id or self._is_named(key):
                return Removal(0, ())
            # What took its name's place, a tombstone as a rule: on disk and told together with the end of its matrix.
            record = self._membership.core.directory.find(name, key.first_owner)
            return await self._end(kept, record, promised=_may_be_promised(kept))

    def _is_named(self, key: ManifestKey) -> bool:
        """Whether any name stands for a matrix."""
        return bool(self._membership.core.directory.naming(key.matrix_digest, key.first_owner))

    async def retire(self, failed: KeptManifest) -> Removal:
        """End a matrix of ours that never was acknowledged; nobody else can know it."""
        return await self._end(failed, None, promised=False)

    async def _end(self, before: KeptManifest, record: SignedRecord | None, *, promised: bool) -> Removal:
        """Write a matrix's last manifest, and have all its holders free their copies.

        Args:
            record: a claim of ours to keep and to tell with it.
            promised: somebody may rely on it, so that most of its guardians have to agree first.
        """
        manifest = with_guardians_before(before.manifest, before)
        last = replace(
            manifest,
            seq=manifest.seq + 1,
            removed=True,
            previous_digest=manifest.digest,
            written_at_s=wall_time_s(),
        )
        ours = record is not None and record.record.owner == self._own_peer_id  # type: ignore[union-attr]
        also = partial(keep_record, signed=record) if record is not None and ours else None
        kept = await self._manifests.store_own(last, also=also)
        failpoints.reach("removing.last_manifest_stored")
        if promised:
            await self._establishing.make_safe(kept)
            failpoints.reach("removing.last_manifest_safe")
        told = await self._establishing.finish(kept, claim=record.signed if record and ours else b"")
        told.add(self._own_peer_id)
        failpoints.reach("removing.last_manifest_told")
        freed_bytes = sum(
            manifest.size_of(index)
            for index, copies in enumerate(manifest.copies)
            for peer in copies
            if peer in told
        )
        others = {*manifest.guardians, *manifest.holders}
        unreachable = tuple(sorted(self._membership.name_of(peer_id) for peer_id in others - told))
        log.info("matrix_removed", digest=manifest.key.matrix_digest.hex()[:16], freed_bytes=freed_bytes)
        return Removal(freed_bytes, unreachable)


def _may_be_promised(kept: KeptManifest) -> bool:
    """Whether somebody may rely on a matrix: one that was passed on is older than what is in doubt here."""
    return kept.established or kept.manifest.removed or bool(kept.manifest.successions)
