"""Where a name's matrix lies: from what this node keeps, or from those who keep it, remembered for a while."""

from __future__ import annotations

from collections import OrderedDict

import structlog

from sedmad.core.membership.claim import Claim, short_id
from sedmad.errors import HoldersUnreachable, MatrixNotFound, NotPermitted, SedmadError
from sedmad.net.sessions import Sessions
from sedmad.node.clock import monotonic_s
from sedmad.node.manifest import Manifest, read_manifest
from sedmad.node.manifests import ManifestService
from sedmad.node.membership import MembershipService
from sedmad.node.replies import read_reply
from sedmad.node.succession import key_to_wire
from sedmad.store.manifests import ManifestKey
from sedmad.wire import messages as wire

log = structlog.get_logger("sedmad.manifests")

GET_MANIFEST = "sedma.v1.ManifestService/GetManifest"
# Manifests of matrices that this node only multiplies with; 50 bytes a partition each.
CACHED_MAX = 1024
ASK_TIMEOUT_S = 3.0


class LookUpService:
    """Finds manifests."""

    def __init__(
        self, *, sessions: Sessions, membership: MembershipService, manifests: ManifestService
    ) -> None:
        self._sessions = sessions
        self._membership = membership
        self._manifests = manifests
        self._cached: OrderedDict[ManifestKey, Manifest] = OrderedDict()

    def known(self, key: ManifestKey) -> Manifest | None:
        """Return the newest manifest of a key that is kept or remembered here."""
        found = [
            manifest
            for manifest in (self._manifests.get_kept(key), self._cached.get(key))
            if manifest is not None
        ]
        return max(found, key=lambda manifest: manifest.order, default=None)

    async def look_up(self, claim: Claim, *, deadline: float, after: Manifest | None = None) -> Manifest:
        """Return the manifest behind a name, from here or from its guardians.

        Args:
            after: one that a holder called stale; only a newer one helps.

        Raises:
            MatrixNotFound: it was removed; the news has not come here yet.
            HoldersUnreachable: nobody who keeps it answers.
        """
        key = ManifestKey(claim.matrix_digest, claim.first_owner)
        known = self.known(key)
        wanted = (claim.epoch, claim.seq)
        if after is not None and after.key == key:
            wanted = max(wanted, (after.epoch, after.seq + 1))
        if known is None or known.order < wanted:
            known, asked = await self._ask_around(claim, key, wanted, deadline, known)
            if known is None:
                raise HoldersUnreachable(
                    f"nobody who answers knows where {claim.name} lies",
                    why=f"asked: {', '.join(asked) or 'nobody is connected'}",
                    matrix=claim.name,
                )
        if known.removed:
            raise MatrixNotFound(f"{claim.name} was removed", matrix=claim.name)
        return known

    async def _ask_around(
        self,
        claim: Claim,
        key: ManifestKey,
        wanted: tuple[int, int],
        deadline: float,
        known: Manifest | None,
    ) -> tuple[Manifest | None, list[str]]:
        """Return the newest manifest that anybody gives, or the known one; and the names of those who were asked."""
        # Guardians first; where they are gone, holders keep it too, and in a small mesh anybody may be one.
        guardians = set(claim.guardians)
        rows = [row for row in self._membership.peers() if row.state != "dead"]
        rows.sort(
            key=lambda row: (
                self._sessions.attached(row.peer_id) is None,
                short_id(row.peer_id) not in guardians,
                row.state != "alive",
                row.rtt_s or 1.0,
            )
        )
        asked = []
        for row in rows:
            # Guardians that are being connected with again are worth waiting for.
            if self._sessions.attached(row.peer_id) is None and short_id(row.peer_id) not in guardians:
                continue
            asked.append(row.advert.name)
            try:
                manifest = await self.ask(row.peer_id, key, deadline=deadline)
            except SedmadError as error:
                log.debug("manifest_not_found", peer=row.peer_id, why=error.what)
                if isinstance(error, MatrixNotFound) and row.peer_id == claim.owner:
                    raise MatrixNotFound(f"{claim.name} was removed", matrix=claim.name) from error
                continue
            if known is None or manifest.order > known.order:
                known = manifest
            if known.order >= wanted:
                break
        return known, asked

    async def ask(self, peer_id: str, key: ManifestKey, *, deadline: float) -> Manifest:
        """Return what a peer keeps of a matrix.

        Raises:
            MatrixNotFound: nothing.
        """
        encoded = await self._sessions.call(
            peer_id,
            GET_MANIFEST,
            wire.GetManifestRequest(key=key_to_wire(key)),
            deadline=min(deadline, monotonic_s() + ASK_TIMEOUT_S),
        )
        manifest = read_manifest(read_reply(wire.GetManifestResponse, encoded, peer_id).manifest)
        if manifest.key != key:
            raise NotPermitted("a peer answered with another manifest", node=peer_id)
        self._remember(manifest)
        return manifest

    def _remember(self, manifest: Manifest) -> None:
        kept = self._cached.get(manifest.key)
        if kept is None or kept.order < manifest.order:
            self._cached[manifest.key] = manifest
            self._cached.move_to_end(manifest.key)
            if len(self._cached) > CACHED_MAX:
                self._cached.popitem(last=False)
