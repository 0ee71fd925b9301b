"""A put whose copies are safe becomes a matrix: its manifest is written and told, and its name claimed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from sedmad.core.membership.claim import Claim, short_id
from sedmad.core.membership.record import SignedRecord
from sedmad.core.offers import guardians
from sedmad.errors import NameTaken, NotEnoughPeers
from sedmad.net.identity import Identity
from sedmad.node.clock import monotonic_s, wall_time_s
from sedmad.node.holding import HoldingService
from sedmad.node.keeping import keep_record
from sedmad.node.manifest import Manifest
from sedmad.node.manifests import ManifestService
from sedmad.node.membership import MembershipService
from sedmad.node.offering import gather_offers
from sedmad.node.put import Put
from sedmad.node.records import DATA_TYPES, sign_record
from sedmad.store import manifests as manifest_table
from sedmad.store import puts as put_table
from sedmad.store.database import Connection, Database
from sedmad.store.holdings import Kind
from sedmad.store.manifests import ManifestKey
from sedmad.wire import messages as wire
from sedmad.wire.matrix_digest import matrix_digest

MANIFEST_TIMEOUT_S = 10.0


class CommittingService:
    """Commits the puts of which this node is the owner.

    Args:
        retire: takes back a name of ours and frees its matrix.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        database: Database,
        membership: MembershipService,
        manifests: ManifestService,
        holding: HoldingService,
        retire: Callable[[Claim], Awaitable[object]],
    ) -> None:
        self._identity = identity
        self._own_peer_id = identity.peer_id
        self._database = database
        self._membership = membership
        self._manifests = manifests
        self._holding = holding
        self._retire = retire

    async def commit(self, put: Put, digests: list[bytes]) -> tuple[Claim, Manifest]:
        """Write the manifest here, on its guardians and on the holders, then the name; return both.

        Where this node stored the same content before, under another name, and promised as much, that matrix gets
        the name as well, and the put's own copies are left to be given up.

        Raises:
            NameTaken: somebody else took the name meanwhile.
            NotEnoughPeers: too few answered; the name is taken back.
        """
        key = self._key(put, digests)
        async with self._manifests.writing(key):
            self._require_name(put)
            before = self._manifests.get_kept(key)
            if before is not None and self._serves(before, put):
                claim, manifest, signed = await self._name_again(put, before)
                needed, put_id = manifest.holders, b""
            else:
                claim, manifest, signed = await self._store_new(put, key, digests, before)
                needed, put_id = put.holders, put.put_id
            stored = await self._manifests.tell(
                signed,
                self._others(manifest),
                put_id=put_id,
                claim=sign_record(claim, self._identity),
                deadline=monotonic_s() + MANIFEST_TIMEOUT_S,
            )
            stored.add(self._own_peer_id)
            put.replaced = self._own_claim(put.name)
            self._membership.publish_claim(claim)
        guarding = stored.intersection(manifest.guardians)
        if needed - stored or len(guarding) < len(manifest.guardians) // 2 + 1:
            await self._retire(claim)
            missing = self._others(manifest) - stored
            names = ", ".join(sorted(map(self._membership.name_of, missing)))
            raise NotEnoughPeers(
                f"{put.name} could not be made safe",
                why=f"no answer came from {names}; all holders and most guardians have to keep its manifest",
                matrix=put.name,
                hint="Store it again.",
            )
        put.committed = manifest is not before
        return claim, manifest

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
        content = matrix_digest(DATA_TYPES[put.dtype], cut.rows, cut.columns, cut.partition_rows, digests)
        return ManifestKey(content, self._own_peer_id)

    def _serves(self, before: Manifest, put: Put) -> bool:
        """Whether a matrix with the same content keeps what the put promises."""
        return before.survive >= put.survive and all(
            self._membership.state_of(peer_id) == "alive" for peer_id in before.holders
        )

    def _others(self, manifest: Manifest) -> set[str]:
        return {*manifest.guardians, *manifest.holders} - {self._own_peer_id}

    async def _name_again(self, put: Put, manifest: Manifest) -> tuple[Claim, Manifest, wire.SignedManifest]:
        claim = self._claim(put.name, manifest)
        await self._database.write(partial(keep_record, signed=self._signed(claim)))
        return claim, manifest, self._manifests.signed(manifest.key)

    async def _store_new(
        self, put: Put, key: ManifestKey, digests: list[bytes], before: Manifest | None
    ) -> tuple[Claim, Manifest, wire.SignedManifest]:
        cut = put.partitioning
        manifest = Manifest(
            key=key,
            owner=self._own_peer_id,
            guardians=guardians(self._own_peer_id, gather_offers(self._membership, self._holding.ledger)),
            epoch=before.epoch if before else 0,
            seq=before.seq + 1 if before else await self._first_seq(key),
            dtype=put.dtype,
            rows=cut.rows,
            columns=cut.columns,
            partition_rows=cut.partition_rows,
            survive=max(put.survive, before.survive if before else 0),
            digests=tuple(digests),
            copies=tuple(_copies(put, before, index) for index in range(cut.count)),
            previous_digest=before.digest if before else b"",
            written_at_s=wall_time_s(),
        )
        claim = self._claim(put.name, manifest)
        signed_claim = self._signed(claim)

        def also(connection: Connection) -> None:
            put_table.end(connection, put.put_id)
            keep_record(connection, signed_claim)

        manifest, signed = await self._manifests.store_own(manifest, put_id=put.put_id, also=also)
        return claim, manifest, signed

    async def _first_seq(self, key: ManifestKey) -> int:
        """Return 1, or what comes after the matrix's last removal."""
        buried = await self._database.read(partial(manifest_table.latest_tombstone, key=key))
        return buried.seq + 1 if buried else 1

    def _signed(self, claim: Claim) -> SignedRecord:
        return SignedRecord(claim, sign_record(claim, self._identity))

    def _claim(self, name: str, manifest: Manifest) -> Claim:
        claim = Claim(
            name=name,
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
            survive=manifest.survive,
            wall_time_s=wall_time_s(),
        )
        return self._membership.core.directory.next_version(claim)


def _copies(put: Put, before: Manifest | None, index: int) -> dict[str, Kind]:
    """Return a partition's copies: the put's, and as standby copies those that other names rely on."""
    copies = put.copies_of(index)
    if before is not None:
        copies |= {peer: Kind.STANDBY for peer in before.copies[index] if peer not in copies}
    return copies
