"""A daemon from start to stop: what opens first, what speaks last."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack

import structlog
import trio

from crossbar.devices import DeviceProfile
from crossbar.exact.narrow import NarrowKernels
from crossbar.threads import single_threaded_blas
from sedmad.home import Home
from sedmad.net.credentials import Credentials
from sedmad.net.host import PeerHost, open_host
from sedmad.net.identity import Identity
from sedmad.net.join import serve_join
from sedmad.node.advertising import first_advert, measure_again, tell_load
from sedmad.node.bootstrap import BOOTSTRAP_FILE, load_bootstrap
from sedmad.node.composition import compose
from sedmad.node.configuration import Configuration
from sedmad.node.control import serve_control
from sedmad.node.matrices import MatrixService, MatrixSummaries
from sedmad.node.node import Node
from sedmad.node.restoring import restore_copies
from sedmad.node.status import NodeService
from sedmad.store import puts
from sedmad.store.blobs import open_blobs
from sedmad.store.database import Database, open_database
from sedmad.store.snapshotting import keep_snapshots
from sedmad.wire.methods import MethodTable

log = structlog.get_logger("sedmad")

# An answer to `sedmad stop` leaves before the socket closes.
STOP_DELAY_S = 0.1


async def run_node(
    home: Home,
    identity: Identity,
    credentials: Credentials,
    configuration: Configuration,
    profile: DeviceProfile,
    stopping: trio.Event,
) -> None:
    """Run a node, with devices of `profile`, until `stopping` is set."""
    single_threaded_blas()
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(home.database))
        blobs = await open_blobs(home.blobs)
        host = await stack.enter_async_context(
            open_host(identity, configuration.listen, announce=configuration.announce)
        )
        advert = await first_advert(
            home, identity, credentials, configuration, database, blobs, host, profile
        )
        kernels = NarrowKernels(home.kernels, lambda why: log.warning("kernels_not_compiled", why=why))
        node = await compose(identity, credentials, advert, database, blobs, host, kernels, profile, home)
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
    await nursery.start(keep_snapshots, database)
    for service in (node.keeper.run, node.holding.run, node.removing.run):
        await nursery.start(service)
    await node.devices.load()
    await nursery.start(node.devices.run)
    await restore_copies(database, node.holding, node.manifests.kept())
    await nursery.start(node.multiplying.joiner.serve)
    await nursery.start(node.asking.joiner.serve)
    await nursery.start(node.sessions.run)
    await nursery.start(node.membership.run)
    await nursery.start(node.releasing.run, await database.read(puts.load))
    await nursery.start(node.healing.run)
    await nursery.start(node.pledging.run)
    await nursery.start(node.reconciling.run)
    await nursery.start(node.owning.run)
    await nursery.start(node.repairing.run)
    await nursery.start(node.recovering.run)
    if not node.recovering.is_under_way:
        node.removing.free_all_unnamed()
    await nursery.start(node.scrubbing.run)
    for peer_id, addresses in load_bootstrap(home.certificates / BOOTSTRAP_FILE).items():
        node.sessions.keep(peer_id, addresses)
    if node.invitations.is_admin:
        serve_join(host, node.invitations.admit)

    def stop_soon() -> None:
        nursery.start_soon(_stop_later, stopping)

    clients_may_ask = _client_methods(node, credentials, host, stop_soon)
    await nursery.start(serve_control, home.control_socket, clients_may_ask)
    nursery.start_soon(tell_load, node)
    nursery.start_soon(measure_again, node)


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
            manifests=node.manifests,
            pledging=node.pledging,
            repairing=node.repairing,
            restored=lambda: node.recovering.is_under_way,
            disk_space=node.blobs.space,
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
            lookups=node.lookups,
            summaries=summaries,
            putting=node.putting,
            getting=node.getting,
            removing=node.removing,
            asking=node.asking,
            describing=node.describing,
        ),
    )
    methods.add("DrainingService", node.leaving)
    methods.add("VerifyingService", node.verifying)
    return methods


async def _stop_later(stopping: trio.Event) -> None:
    await trio.sleep(STOP_DELAY_S)
    stopping.set()
