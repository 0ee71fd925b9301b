"""What a node is made of: its services, who knows whom, and who is told what. Nothing is decided here."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass

from crossbar.engine import engine_for
from crossbar.profile import IDEAL
from sedmad.core.capacity import CapacityLedger
from sedmad.core.membership import events
from sedmad.core.membership.advert import Advert
from sedmad.core.membership.claim import Claim
from sedmad.net.credentials import Credentials
from sedmad.net.host import PeerHost
from sedmad.net.identity import Identity
from sedmad.net.sessions import Sessions
from sedmad.node.asking import AskingService
from sedmad.node.certificates import Certificates
from sedmad.node.clock import wall_time_s
from sedmad.node.committing import CommittingService
from sedmad.node.establishing import EstablishingService
from sedmad.node.getting import GettingService
from sedmad.node.holding import HoldingService
from sedmad.node.invitations import InvitationService
from sedmad.node.keeping import RecordKeeper, load_records
from sedmad.node.looking_up import LookUpService
from sedmad.node.manifests import ManifestService
from sedmad.node.membership import MembershipService
from sedmad.node.multiplying import MultiplyingService
from sedmad.node.putting import PuttingService
from sedmad.node.releasing import ReleasingService
from sedmad.node.removing import RemovingService
from sedmad.node.residents import Residents
from sedmad.store import manifests
from sedmad.store.blobs import BlobStore
from sedmad.store.database import Database
from sedmad.version import __version__
from sedmad.wire.methods import MethodTable


@dataclass(slots=True)
class Node:
    """The services of one daemon."""

    sessions: Sessions
    membership: MembershipService
    certificates: Certificates
    keeper: RecordKeeper
    holding: HoldingService
    manifests: ManifestService
    lookups: LookUpService
    multiplying: MultiplyingService
    asking: AskingService
    putting: PuttingService
    releasing: ReleasingService
    getting: GettingService
    removing: RemovingService
    invitations: InvitationService

    def on_event(self, event: events.Event) -> None:
        """Tell whoever it concerns what membership found."""
        match event:
            case events.PeerJoined(_, signed) | events.AdvertChanged(_, signed):
                self.keeper.keep([signed])
                if isinstance(signed.record, Advert):
                    self.asking.chooser.take_note([signed.record])
            case events.ClaimChanged(name, signed):
                self.keeper.keep([signed])
                self._notice_replacement(name)
            case events.PeerSuspected(peer_id):
                self.asking.doubt(peer_id)
            case events.PeerDead(peer_id):
                self.holding.owner_gone(peer_id)
            case _:
                pass

    def on_link(self, peer_id: str, up: bool) -> None:
        """A session gained or lost its stream."""
        self.membership.on_link(peer_id, up)
        if not up:
            self.asking.doubt(peer_id)

    def _notice_replacement(self, name: str) -> None:
        """Somebody else took a newer version of a name of ours: ours is history."""
        own = self.membership.core.peer_id
        directory = self.membership.core.directory
        winner, ours = directory.get(name), directory.find(name, own)
        if winner is None or ours is None or winner.first_owner == own:
            return
        if isinstance(ours.record, Claim) and not ours.record.removed and winner.replaces(ours.record):
            self.removing.on_replaced(ours.record)


async def compose(
    identity: Identity,
    credentials: Credentials,
    advert: Advert,
    database: Database,
    blobs: BlobStore,
    host: PeerHost,
) -> Node:
    """Return the services of a node, tied together and not yet started."""
    peer_id = identity.peer_id
    rng = random.Random(int.from_bytes(os.urandom(16), "big"))  # noqa: S311 - jitter and ids, no secrets
    certificates = Certificates(credentials, peer_id)
    peers_may_ask = MethodTable()
    ledger = CapacityLedger(
        memory_pledged_bytes=advert.memory_pledged_bytes,
        disk_pledged_bytes=advert.disk_pledged_bytes,
        node=advert.name,
    )
    # The sessions are made first and speak last: what they report reaches `node`, which is complete by then.
    sessions = Sessions(
        host,
        chain=credentials.chain,
        verify=certificates.check_member,
        methods=peers_may_ask,
        rng=rng,
        wall_time=wall_time_s,
        software_version=__version__,
        on_link=lambda peer, up: node.on_link(peer, up),
        on_message=lambda peer, method, message: node.membership.on_message(peer, method, message),
        on_clock=lambda peer, skew_s: node.membership.on_clock(peer, skew_s),
    )
    membership = MembershipService(
        advert,
        identity=identity,
        sessions=sessions,
        certificates=certificates,
        rng=rng,
        known=await load_records(database),
        on_event=lambda event: node.on_event(event),
    )
    residents = Residents(blobs, engine_for(IDEAL))
    holding = HoldingService(
        own_peer_id=peer_id,
        database=database,
        blobs=blobs,
        residents=residents,
        sessions=sessions,
        ledger=ledger,
        on_changed=lambda: _tell_use(membership, ledger),
    )
    manifest_service = ManifestService(
        identity=identity,
        database=database,
        membership=membership,
        stored=await database.read(manifests.load),
        applying=holding.applying,
    )
    lookups = LookUpService(sessions=sessions, membership=membership, manifests=manifest_service)
    establishing = EstablishingService(
        identity=identity, sessions=sessions, membership=membership, manifests=manifest_service
    )
    multiplying = MultiplyingService(manifest_service, residents, peer_id)
    asking = AskingService(
        membership=membership, multiplying=multiplying, sessions=sessions, rng=rng, own_peer_id=peer_id
    )
    removing = RemovingService(
        own_peer_id=peer_id,
        sessions=sessions,
        membership=membership,
        manifests=manifest_service,
        establishing=establishing,
    )
    committing = CommittingService(
        identity=identity,
        database=database,
        membership=membership,
        manifests=manifest_service,
        establishing=establishing,
        holding=holding,
        retire=removing.retire,
    )
    releasing = ReleasingService(own_peer_id=peer_id, database=database, sessions=sessions, holding=holding)
    putting = PuttingService(
        own_peer_id=peer_id,
        blobs=blobs,
        sessions=sessions,
        membership=membership,
        lookups=lookups,
        holding=holding,
        committing=committing,
        releasing=releasing,
        on_replaced=removing.on_replaced,
    )
    invitations = InvitationService(
        identity,
        credentials,
        database,
        addresses=lambda: host.listen_addresses,
        members=lambda: {
            row.peer_id: row.advert.addresses for row in membership.peers() if row.state == "alive"
        },
    )
    getting = GettingService(blobs=blobs, sessions=sessions, membership=membership)
    peers_may_ask.add("CertificateService", certificates)
    peers_may_ask.add("HoldingService", holding)
    peers_may_ask.add("ManifestService", manifest_service)
    peers_may_ask.add("OwnerService", removing)
    peers_may_ask.add("ProductService", multiplying)
    node = Node(
        sessions=sessions,
        membership=membership,
        certificates=certificates,
        keeper=RecordKeeper(database),
        holding=holding,
        manifests=manifest_service,
        lookups=lookups,
        multiplying=multiplying,
        asking=asking,
        putting=putting,
        releasing=releasing,
        getting=getting,
        removing=removing,
        invitations=invitations,
    )
    return node


def _tell_use(membership: MembershipService, ledger: CapacityLedger) -> None:
    """Tell what of the pledges is taken, what is set aside included."""
    membership.update_advert(
        memory_used_bytes=ledger.memory.used_bytes + ledger.memory.reserved_bytes,
        disk_used_bytes=ledger.disk.used_bytes + ledger.disk.reserved_bytes,
    )
