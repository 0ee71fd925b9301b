"""What clients ask about the node: how it is, who else there is; and to invite somebody, or to stop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sedmad.core.membership.membership import PeerRow
from sedmad.net.calls import IncomingCall
from sedmad.net.sessions import Sessions
from sedmad.node.clock import CLOCK_SKEW_WARNING_S, monotonic_s
from sedmad.node.holding import HoldingService
from sedmad.node.invitations import InvitationService
from sedmad.node.machine import process_memory
from sedmad.node.manifests import ManifestService
from sedmad.node.matrices import MatrixSummaries
from sedmad.node.membership import MembershipService
from sedmad.node.pledging import PledgingService
from sedmad.node.records import NODE_STATES, PEER_STATES
from sedmad.node.repairing import RepairingService
from sedmad.sizes import format_bytes
from sedmad.store.disk import DiskSpace
from sedmad.version import __version__
from sedmad.wire import messages as wire

# A page for people; what else waits comes up as these are done.
REPAIRS_TOLD_MAX = 100


class NodeService:
    """Serves NodeService of the contract.

    Args:
        restored: whether this node's tables were damaged, and it still asks others what it forgot.
        disk_space: returns the space of the file system that copies lie on.
    """

    def __init__(
        self,
        *,
        membership: MembershipService,
        sessions: Sessions,
        holding: HoldingService,
        manifests: ManifestService,
        pledging: PledgingService,
        repairing: RepairingService,
        restored: Callable[[], bool],
        disk_space: Callable[[], Awaitable[DiskSpace]],
        invitations: InvitationService,
        summaries: MatrixSummaries,
        mesh_id: str,
        addresses: Callable[[], list[str]],
        stop: Callable[[], None],
    ) -> None:
        self._membership = membership
        self._sessions = sessions
        self._holding = holding
        self._manifests = manifests
        self._pledging = pledging
        self._repairing = repairing
        self._restored = restored
        self._disk_space = disk_space
        self._invitations = invitations
        self._summaries = summaries
        self._mesh_id = mesh_id
        self._addresses = addresses
        self._stop = stop
        self._started_s = monotonic_s()

    async def get_status(self, request: wire.GetStatusRequest, call: IncomingCall) -> wire.GetStatusResponse:
        """Return everything that `sedmad status` shows."""
        advert = self._membership.core.advert
        peers = [self.summary(row) for row in self._membership.peers()]
        matrices, next_page_token = self._summaries.page("")
        memory, disk = self._holding.ledger.memory, self._holding.ledger.disk
        used = process_memory()
        repairs = self._repairing.status()
        return wire.GetStatusResponse(
            peer_id=advert.peer_id,
            name=advert.name,
            state=NODE_STATES[advert.state],
            software_version=__version__,
            addresses=self._addresses(),
            uptime_s=monotonic_s() - self._started_s,
            mesh_id=self._mesh_id,
            memory_pledged_bytes=memory.pledged_bytes,
            memory_set_bytes=memory.pledged_bytes + self._pledging.lowered_bytes,
            memory_used_bytes=memory.used_bytes,
            memory_short_bytes=advert.memory_short_bytes,
            disk_pledged_bytes=disk.pledged_bytes,
            disk_used_bytes=disk.used_bytes,
            standby_bytes=disk.used_bytes - (memory.used_bytes - self._holding.simulation_bytes),
            owned_bytes=sum(
                manifest.size_bytes
                for manifest in self._manifests.kept()
                if manifest.owner == advert.peer_id and not manifest.removed
            ),
            peers=peers,
            matrices=matrices,
            next_page_token=next_page_token,
            warnings=self._warnings(peers, await self._disk_space()),
            device_profile=advert.device_profile,
            compute_gflops=advert.compute_gflops,
            memory_bandwidth_bytes_per_s=advert.memory_bandwidth_bytes_per_s,
            labels=dict(advert.labels),
            is_admin=self._invitations.is_admin,
            resident_set_bytes=used.resident_set_bytes,
            anonymous_bytes=used.anonymous_bytes,
            mapped_bytes=used.mapped_bytes,
            repairs=[
                wire.RepairSummary(
                    names=report.names,
                    step_bytes=report.step_bytes,
                    made_bytes=report.made_bytes,
                    waiting_for=report.waiting_for,
                )
                for report in (*repairs.under_repair, *repairs.waiting)[:REPAIRS_TOLD_MAX]
            ],
            restored_bytes=repairs.restored_bytes,
            cells_pledged=advert.cells_pledged,
            cells_used=advert.cells_used,
        )

    async def list_peers(self, request: wire.ListPeersRequest, call: IncomingCall) -> wire.ListPeersResponse:
        """Return every other member; the dead stay listed for fifteen minutes."""
        return wire.ListPeersResponse(peers=[self.summary(row) for row in self._membership.peers()])

    async def create_invitation(
        self, request: wire.CreateInvitationRequest, call: IncomingCall
    ) -> wire.CreateInvitationResponse:
        """Return a token that admits one node."""
        token, expires_at_s = await self._invitations.invite(request.expires_s)
        return wire.CreateInvitationResponse(token=token, expires_at_s=expires_at_s)

    async def stop_node(self, request: wire.StopNodeRequest, call: IncomingCall) -> wire.StopNodeResponse:
        """Stop the daemon once this answer is out."""
        self._stop()
        return wire.StopNodeResponse()

    def summary(self, row: PeerRow) -> wire.PeerSummary:
        """Return what clients are told of one other member."""
        advert = row.advert
        session = self._sessions.attached(row.peer_id)
        skew_s = self._membership.clock_skew_s.get(row.peer_id)
        return wire.PeerSummary(
            peer_id=row.peer_id,
            name=advert.name,
            state=PEER_STATES[row.state],
            path=session.path if session else "",
            rtt_ms=row.rtt_s * 1000 if session and row.rtt_s is not None else None,
            addresses=advert.addresses,
            software_version=advert.version,
            memory_pledged_bytes=advert.memory_pledged_bytes,
            memory_used_bytes=advert.memory_used_bytes,
            disk_pledged_bytes=advert.disk_pledged_bytes,
            disk_used_bytes=advert.disk_used_bytes,
            compute_gflops=advert.compute_gflops,
            memory_bandwidth_bytes_per_s=advert.memory_bandwidth_bytes_per_s,
            device_profile=advert.device_profile,
            labels=dict(advert.labels),
            node_state=NODE_STATES[advert.state],
            clock_skew_s=skew_s,
            cells_pledged=advert.cells_pledged,
            cells_used=advert.cells_used,
        )

    def _warnings(self, peers: list[wire.PeerSummary], space: DiskSpace) -> list[str]:
        warnings = []
        if not space.room_bytes:
            warnings.append(
                f"this node's disk is full and takes no new copies: {format_bytes(space.free_bytes)} are free, and"
                f" {format_bytes(space.reserve_bytes)} stay free for what must be written in any case"
            )
        if lowered_bytes := self._pledging.lowered_bytes:
            warnings.append(
                f"this machine runs out of memory: {format_bytes(lowered_bytes)} less than was set are pledged now"
            )
        if self._restored():
            warnings.append("this node's tables were damaged and restored; it asks the others what it forgot")
        for peer in peers:
            if peer.HasField("clock_skew_s") and abs(peer.clock_skew_s) > CLOCK_SKEW_WARNING_S:
                direction = "ahead of" if peer.clock_skew_s > 0 else "behind"
                warnings.append(
                    f"the clock of {peer.name} is {abs(peer.clock_skew_s):.0f} s {direction} this node's"
                )
        return warnings
