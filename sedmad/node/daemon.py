"""Composition: what a node is made of, and in which order it starts. Nothing is decided here."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

import structlog
import trio

from crossbar.engine import engine_for
from crossbar.measure import measure_compute
from crossbar.profile import IDEAL
from crossbar.threads import single_threaded_blas
from sedmad.core.capacity import CapacityLedger
from sedmad.core.membership import events
from sedmad.core.membership.advert import Advert, first_sequence
from sedmad.core.membership.claim import Claim
from sedmad.home import Home
from sedmad.net.credentials import Credentials
from sedmad.net.host import PeerHost, open_host
from sedmad.net.identity import Identity
from sedmad.net.join import serve_join
from sedmad.net.sessions import Sessions
from sedmad.node.asking import AskingService
from sedmad.node.bootstrap import BOOTSTRAP_FILE, load_bootstrap
from sedmad.node.certificates import Certificates
from sedmad.node.clock import wall_time_s
from sedmad.node.configuration import Configuration
from sedmad.node.control import serve_control
from sedmad.node.getting import GettingService
from sedmad.node.holding import HoldingService
from sedmad.node.invitations import InvitationService
from sedmad.node.keeping import RecordKeeper, load_records
from sedmad.node.machine import disk_free_bytes, memory_free_bytes, memory_total_bytes, pledge_bytes
from sedmad.node.manifests import ManifestService
from sedmad.node.matrices import MatrixService, MatrixSummaries
from sedmad.node.membership import MembershipService
from sedmad.node.multiplying import MultiplyingService
from sedmad.node.putting import PuttingService
from sedmad.node.removing import RemovingService
from sedmad.node.residents import Residents
from sedmad.node.status import NodeService
from sedmad.store import counters, manifests, puts
from sedmad.store.blobs import BlobStore, open_blobs
from sedmad.store.database import Database, open_database
from sedmad.version import __version__
from sedmad.wire.methods import MethodTable

log = structlog.get_logger("sedmad")

# How often the advert takes up what this node has free and how long products wait here.
ADVERT_STEP_S = 1.0
# An answer to `sedmad stop` leaves before the socket closes.
STOP_DELAY_S = 0.1
MEASURE_S = 0.2
# Other programs only ever make a measurement worse, and a machine is busiest when everything starts.
MEASURE_AGAIN_AFTER_S = (5.0, 15.0, 60.0)


@dataclass(slots=True)
class Node:
    """The services of one daemon."""

    sessions: Sessions
    membership: MembershipService
    certificates: Certificates
    keeper: RecordKeeper
    holding: HoldingService
    manifests: ManifestService
    multiplying: MultiplyingService
    asking: AskingService
    putting: PuttingService
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


async def run_node(
    home: Home,
    identity: Identity,
    credentials: Credentials,
    configuration: Configuration,
    stopping: trio.Event,
) -> None:
    """Run a node until `stopping` is set."""
    single_threaded_blas()
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(home.database))
        blobs = await open_blobs(home.blobs)
        host = await stack.enter_async_context(
            open_host(identity, configuration.listen, announce=configuration.announce)
        )
        advert = await _first_advert(home, identity, credentials, configuration, database, blobs, host)
        node = await _compose(identity, credentials, advert, database, blobs, host)
        async with trio.open_nursery() as nursery:
            await _start(node, nursery, home, credentials, database, host, stopping)
            log.info(
                "ready",
                peer_id=identity.peer_id,
                name=advert.name,
                addresses=host.listen_addresses,
                home=str(home.data_directory),
            )
            await stopping.wait()
            nursery.cancel_scope.cancel()


async def _first_advert(
    home: Home,
    identity: Identity,
    credentials: Credentials,
    configuration: Configuration,
    database: Database,
    blobs: BlobStore,
    host: PeerHost,
) -> Advert:
    """Return what this node offers as it starts. Its sequence is on disk before anybody hears of it."""
    certificate = credentials.verify(identity.peer_id, credentials.chain, wall_time_s())
    boot = await database.write(partial(counters.increment, name="boot"))
    measured = await trio.to_thread.run_sync(measure_compute, MEASURE_S, time.perf_counter)
    free_bytes = disk_free_bytes(home.blobs) + blobs.used_bytes
    return Advert(
        peer_id=identity.peer_id,
        name=certificate.name,
        sequence=first_sequence(boot),
        addresses=tuple(host.listen_addresses),
        labels=tuple(sorted(configuration.labels.items())),
        version=__version__,
        memory_pledged_bytes=pledge_bytes("memory", configuration.memory, memory_total_bytes()),
        memory_free_bytes=memory_free_bytes(),
        disk_pledged_bytes=pledge_bytes("disk", configuration.disk, free_bytes),
        compute_gflops=measured.gflops,
        memory_bandwidth_bytes_per_s=measured.memory_bandwidth_bytes_per_s,
        device_profile=IDEAL.name,
        certificate_digest=certificate.digest,
        wall_time_s=wall_time_s(),
    )


async def _compose(
    identity: Identity,
    credentials: Credentials,
    advert: Advert,
    database: Database,
    blobs: BlobStore,
    host: PeerHost,
) -> Node:
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
        sessions=sessions,
        membership=membership,
        stored=await database.read(manifests.load),
        on_stored=holding.on_manifest,
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
        holding=holding,
    )
    putting = PuttingService(
        identity=identity,
        database=database,
        blobs=blobs,
        sessions=sessions,
        membership=membership,
        manifests=manifest_service,
        holding=holding,
        on_replaced=removing.on_replaced,
        retire=removing.remove_own,
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
        multiplying=multiplying,
        asking=asking,
        putting=putting,
        getting=getting,
        removing=removing,
        invitations=invitations,
    )
    return node


async def _start(
    node: Node,
    nursery: trio.Nursery,
    home: Home,
    credentials: Credentials,
    database: Database,
    host: PeerHost,
    stopping: trio.Event,
) -> None:
    """Start the services: those that others need first, the doors last."""
    for service in (node.keeper.run, node.holding.run, node.removing.run):
        await nursery.start(service)
    await node.holding.restore(node.manifests.kept())
    await nursery.start(node.multiplying.joiner.serve)
    await nursery.start(node.asking.joiner.serve)
    await nursery.start(node.sessions.run)
    await nursery.start(node.membership.run)
    nursery.start_soon(node.putting.clear_up, await database.read(puts.load))
    for peer_id, addresses in load_bootstrap(home.certificates / BOOTSTRAP_FILE).items():
        node.sessions.keep(peer_id, addresses)
    if node.invitations.is_admin:
        serve_join(host, node.invitations.admit)

    def stop_soon() -> None:
        nursery.start_soon(_stop_later, stopping)

    clients_may_ask = _client_methods(node, credentials, host, stop_soon)
    await nursery.start(serve_control, home.control_socket, clients_may_ask)
    node.membership.update_advert(state="ready")
    nursery.start_soon(_tell_load, node)
    nursery.start_soon(_measure_again, node)


def _client_methods(
    node: Node, credentials: Credentials, host: PeerHost, stop: Callable[[], None]
) -> MethodTable:
    summaries = MatrixSummaries(node.membership, node.holding)
    methods = MethodTable()
    methods.add(
        "NodeService",
        NodeService(
            membership=node.membership,
            sessions=node.sessions,
            holding=node.holding,
            invitations=node.invitations,
            summaries=summaries,
            mesh_id=credentials.mesh_id.hex(),
            addresses=lambda: host.listen_addresses,
            stop=stop,
        ),
    )
    methods.add(
        "MatrixService",
        MatrixService(
            membership=node.membership,
            manifests=node.manifests,
            summaries=summaries,
            putting=node.putting,
            getting=node.getting,
            removing=node.removing,
            asking=node.asking,
        ),
    )
    return methods


async def _stop_later(stopping: trio.Event) -> None:
    await trio.sleep(STOP_DELAY_S)
    stopping.set()


def _tell_use(membership: MembershipService, ledger: CapacityLedger) -> None:
    membership.update_advert(
        memory_used_bytes=ledger.memory.used_bytes + ledger.memory.reserved_bytes,
        disk_used_bytes=ledger.disk.used_bytes + ledger.disk.reserved_bytes,
    )


async def _tell_load(node: Node) -> None:
    while True:
        node.asking.chooser.take_note(
            [node.membership.core.advert, *(row.advert for row in node.membership.peers())]
        )
        await trio.sleep(ADVERT_STEP_S)
        node.membership.update_advert(
            memory_free_bytes=memory_free_bytes(),
            queue_s=node.multiplying.queue_s,
            service_s=node.multiplying.service_s,
        )


async def _measure_again(node: Node) -> None:
    for pause_s in MEASURE_AGAIN_AFTER_S:
        await trio.sleep(pause_s)
        measured = await trio.to_thread.run_sync(measure_compute, MEASURE_S, time.perf_counter)
        told = node.membership.core.advert
        node.membership.update_advert(
            compute_gflops=max(told.compute_gflops, measured.gflops),
            memory_bandwidth_bytes_per_s=max(
                told.memory_bandwidth_bytes_per_s, measured.memory_bandwidth_bytes_per_s
            ),
        )
