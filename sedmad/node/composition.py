"""What a node is made of: its services, tied together. Nothing is decided here."""

from __future__ import annotations

import os
import random
from functools import partial

from crossbar.devices import IDEAL, DeviceProfile
from crossbar.exact.narrow import NarrowKernels
from crossbar.ideal import IdealEngine
from sedmad.core.capacity import CapacityLedger
from sedmad.core.cells import CellLedger
from sedmad.core.membership.advert import Advert
from sedmad.home import Home
from sedmad.net.credentials import Credentials
from sedmad.net.host import PeerHost
from sedmad.net.identity import Identity
from sedmad.net.sessions import Sessions
from sedmad.node.asking import AskingService
from sedmad.node.certificates import Certificates
from sedmad.node.clock import wall_time_s
from sedmad.node.committing import CommittingService
from sedmad.node.describing import DescribingService
from sedmad.node.device_uses import asked_of_devices
from sedmad.node.devices import Devices
from sedmad.node.draining import DrainingService
from sedmad.node.establishing import EstablishingService
from sedmad.node.expecting import Expectations
from sedmad.node.getting import GettingService
from sedmad.node.healing import HealingService
from sedmad.node.holding import HoldingService
from sedmad.node.invitations import InvitationService
from sedmad.node.keeping import RecordKeeper, load_records, mend_manifests
from sedmad.node.kernels import Kernels
from sedmad.node.leaving import LeavingService
from sedmad.node.looking_up import LookUpService
from sedmad.node.machine import read_memory
from sedmad.node.manifests import ManifestService
from sedmad.node.membership import MembershipService
from sedmad.node.mesh_verifying import StoreService, VerifyingService
from sedmad.node.multiplying import MultiplyingService
from sedmad.node.node import Node
from sedmad.node.owning import OwningService
from sedmad.node.pledging import PledgingService
from sedmad.node.putting import PuttingService
from sedmad.node.reconciling import ReconcilingService
from sedmad.node.recovering import RecoveringService
from sedmad.node.releasing import ReleasingService
from sedmad.node.removing import RemovingService
from sedmad.node.repair_step import RepairSteps
from sedmad.node.repairing import RepairingService
from sedmad.node.reserving import ReservingService
from sedmad.node.residents import Residents
from sedmad.node.scrubbing import ScrubbingService
from sedmad.node.verifying import verify_store
from sedmad.store import manifests, promises
from sedmad.store.blobs import BlobStore
from sedmad.store.database import Database
from sedmad.version import __version__
from sedmad.wire.methods import MethodTable


async def compose(
    identity: Identity,
    credentials: Credentials,
    advert: Advert,
    database: Database,
    blobs: BlobStore,
    host: PeerHost,
    kernels: NarrowKernels | None = None,
    profile: DeviceProfile = IDEAL,
    home: Home | None = None,
) -> Node:
    """Return the services of a node, tied together and not yet started.

    Args:
        kernels: for exact products of few columns; BLAS computes them where it is None.
        profile: of this node's devices.
        home: where compiled kernels are kept, and the user's own profiles; needed where there are devices.
    """
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
    devices = Devices(
        own_peer_id=peer_id,
        profile=profile,
        cells=CellLedger(advert.cells_pledged, advert.name),
        ledger=ledger,
        database=database,
        blobs=blobs,
        kernels=Kernels(home.kernels if home else None),
    )
    devices.changed = lambda: holding.changed()
    expectations = Expectations(home.profiles if home else None)
    residents = Residents(blobs, IdealEngine(kernels), devices)
    holding = HoldingService(
        own_peer_id=peer_id,
        database=database,
        blobs=blobs,
        residents=residents,
        sessions=sessions,
        ledger=ledger,
        on_changed=lambda: _tell_use(membership, ledger, devices),
    )
    manifest_service = ManifestService(
        identity=identity,
        database=database,
        membership=membership,
        stored=await database.read(manifests.load),
        applying=holding.applying,
        on_kept=lambda manifest: node.on_kept(manifest),
    )
    devices.needed = partial(asked_of_devices, holding, manifest_service)
    await mend_manifests(database, manifest_service)
    lookups = LookUpService(sessions=sessions, membership=membership, manifests=manifest_service)
    establishing = EstablishingService(
        identity=identity,
        database=database,
        sessions=sessions,
        membership=membership,
        manifests=manifest_service,
        on_refused=lambda peer_id, key: node.on_refused(peer_id, key),
    )
    healing = HealingService(
        own_peer_id=peer_id,
        database=database,
        blobs=blobs,
        residents=residents,
        sessions=sessions,
        membership=membership,
        manifests=manifest_service,
        holding=holding,
    )
    blobs.on_corrupt = healing.on_corrupt
    reconciling = ReconcilingService(
        own_peer_id=peer_id,
        database=database,
        sessions=sessions,
        membership=membership,
        manifests=manifest_service,
    )
    pledging = PledgingService(
        pledged_bytes=advert.memory_pledged_bytes,
        read=read_memory,
        database=database,
        membership=membership,
        manifests=manifest_service,
        holding=holding,
        healing=healing,
    )
    describing = DescribingService(
        own_peer_id=peer_id, devices=devices, manifests=manifest_service, sessions=sessions
    )
    multiplying = MultiplyingService(manifest_service, residents, peer_id)
    asking = AskingService(
        membership=membership, multiplying=multiplying, sessions=sessions, rng=rng, own_peer_id=peer_id
    )
    removing = RemovingService(
        identity=identity,
        database=database,
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
        reserving=ReservingService(
            own_peer_id=peer_id,
            sessions=sessions,
            membership=membership,
            holding=holding,
            releasing=releasing,
            expectations=expectations,
        ),
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
    store = StoreService(partial(verify_store, database, blobs, manifest_service))
    verifying = VerifyingService(sessions=sessions, membership=membership, lookups=lookups, store=store)
    getting = GettingService(blobs=blobs, sessions=sessions, membership=membership)
    owning = OwningService(
        identity=identity,
        database=database,
        sessions=sessions,
        membership=membership,
        manifests=manifest_service,
        establishing=establishing,
        rng=rng,
        promised=await database.read(promises.load),
        compare_with=reconciling.meet,
        on_won=lambda manifest: node.on_won(manifest),
    )
    repairing = RepairingService(
        own_peer_id=peer_id,
        membership=membership,
        manifests=manifest_service,
        holding=holding,
        establishing=establishing,
        steps=RepairSteps(
            own_peer_id=peer_id,
            sessions=sessions,
            membership=membership,
            manifests=manifest_service,
            holding=holding,
            releasing=releasing,
            establishing=establishing,
        ),
        expectations=expectations,
        wanted=asking.chooser.wanted,
    )
    draining = DrainingService(
        own_peer_id=peer_id,
        database=database,
        membership=membership,
        manifests=manifest_service,
        on_decided=repairing.look_afresh,
    )
    holding.refuses = lambda owner: node.refusal_of_copies(owner)
    leaving = LeavingService(
        own_peer_id=peer_id,
        sessions=sessions,
        membership=membership,
        draining=draining,
        repairing=repairing,
    )
    recovering = RecoveringService(
        database=database,
        membership=membership,
        holding=holding,
        on_recovered=lambda: node.on_recovered(),
    )
    peers_may_ask.add("CertificateService", certificates)
    peers_may_ask.add("DeviceService", describing)
    peers_may_ask.add("HoldingService", holding)
    peers_may_ask.add("LeavingService", leaving)
    peers_may_ask.add("ManifestService", manifest_service)
    peers_may_ask.add("OwnerService", removing)
    peers_may_ask.add("OwnershipService", owning)
    peers_may_ask.add("ProductService", multiplying)
    peers_may_ask.add("ReconcilingService", reconciling)
    peers_may_ask.add("StoreService", store)
    node = Node(
        sessions=sessions,
        membership=membership,
        certificates=certificates,
        keeper=RecordKeeper(database),
        blobs=blobs,
        devices=devices,
        describing=describing,
        holding=holding,
        manifests=manifest_service,
        lookups=lookups,
        healing=healing,
        pledging=pledging,
        reconciling=reconciling,
        recovering=recovering,
        owning=owning,
        repairing=repairing,
        draining=draining,
        leaving=leaving,
        scrubbing=ScrubbingService(database=database, blobs=blobs, busy=lambda: multiplying.joiner.busy),
        multiplying=multiplying,
        asking=asking,
        putting=putting,
        releasing=releasing,
        getting=getting,
        removing=removing,
        invitations=invitations,
        verifying=verifying,
    )
    return node


def _tell_use(membership: MembershipService, ledger: CapacityLedger, devices: Devices) -> None:
    """Tell what of the pledges is taken, what is set aside included."""
    membership.update_advert(
        memory_used_bytes=ledger.memory.used_bytes + ledger.memory.reserved_bytes,
        disk_used_bytes=ledger.disk.used_bytes + ledger.disk.reserved_bytes,
        cells_used=devices.cells.usage.used + devices.cells.usage.reserved,
    )
