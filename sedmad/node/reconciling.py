"""What this node missed: manifests that others know newer, asked for when nodes meet, and now and then.

Every change of where a matrix lies raises the seq in the claims of its names, so gossip tells that there is news; this
fetches it. Nodes that share matrices also compare what they keep, which finds what has no name, and what gossip lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog
import trio

from sedmad.core.membership.claim import Claim, short_id
from sedmad.errors import SedmadError, StaleManifest
from sedmad.net.calls import IncomingCall
from sedmad.net.sessions import Sessions
from sedmad.node.clock import monotonic_s
from sedmad.node.establishing import key_of
from sedmad.node.manifest import Manifest, read_manifest
from sedmad.node.manifests import ManifestService
from sedmad.node.membership import MembershipService
from sedmad.node.replies import read_reply
from sedmad.node.succession import key_from_wire, key_to_wire
from sedmad.store import manifests as manifest_table
from sedmad.store.database import Connection, Database
from sedmad.store.manifests import ManifestKey, StoredTombstone
from sedmad.wire import messages as wire

if TYPE_CHECKING:
    # libp2p brings stubs that hide trio's own types, this one among them.
    from trio_typing import TaskStatus

log = structlog.get_logger("sedmad.reconciling")

COMPARE = "sedma.v1.ReconcilingService/CompareManifests"
GET_MANIFEST = "sedma.v1.ManifestService/GetManifest"
ASK_TIMEOUT_S = 10.0
# 150 bytes each in a request.
COMPARED_MAX = 1000
# A response's header has at most 1 MiB; the asker asks again for the rest.
NEWER_BYTES_MAX = 900_000
# What nodes that met tell each other right away has come by then.
AFTER_MEETING_S = 1.0
# One neighbour after the other: what both gossip and meeting missed is found within some minutes.
ROUND_S = 30.0
# Matrices to ask single peers about: as many as lose their owner at once, and more wait for the next round.
WANTED_MAX = 4096


class ReconcilingService:
    """Compares manifests with other nodes; serves ReconcilingService of the contract."""

    def __init__(
        self,
        *,
        own_peer_id: str,
        database: Database,
        sessions: Sessions,
        membership: MembershipService,
        manifests: ManifestService,
    ) -> None:
        self._own_peer_id = own_peer_id
        self._database = database
        self._sessions = sessions
        self._membership = membership
        self._manifests = manifests
        # Peers to compare everything with, and when; and single matrices to ask a peer about.
        self._meetings: dict[str, float] = {}
        self._wanted: dict[tuple[str, ManifestKey], None] = {}
        self._wake = trio.Event()
        self._next_round = 0

    def meet(self, peer_id: str) -> None:
        """A session began: compare with that peer soon."""
        self._meetings.setdefault(peer_id, monotonic_s() + AFTER_MEETING_S)
        self._wake.set()

    def on_claim(self, claim: Claim) -> None:
        """Gossip tells of a claim: ask for the manifest behind it if it is news that concerns this node."""
        key = key_of(claim)
        kept = self._manifests.get_kept(key)
        if kept is None:
            concerned = short_id(self._own_peer_id) in claim.guardians and not claim.removed
        else:
            concerned = (claim.epoch, claim.seq) > kept.order
        if concerned and claim.owner != self._own_peer_id:
            self.want(claim.owner, key)

    def want(self, peer_id: str, key: ManifestKey) -> None:
        """Ask a peer for what it keeps of a matrix, soon."""
        if len(self._wanted) < WANTED_MAX:
            self._wanted[peer_id, key] = None
            self._wake.set()

    async def run(self, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ask until cancelled."""
        task_status.started()
        round_at = monotonic_s() + ROUND_S
        while True:
            with trio.CancelScope(deadline=min([round_at, *self._meetings.values()])):
                await self._wake.wait()
            self._wake = trio.Event()
            while self._wanted:
                peer_id, key = next(iter(self._wanted))
                del self._wanted[peer_id, key]
                await self._ask(peer_id, key)
            now = monotonic_s()
            for peer_id in [peer_id for peer_id, at in self._meetings.items() if at <= now]:
                del self._meetings[peer_id]
                await self._compare(peer_id)
            if now >= round_at:
                round_at = now + ROUND_S
                await self._compare_with_next()

    # What members ask.

    async def compare_manifests(
        self, request: wire.CompareManifestsRequest, call: IncomingCall
    ) -> wire.CompareManifestsResponse:
        """Tell what is newer here, and note what is newer there."""
        known = {
            key_from_wire(order.key): (order.epoch, order.seq, order.established)
            for order in request.known[:COMPARED_MAX]
        }
        response = wire.CompareManifestsResponse()
        size_bytes = 0
        buried = await self._buried([key for key in known if self._manifests.get(key) is None])
        for key, order in known.items():
            if kept := self._manifests.get(key):
                ours = (*kept.manifest.order, kept.established)
                newer = kept.signed if kept.established and ours > order else None
            elif tombstone := buried.get(key):
                ours = (*tombstone.order, True)
                newer = wire.SignedManifest.FromString(tombstone.signed) if ours > order else None
            else:
                ours, newer = (-1, -1, False), None
            if newer is not None and size_bytes + newer.ByteSize() <= NEWER_BYTES_MAX:
                response.newer.append(newer)
                size_bytes += newer.ByteSize()
            elif ours < order:
                self.want(call.remote, key)
        return response

    async def _buried(self, keys: Sequence[ManifestKey]) -> dict[ManifestKey, StoredTombstone]:
        def read(connection: Connection) -> dict[ManifestKey, StoredTombstone]:
            found = {key: manifest_table.latest_tombstone(connection, key) for key in keys}
            return {key: tombstone for key, tombstone in found.items() if tombstone}

        return await self._database.read(read) if keys else {}

    # What this node asks.

    async def _compare_with_next(self) -> None:
        """Compare with one of the nodes that share matrices, each in its turn."""
        peers = {peer for manifest in self._manifests.kept() for peer in manifest.guardians}
        near = sorted(peer for peer in peers if self._sessions.attached(peer) is not None)
        if near:
            self._next_round += 1
            await self._compare(near[self._next_round % len(near)])

    async def _compare(self, peer_id: str) -> None:
        """Learn what a peer keeps newer of the matrices that it has to do with."""
        shared = [
            manifest
            for manifest in self._manifests.kept()
            if peer_id in manifest.guardians or peer_id in manifest.holders
        ]
        for start in range(0, len(shared), COMPARED_MAX):
            request = wire.CompareManifestsRequest(
                known=[self._order(manifest) for manifest in shared[start : start + COMPARED_MAX]]
            )
            try:
                encoded = await self._sessions.call(
                    peer_id, COMPARE, request, deadline=monotonic_s() + ASK_TIMEOUT_S
                )
                response = read_reply(wire.CompareManifestsResponse, encoded, peer_id)
            except SedmadError as error:
                log.debug("not_compared", peer=peer_id, why=str(error))
                return
            for signed in response.newer:
                await self._take(signed, peer_id, established=True)

    def _order(self, manifest: Manifest) -> wire.ManifestOrder:
        kept = self._manifests.get(manifest.key)
        return wire.ManifestOrder(
            key=key_to_wire(manifest.key),
            epoch=manifest.epoch,
            seq=manifest.seq,
            established=kept is not None and kept.established,
        )

    async def _ask(self, peer_id: str, key: ManifestKey) -> None:
        request = wire.GetManifestRequest(key=key_to_wire(key))
        try:
            encoded = await self._sessions.call(
                peer_id, GET_MANIFEST, request, deadline=monotonic_s() + ASK_TIMEOUT_S
            )
            response = read_reply(wire.GetManifestResponse, encoded, peer_id)
        except SedmadError as error:
            log.debug("manifest_not_found", peer=peer_id, why=str(error))
            return
        await self._take(response.manifest, peer_id, established=response.established)

    async def _take(self, signed: wire.SignedManifest, peer_id: str, *, established: bool) -> None:
        """Keep a manifest that concerns this node."""
        try:
            manifest = read_manifest(signed)
            roles = {manifest.owner, *manifest.guardians, *manifest.holders}
            if self._own_peer_id in roles or self._manifests.get_kept(manifest.key):
                await self._manifests.keep(signed, established=established)
        except StaleManifest as error:
            log.debug("manifest_not_newer", peer=peer_id, why=str(error))
        except SedmadError as error:
            log.warning("manifest_not_taken", peer=peer_id, why=str(error))
