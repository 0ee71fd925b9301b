"""A put whose copies are safe becomes a matrix: its manifest is written and told, and its name claimed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from sedmad import failpoints
from sedmad.core.membership.claim import Claim, short_id
from sedmad.core.membership.record import SignedRecord
from sedmad.core.offers import guardians
from sedmad.core.ownership import is_majority
from sedmad.errors import NameTaken, NotEnoughPeers, SedmadError
from sedmad.net.identity import Identity
from sedmad.node.clock import wall_time_s
from sedmad.node.establishing import EstablishingService, with_guardians_before
from sedmad.node.holding import HoldingService
from sedmad.node.keeping import keep_record
from sedmad.node.manifest import Manifest, read_manifest
from sedmad.node.manifests import KeptManifest, ManifestService
from sedmad.node.membership import MembershipService
from sedmad.node.offering import gather_offers
from sedmad.node.put import Put
from sedmad.node.records import DATA_TYPES, sign_record
from sedmad.store import puts as put_table
from sedmad.store.database import Connection, Database
from sedmad.store.holdings import Kind
from sedmad.store.manifests import ManifestKey
from sedmad.wire.matrix_digest import matrix_digest


class CommittingService:
    """Commits the puts of which this node is the owner.

    Args:
        retire: ends a matrix of ours that nobody was promised, and frees it.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        database: Database,
        membership: MembershipService,
        manifests: ManifestService,
        establishing: EstablishingService,
        holding: HoldingService,
        retire: Callable[[KeptManifest], Awaitable[object]],
    ) -> None:
        self._identity = identity
        self._own_peer_id = identity.peer_id
        self._database = database
        self._membership = membership
        self._manifests = manifests
        self._establishing = establishing
        self._holding = holding
        self._retire = retire

    async def commit(self, put: Put, digests: list[bytes]) -> tuple[Claim, Manifest]:
        """Write the manifest here, on its guardians and on the holders, then the name; return both.

        Where this node stored the same content before, under another name, and promised as much, that matrix gets
        the name as well, and the put's own copies are left to be given up.

        Raises:
            NameTaken: somebody else took the name meanwhile; what the name stands for stays as it is.
            NotEnoughPeers: too few answered; what the name stood for before, it still does.
        """
        key = self._key(put, digests)
        async with self._manifests.writing(key):
            before = self._manifests.get(key)
            if before is not None and before.established and self._serves(before.manifest, put):
                kept = before
            else:
                kept = await self._store_new(put, key, digests, before)
                failpoints.reach("committing.manifest_stored")
            try:
                await self._make_safe(put, kept, before)
                failpoints.reach("committing.manifest_told")
                self._require_name(put)
            except SedmadError:
                await self._take_back(before, kept)
                raise
            put.committed = kept is not before
            return await self._name(put, kept), kept.manifest

    async def _make_safe(self, put: Put, kept: KeptManifest, before: KeptManifest | None) -> None:
        """Have all holders and most guardians keep a manifest."""
        fresh = kept is not before
        try:
            await self._establishing.make_safe(
                kept,
                put_id=put.put_id if fresh else b"",
                needed=put.holders if fresh else kept.manifest.holders,
            )
        except NotEnoughPeers as error:
            raise NotEnoughPeers(
                f"{put.name} could not be made safe", why=error.why, matrix=put.name, hint="Store it again."
            ) from error

    async def _name(self, put: Put, kept: KeptManifest) -> Claim:
        """Claim the name, here and on as many nodes as the matrix is to survive the loss of."""
        claim = self._claim(put, kept.manifest)
        signed_claim = SignedRecord(claim, sign_record(claim, self._identity))

        def transaction(connection: Connection) -> None:
            keep_record(connection, signed_claim)
            if put.committed:
                # Not with the manifest: until its holders have that, somebody has to tell them to give the put up.
                put_table.end(connection, put.put_id)

        await self._database.write(transaction)
        failpoints.reach("committing.name_stored")
        put.replaced = self._own_claim(put.name)
        self._membership.publish_claim(claim)
        named = await self._establishing.finish(kept, claim=signed_claim.signed)
        failpoints.reach("committing.name_told")
        # Among those who elect a new owner somebody has to know the name, or the matrix would be freed as nobody's.
        guarded = is_majority({self._own_peer_id, *named}, kept.manifest.guardians)
        if len(named) < put.survive or not guarded:
            raise NotEnoughPeers(
                f"{put.name} is stored, but too few nodes know its name yet",
                why=f"{len(named)} besides this one answered; {put.survive} and most guardians are needed",
                matrix=put.name,
                hint="Store it again: it is told again, and not copied.",
            )
        return claim

    async def _take_back(self, before: KeptManifest | None, failed: KeptManifest) -> None:
        """Undo a manifest: have the one again that other names rely on, or none."""
        if before is None:
            await self._retire(failed)
        elif failed is not before:
            manifest = replace(
                before.manifest,
                seq=failed.manifest.seq + 1,
                previous_digest=failed.manifest.digest,
                written_at_s=wall_time_s(),
            )
            await self._establishing.establish(manifest, back_to=before)

    def _require_name(self, put: Put) -> None:
        taken = self._membership.core.directory.get(put.name)
        if taken is not None and not put.replace:
            owner = self._membership.name_of(taken.owner)
            raise NameTaken(f"{owner} stored a matrix as {put.name} meanwhile", matrix=put.name)

    def _own_claim(self, name: str) -> Claim | None:
        """Return this node's present claim to a name; the next one takes its place, whoever has the name."""
        record = self._membership.core.directory.find(name, self._own_peer_id)
        if record is None or not isinstance(record.record, Claim) or record.record.removed:
            return None
        return record.record

    def _key(self, put: Put, digests: list[bytes]) -> ManifestKey:
        cut = put.partitioning
        content = matrix_digest(
            DATA_TYPES[put.dtype],
            cut.rows,
            cut.columns,
            cut.partition_rows,
            digests,
            put.scale,
            put.accuracy.target_error,
            put.accuracy.profile,
        )
        return ManifestKey(content, self._own_peer_id)

    def _serves(self, before: Manifest, put: Put) -> bool:
        """Whether a matrix with the same content keeps what the put promises."""
        return before.survive >= put.survive and all(
            self._membership.state_of(peer_id) == "alive" for peer_id in before.holders
        )

    async def _store_new(
        self, put: Put, key: ManifestKey, digests: list[bytes], kept: KeptManifest | None
    ) -> KeptManifest:
        cut = put.partitioning
        before = kept.manifest if kept else None
        last = before or await self._last(key)
        ours = last is not None and last.owner == self._own_peer_id
        manifest = Manifest(
            key=key,
            owner=self._own_peer_id,
            guardians=guardians(self._own_peer_id, gather_offers(self._membership, self._holding.ledger)),
            # What another owner ended begins anew, in an epoch that its end does not rule out.
            epoch=0 if last is None else last.epoch if ours else last.epoch + 1,
            seq=last.seq + 1 if last else 1,
            dtype=put.dtype,
            rows=cut.rows,
            columns=cut.columns,
            partition_rows=cut.partition_rows,
            survive=max(put.survive, before.survive if before else 0),
            digests=tuple(digests),
            copies=tuple(_copies(put, before, index) for index in range(cut.count)),
            previous_digest=last.digest if last else b"",
            written_at_s=wall_time_s(),
            scale=put.scale,
            accuracy=put.accuracy,
            successions=last.successions if last and ours else (),
        )
        if kept is not None:
            manifest = with_guardians_before(manifest, kept)
        elif last is not None:
            # They may know that somebody else has ended the matrix since. Where it was ended without being established,
            # and the guardians had changed with it, those before are still the ones to ask.
            asked = last.guardians_before or last.guardians
            if set(asked) != set(manifest.guardians):
                manifest = replace(manifest, guardians_before=asked)
        return await self._manifests.store_own(manifest, put_id=put.put_id)

    async def _last(self, key: ManifestKey) -> Manifest | None:
        """Return the last manifest of a matrix that was removed."""
        buried = await self._manifests.buried(key)
        return read_manifest(buried) if buried else None

    def _claim(self, put: Put, manifest: Manifest) -> Claim:
        claim = Claim(
            name=put.name,
            version=0,
            matrix_digest=manifest.key.matrix_digest,
            first_owner=manifest.key.first_owner,
            owner=manifest.owner,
            epoch=manifest.epoch,
            seq=manifest.seq,
            guardians=tuple(short_id(peer_id) for peer_id in manifest.guardians),
            rows=manifest.rows,
            columns=manifest.columns,
            dtype=manifest.dtype,
            survive=put.survive,
            wall_time_s=wall_time_s(),
        )
        return self._membership.core.directory.next_version(claim)


def _copies(put: Put, before: Manifest | None, index: int) -> dict[str, Kind]:
    """Return a partition's copies: the put's, and as standby copies those that other names rely on."""
    copies = put.copies_of(index)
    if before is not None:
        copies |= {peer: Kind.STANDBY for peer in before.copies[index] if peer not in copies}
    return copies
