"""A manifest of ours is made to count: kept by most of its guardians first, and only then one that frees bytes.

Every manifest goes through here, of a put, a repair, a removal or a matrix that was passed on. Whoever cannot reach
most of the guardians establishes nothing, so of two sides of a split at most one changes where a matrix lies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import structlog
import trio

from sedmad import failpoints
from sedmad.core.membership.claim import Claim, short_id
from sedmad.core.membership.record import SignedRecord
from sedmad.core.ownership import is_majority
from sedmad.errors import NotEnoughPeers, SedmadError, StaleManifest
from sedmad.net.identity import Identity
from sedmad.net.sessions import Sessions
from sedmad.node.clock import monotonic_s, wall_time_s
from sedmad.node.keeping import keep_record
from sedmad.node.manifest import Manifest, read_manifest
from sedmad.node.manifests import NAMES_TOLD_MAX, KeptManifest, ManifestService, Transaction, names_of
from sedmad.node.membership import MembershipService
from sedmad.node.records import read_record
from sedmad.node.replies import read_reply
from sedmad.store.database import Connection, Database
from sedmad.store.manifests import ManifestKey
from sedmad.wire import messages as wire

log = structlog.get_logger("sedmad.establishing")

STORE_MANIFEST = "sedma.v1.ManifestService/StoreManifest"
TELL_TIMEOUT_S = 10.0


class EstablishingService:
    """Tells manifests of ours, and establishes them.

    Args:
        on_refused: called with a peer, and a matrix of ours of which it knows something newer, or promised to refuse
            ours.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        database: Database,
        sessions: Sessions,
        membership: MembershipService,
        manifests: ManifestService,
        on_refused: Callable[[str, ManifestKey], None] = lambda peer_id, key: None,
    ) -> None:
        self._own_peer_id = identity.peer_id
        self._database = database
        self._sessions = sessions
        self._membership = membership
        self._manifests = manifests
        self._on_refused = on_refused

    def may_plan(self, manifest: Manifest) -> bool:
        """Whether a matrix is ours, and enough of its guardians live for a change of it to be established."""
        if manifest.owner != self._own_peer_id or self._database.restored_from is not None:
            return False
        alive = [peer for peer in manifest.guardians if self._membership.state_of(peer) != "dead"]
        return is_majority(alive, manifest.guardians)

    async def establish(
        self,
        manifest: Manifest,
        *,
        put_id: bytes = b"",
        needed: frozenset[str] = frozenset(),
        also: Transaction | None = None,
        back_to: KeptManifest | None = None,
    ) -> Manifest:
        """Write a changed manifest of ours, and have it kept by whom it takes; the caller is `writing` it.

        Args:
            manifest: its seq raised, and `previous_digest` that of the one before.
            put_id: the put or repair whose copies become the matrix's.
            needed: peers that have to keep it as well, such as those with new copies.
            also: goes into the transaction that puts it on disk here.
            back_to: what was kept before the one that it undoes, and whose copies it names again.

        Raises:
            NotEnoughPeers: too few keep it. It stays on disk where it came to; a later one takes its place.
            StaleManifest: the matrix is somebody else's by now.
        """
        before = self._manifests.get(manifest.key)
        kept = await self.propose(manifest, put_id=put_id, needed=needed, also=also, back_to=back_to)
        await self.finish(kept, beside=self._others(before.manifest) if before else frozenset())
        return kept.manifest

    async def propose(
        self,
        manifest: Manifest,
        *,
        put_id: bytes = b"",
        needed: frozenset[str] = frozenset(),
        also: Transaction | None = None,
        back_to: KeptManifest | None = None,
    ) -> KeptManifest:
        """Do the first half of `establish`: nobody frees anything yet."""
        before = self._manifests.get(manifest.key)
        if before is not None:
            manifest = with_guardians_before(manifest, before)
            manifest = replace(manifest, copies_established=adds_no_copy(manifest, back_to or before))
        kept = await self._manifests.store_own(manifest, put_id=put_id, also=also)
        await self.make_safe(kept, put_id=put_id, needed=needed)
        return kept

    async def make_safe(
        self,
        kept: KeptManifest,
        *,
        put_id: bytes = b"",
        needed: frozenset[str] = frozenset(),
    ) -> None:
        """Have a manifest that is on disk here kept by most guardians, of those before as well, and by `needed`.

        New guardians keep the names of the matrix with it: the next owner is one of them, and frees what has no name.
        All of them answer with the names that they know, which come onto this node's disk.

        Raises:
            NotEnoughPeers: too few keep it.
            StaleManifest: it ends a matrix for which a name stands.
        """
        known = names_of(self._membership.core.directory, kept.manifest.key)
        keeping = others = self._others(kept.manifest)
        guardians = [group for group in (kept.manifest.guardians, kept.manifest.guardians_before) if group]
        for claim in self._names_to_tell(kept.manifest) or [b""]:
            keeping = await self.tell(kept.signed, keeping, put_id=put_id, committing=needed, claim=claim)
        keeping.add(self._own_peer_id)
        if not needed <= keeping or not all(is_majority(keeping, group) for group in guardians):
            names = ", ".join(sorted(map(self._membership.name_of, others - keeping)))
            raise NotEnoughPeers(
                "a change of a matrix could not be made safe",
                why=f"no answer came from {names}; all that it gives copies to and most guardians have to keep it",
                hint="Try again when they are back.",
            )
        await self._keep_names(kept.manifest, known)

    async def _keep_names(self, manifest: Manifest, known: Sequence[SignedRecord]) -> None:
        """Put the names of a matrix on disk that were heard since they were the `known` ones."""
        names = names_of(self._membership.core.directory, manifest.key)
        if names and manifest.removed:
            raise StaleManifest("a matrix was not ended", why="others know a name that stands for it")
        if names != known:

            def transaction(connection: Connection) -> None:
                for name in names:
                    keep_record(connection, name)

            await self._database.write(transaction)

    async def finish(
        self,
        kept: KeptManifest,
        *,
        beside: Iterable[str] = (),
        claim: bytes = b"",
    ) -> set[str]:
        """Note that a manifest is established, here and elsewhere; return the peers that know it.

        Those that cannot be told now learn it from the claims of its names, whose seq rises with it.

        Args:
            beside: peers that the one before named.
            claim: a name to be kept and told with it.
        """
        manifest = kept.manifest
        await self._manifests.establish(manifest.key, manifest.order)
        failpoints.reach("establishing.established")
        if not manifest.removed:
            self._raise_claims(manifest)
        others = self._others(manifest) | (set(beside) - {self._own_peer_id})
        return await self.tell(kept.signed, others, claim=claim, established=True)

    async def tell(
        self,
        signed: wire.SignedManifest,
        peers: Iterable[str],
        *,
        put_id: bytes = b"",
        committing: frozenset[str] = frozenset(),
        claim: bytes = b"",
        established: bool = False,
    ) -> set[str]:
        """Give a manifest, and the name that goes with it, to peers at once; return those that have it on disk.

        Args:
            committing: peers that have to hold all that it gives them, by the put `put_id`; others may lack something,
                and fetch it.
        """
        keeping: set[str] = set()

        async def tell_one(peer_id: str) -> None:
            request = wire.StoreManifestRequest(manifest=signed, established=established)
            if peer_id in committing:
                request.put_id = put_id
            if claim:
                request.claim.ParseFromString(claim)
            try:
                deadline = monotonic_s() + TELL_TIMEOUT_S
                encoded = await self._sessions.call(peer_id, STORE_MANIFEST, request, deadline=deadline)
                self._hear_names(peer_id, read_reply(wire.StoreManifestResponse, encoded, peer_id))
            except SedmadError as error:
                log.warning("manifest_not_told", peer=peer_id, why=str(error))
                if isinstance(error, StaleManifest):
                    self._on_refused(peer_id, read_manifest(signed).key)
            else:
                keeping.add(peer_id)

        async with trio.open_nursery() as nursery:
            for peer_id in peers:
                if self._membership.state_of(peer_id) != "dead":
                    nursery.start_soon(tell_one, peer_id)
        return keeping

    def _raise_claims(self, manifest: Manifest) -> None:
        """Have gossip say where the names of a matrix of ours stand now."""
        key = manifest.key
        for claim in self._membership.core.directory.naming(key.matrix_digest, key.first_owner):
            if (claim.epoch, claim.seq) < manifest.order:
                self._membership.publish_claim(claim_for(claim, manifest))

    def _hear_names(self, peer_id: str, response: wire.StoreManifestResponse) -> None:
        for name in response.names[:NAMES_TOLD_MAX]:
            self._membership.hear(peer_id, read_record(name.SerializeToString()))

    def _names_to_tell(self, manifest: Manifest) -> list[bytes]:
        if not manifest.guardians_before:
            return []
        return [name.signed for name in names_of(self._membership.core.directory, manifest.key)]

    def _others(self, manifest: Manifest) -> set[str]:
        peers = {*manifest.guardians, *manifest.guardians_before, *manifest.holders}
        return peers - {self._own_peer_id}


def key_of(claim: Claim) -> ManifestKey:
    """Return which matrix a name stands for."""
    return ManifestKey(claim.matrix_digest, claim.first_owner)


def claim_for(claim: Claim, manifest: Manifest) -> Claim:
    """Return a name's claim as the owner of a newer manifest of its matrix makes it."""
    return replace(
        claim,
        owner=manifest.owner,
        epoch=manifest.epoch,
        seq=manifest.seq,
        guardians=tuple(short_id(peer_id) for peer_id in manifest.guardians),
        wall_time_s=wall_time_s(),
    )


def with_guardians_before(manifest: Manifest, before: KeptManifest) -> Manifest:
    """Return the manifest that follows `before`, naming the guardians whose agreement it needs beside its own.

    They cannot change twice before the first change is established: then they stay as they are.
    """
    if not before.established:
        return replace(
            manifest,
            guardians=before.manifest.guardians,
            guardians_before=before.manifest.guardians_before,
        )
    changed = set(manifest.guardians) != set(before.manifest.guardians)
    return replace(manifest, guardians_before=before.manifest.guardians if changed else ())


def adds_no_copy(manifest: Manifest, before: KeptManifest) -> bool:
    """Whether the last established manifest names all copies of one that follows `before`."""
    return (before.established or before.manifest.copies_established) and all(
        after.keys() <= copies.keys()
        for after, copies in zip(manifest.copies, before.manifest.copies, strict=True)
    )
