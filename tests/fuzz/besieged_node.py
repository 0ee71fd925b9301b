"""A whole node in memory: the daemon's own, put together and started as `sedmad start` does, with streams in memory."""

from __future__ import annotations

import random
import sys
import tempfile
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import trio
from hostile_words import ANN, MESH, SECRET

from sedmad.core.membership.advert import Advert
from sedmad.home import Home
from sedmad.net.identity import Identity
from sedmad.net.sessions import SESSION_PROTOCOL
from sedmad.node import daemon
from sedmad.node.clock import wall_time_s
from sedmad.node.composition import compose
from sedmad.node.invitations import _hash as hash_of_secret
from sedmad.store import invitations
from sedmad.store.blobs import open_blobs
from sedmad.store.database import open_database
from sedmad.testing.fake_host import FakeHost, FakeNetwork, FakeStream
from sedmad.wire import messages as wire
from sedmad.wire.methods import MethodTable

PLEDGE_BYTES = 16 << 20


class Bugs:
    """Takes the place of the log; keeps what was logged with a traceback."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def __call__(self, logger: object, method: str, event: dict[str, Any]) -> dict[str, Any]:
        if event.get("exc_info"):
            self.found.append(f"{event['event']}\n{''.join(traceback.format_exception(sys.exc_info()[1]))}")
        raise structlog.DropEvent


class Host(FakeHost):
    """A host that serves more than sessions."""

    listen_addresses = ("/memory",)

    def __init__(self, network: FakeNetwork, peer_id: str) -> None:
        super().__init__(network, peer_id)
        self.handlers: dict[str, Callable[[FakeStream, str, str], Awaitable[None]]] = {}

    def serve(self, protocol: str, handler: Any, **bounds: int) -> None:
        self.handlers[protocol] = handler
        if protocol == SESSION_PROTOCOL:
            super().serve(protocol, handler)


def advert_of(name: str, identity: Identity, chain: wire.CertificateChain) -> Advert:
    """Return what a member says of itself, with the certificate that makes it one."""
    return Advert(
        identity.peer_id,
        name,
        9,
        addresses=("/memory",),
        state="ready",
        memory_pledged_bytes=PLEDGE_BYTES,
        disk_pledged_bytes=2 * PLEDGE_BYTES,
        certificate_digest=MESH.verify(identity.peer_id, chain, wall_time_s()).digest,
    )


@dataclass(frozen=True, slots=True)
class Besieged:
    """A node that runs, and what it serves."""

    host: Host
    network: FakeNetwork
    clients_may_ask: MethodTable
    peers_may_ask: MethodTable


@asynccontextmanager
async def open_node() -> AsyncIterator[Besieged]:
    """Run a new node, of a mesh that Mallory belongs to and that one more may join."""
    with _scratch() as directory:
        home = Home.locate(str(directory), {})
        home.create()
        async with open_database(home.database) as database, trio.open_nursery() as nursery:
            blobs = await open_blobs(home.blobs)
            expires_s = int(wall_time_s()) + 3600
            await database.write(
                lambda connection: invitations.add(
                    connection, hash_of_secret(SECRET), expires_s=expires_s, now_s=wall_time_s()
                )
            )
            network = FakeNetwork(nursery, random.Random(0), delay_s_max=0.0)
            host: Any = Host(network, ANN.peer_id)
            node = await compose(ANN, MESH, advert_of("ann", ANN, MESH.chain), database, blobs, host)
            await daemon._start(node, nursery, home, MESH, database, host, trio.Event())
            clients_may_ask = daemon._client_methods(node, MESH, host, lambda: None)
            yield Besieged(host, network, clients_may_ask, node.sessions._methods)
            nursery.cancel_scope.cancel()


@contextmanager
def _scratch() -> Iterator[Path]:
    # In memory where there is room for that: what is durable is for other tests.
    in_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=in_memory if in_memory.is_dir() else None) as directory:
        yield Path(directory)


def methods_served() -> set[str]:
    """Return the names of all methods that a node serves to its members and clients."""

    async def look() -> set[str]:
        async with open_node() as besieged:
            return {*besieged.clients_may_ask._methods, *besieged.peers_may_ask._methods}

    return trio.run(look)
