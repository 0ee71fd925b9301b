"""The services of one daemon, and who of them is told what: of peers, names, sessions and manifests."""

from __future__ import annotations

from dataclasses import dataclass

from sedmad.core.membership import events
from sedmad.core.membership.advert import Advert
from sedmad.core.membership.claim import Claim
from sedmad.net.sessions import Sessions
from sedmad.node.asking import AskingService
from sedmad.node.certificates import Certificates
from sedmad.node.describing import DescribingService
from sedmad.node.devices import Devices
from sedmad.node.draining import DrainingService
from sedmad.node.getting import GettingService
from sedmad.node.healing import HealingService
from sedmad.node.holding import HoldingService
from sedmad.node.invitations import InvitationService
from sedmad.node.keeping import RecordKeeper
from sedmad.node.leaving import LeavingService
from sedmad.node.looking_up import LookUpService
from sedmad.node.manifest import Manifest
from sedmad.node.manifests import ManifestService
from sedmad.node.membership import MembershipService
from sedmad.node.mesh_verifying import VerifyingService
from sedmad.node.multiplying import MultiplyingService
from sedmad.node.owning import OwningService
from sedmad.node.pledging import PledgingService
from sedmad.node.putting import PuttingService
from sedmad.node.reconciling import ReconcilingService
from sedmad.node.recovering import RecoveringService
from sedmad.node.releasing import ReleasingService
from sedmad.node.removing import RemovingService
from sedmad.node.repairing import RepairingService
from sedmad.node.scrubbing import ScrubbingService
from sedmad.store.blobs import BlobStore
from sedmad.store.manifests import ManifestKey


@dataclass(slots=True)
class Node:
    """The services of one daemon."""

    sessions: Sessions
    membership: MembershipService
    certificates: Certificates
    keeper: RecordKeeper
    blobs: BlobStore
    devices: Devices
    describing: DescribingService
    holding: HoldingService
    manifests: ManifestService
    lookups: LookUpService
    healing: HealingService
    pledging: PledgingService
    reconciling: ReconcilingService
    recovering: RecoveringService
    owning: OwningService
    repairing: RepairingService
    draining: DrainingService
    leaving: LeavingService
    scrubbing: ScrubbingService
    multiplying: MultiplyingService
    asking: AskingService
    putting: PuttingService
    releasing: ReleasingService
    getting: GettingService
    removing: RemovingService
    invitations: InvitationService
    verifying: VerifyingService

    def on_event(self, event: events.Event) -> None:
        """Tell whoever it concerns what membership found."""
        match event:
            case events.PeerJoined(_, signed) | events.AdvertChanged(_, signed):
                self.keeper.keep([signed])
                if isinstance(signed.record, Advert):
                    self.asking.chooser.take_note([signed.record])
            case events.ClaimChanged(name, signed):
                self.keeper.keep([signed])
                if isinstance(signed.record, Claim):
                    self.reconciling.on_claim(signed.record)
                self._notice_replacement(name)
            case events.PeerSuspected(peer_id):
                self.asking.doubt(peer_id)
            case events.PeerDead(peer_id):
                self.holding.owner_gone(peer_id)
            case _:
                pass
        self._tell_presence(event)
        self.repairing.on_event(event)

    def _tell_presence(self, event: events.Event) -> None:
        """Tell ownership whom it may rely on: a node that drains hands its matrices over as if it were dead."""
        match event:
            case (
                events.PeerJoined(peer_id)
                | events.AdvertChanged(peer_id)
                | events.PeerAlive(peer_id)
                | events.PeerDead(peer_id)
            ):
                row = self.membership.row(peer_id)
                if row is not None and row.state != "suspect":
                    up = row.state == "alive" and row.advert.state != "draining"
                    self.owning.on_peer(peer_id, up=up)
            case _:
                pass

    def on_kept(self, manifest: Manifest) -> None:
        """A manifest came onto this node's disk."""
        self.owning.on_kept(manifest)
        if self.healing.lacking(manifest):
            self.healing.look_at([manifest.key])

    def refusal_of_copies(self, owner: str) -> str:
        """Say why this node takes no copies of an owner; nothing if it does."""
        if self.draining.is_draining:
            return "it is being drained"
        # Who is dead already dies unnoticed, and its room would be set aside for ever.
        row = self.membership.row(owner)
        return "their owner is dead, as far as it knows" if row is not None and row.state == "dead" else ""

    def on_recovered(self) -> None:
        """This node's tables can be relied upon again, or never had to be doubted."""
        self.removing.free_all_unnamed()
        self.repairing.look_afresh()

    def on_refused(self, peer_id: str, key: ManifestKey) -> None:
        """A peer refused a manifest of ours: it knows something newer, or promised to."""
        self.owning.on_refused(key)
        self.reconciling.want(peer_id, key)

    def on_won(self, manifest: Manifest) -> None:
        """This node became the owner of a matrix."""
        self.removing.free_unnamed(manifest.key)
        self.repairing.look_afresh()

    def on_link(self, peer_id: str, up: bool) -> None:
        """A session gained or lost its stream."""
        self.membership.on_link(peer_id, up)
        if up:
            self.reconciling.meet(peer_id)
        else:
            self.asking.doubt(peer_id)

    def _notice_replacement(self, name: str) -> None:
        """A newer version may have taken a name of ours, whoever stored it first: ours is history."""
        for claim in self.membership.core.directory.replaced(name):
            self.removing.on_replaced(claim)
