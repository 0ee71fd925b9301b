"""What this node says of itself: measured at start, and again while it runs."""

from __future__ import annotations

import time
from functools import partial

import trio

from crossbar.devices import IDEAL, DeviceProfile
from crossbar.measure import measure_compute
from sedmad import failpoints
from sedmad.core.membership.advert import MAX_ADDRESSES, Advert, first_sequence
from sedmad.home import Home
from sedmad.net.credentials import Credentials
from sedmad.net.host import PeerHost
from sedmad.net.identity import Identity
from sedmad.node import draining
from sedmad.node.arrays import cells_pledged
from sedmad.node.clock import wall_time_s
from sedmad.node.configuration import Configuration
from sedmad.node.machine import disk_free_bytes, memory_free_bytes, memory_total_bytes, pledge_bytes
from sedmad.node.node import Node
from sedmad.store import counters
from sedmad.store.blobs import BlobStore
from sedmad.store.database import Database
from sedmad.version import __version__

# How often the advert takes up what this node has free and how long products wait here.
ADVERT_STEP_S = 1.0
MEASURE_S = 0.2
# Other programs only ever make a measurement worse, and a machine is busiest when everything starts.
MEASURE_AGAIN_AFTER_S = (5.0, 15.0, 60.0)
# Then the node serves already: a quarter of the time still is some runs, of which the best counts.
MEASURE_AGAIN_S = 0.05


async def first_advert(
    home: Home,
    identity: Identity,
    credentials: Credentials,
    configuration: Configuration,
    database: Database,
    blobs: BlobStore,
    host: PeerHost,
    profile: DeviceProfile = IDEAL,
) -> Advert:
    """Return what this node offers as it starts. Its sequence is on disk before anybody hears of it."""
    certificate = credentials.verify(identity.peer_id, credentials.chain, wall_time_s())
    boot = await database.write(partial(counters.increment, name="boot"))
    failpoints.reach("advertising.counted")
    measured = await trio.to_thread.run_sync(measure_compute, MEASURE_S, time.perf_counter)
    free_bytes = disk_free_bytes(home.blobs) + blobs.used_bytes
    memory_bytes = pledge_bytes("memory", configuration.memory, memory_total_bytes())
    return Advert(
        peer_id=identity.peer_id,
        name=certificate.name,
        sequence=first_sequence(boot),
        addresses=tuple(host.listen_addresses[:MAX_ADDRESSES]),
        labels=tuple(sorted(configuration.labels.items())),
        version=__version__,
        # Nobody hears of it before everything runs: see daemon.py.
        state="draining" if await database.read(draining.load) else "ready",
        memory_pledged_bytes=memory_bytes,
        memory_free_bytes=memory_free_bytes(),
        disk_pledged_bytes=pledge_bytes("disk", configuration.disk, free_bytes),
        compute_gflops=measured.gflops,
        memory_bandwidth_bytes_per_s=measured.memory_bandwidth_bytes_per_s,
        device_profile=profile.name,
        cells_pledged=cells_pledged(profile, configuration.arrays, memory_bytes),
        certificate_digest=certificate.digest,
        wall_time_s=wall_time_s(),
    )


async def tell_load(node: Node) -> None:
    """Keep what is known of load up to date, until cancelled: others' here, and this node's in its advert."""
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


async def measure_again(node: Node) -> None:
    """Measure this machine a few times more; the best counts."""
    for pause_s in MEASURE_AGAIN_AFTER_S:
        await trio.sleep(pause_s)
        measured = await trio.to_thread.run_sync(measure_compute, MEASURE_AGAIN_S, time.perf_counter)
        told = node.membership.core.advert
        node.membership.update_advert(
            compute_gflops=max(told.compute_gflops, measured.gflops),
            memory_bandwidth_bytes_per_s=max(
                told.memory_bandwidth_bytes_per_s, measured.memory_bandwidth_bytes_per_s
            ),
        )
