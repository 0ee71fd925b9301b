"""Nodes in one process: real databases, blobs, ledgers and services, sessions in memory that break on demand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import trio
from examples import identity_of
from stand_ins import ClientCall, FakeMembership, FakeSessions

from crossbar.devices import IDEAL, DeviceProfile
from crossbar.errors import KernelsUnavailable
from crossbar.ideal import IdealEngine
from sedmad.core.capacity import CapacityLedger
from sedmad.core.cells import CellLedger
from sedmad.core.membership.claim import Claim
from sedmad.errors import SedmadError
from sedmad.net.channel import Channel
from sedmad.net.identity import Identity
from sedmad.node.committing import CommittingService
from sedmad.node.describing import DescribingService
from sedmad.node.device_uses import asked_of_devices
from sedmad.node.devices import Devices
from sedmad.node.establishing import EstablishingService
from sedmad.node.expecting import Expectations
from sedmad.node.getting import GettingService
from sedmad.node.healing import HealingService
from sedmad.node.holding import HoldingService
from sedmad.node.keeping import mend_manifests
from sedmad.node.looking_up import LookUpService
from sedmad.node.manifests import ManifestService
from sedmad.node.node import Node
from sedmad.node.putting import PuttingService
from sedmad.node.reconciling import ReconcilingService
from sedmad.node.records import DATA_TYPES
from sedmad.node.releasing import ReleasingService
from sedmad.node.removing import RemovingService
from sedmad.node.reserving import ReservingService
from sedmad.node.residents import Residents
from sedmad.node.restoring import restore_copies
from sedmad.store import holdings, manifests, puts
from sedmad.store.blobs import BlobStore, open_blobs
from sedmad.store.database import Database, open_database
from sedmad.wire import messages as wire
from sedmad.wire.frame import FrameDecoder, encode
from sedmad.wire.methods import MethodTable

PLEDGE_BYTES = 64 << 20
CELLS = 1 << 24


class ReadyKernels:
    """Kernels that were compiled before, or cannot be."""

    def __init__(self, error: KernelsUnavailable | None = None) -> None:
        self.ready = error is None
        self._error = error

    async def prepare(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._error is not None:
            raise self._error


@dataclass(slots=True)
class RigNode:
    """One node: its services, and the parts below them."""

    name: str
    identity: Identity
    database: Database
    blobs: BlobStore
    ledger: CapacityLedger
    residents: Residents
    membership: FakeMembership
    sessions: FakeSessions
    methods: MethodTable
    holding: HoldingService
    manifests: ManifestService
    lookups: LookUpService
    establishing: EstablishingService
    healing: HealingService
    reconciling: ReconcilingService
    removing: RemovingService
    putting: PuttingService
    releasing: ReleasingService
    getting: GettingService
    devices: Devices
    describing: DescribingService
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    @property
    def peer_id(self) -> str:
        return self.identity.peer_id

    def used(self) -> tuple[int, int, int, int]:
        """Return memory used and set aside, disk used and set aside."""
        memory, disk = self.ledger.memory, self.ledger.disk
        return memory.used_bytes, memory.reserved_bytes, disk.used_bytes, disk.reserved_bytes

    async def held(self) -> list[holdings.Holding]:
        return await self.database.read(holdings.load)

    async def puts(self) -> list[puts.StoredPut]:
        return await self.database.read(puts.load)

    async def settled(self) -> None:
        """Wait until blobs on disk are those of the copies on disk."""

        async def agree() -> bool:
            return self.blobs.digests() == {holding.digest for holding in await self.held()}

        await until(agree)

    async def is_empty(self) -> None:
        """Wait until nothing is left here."""

        async def empty() -> bool:
            left = (self.blobs.digests(), await self.held(), await self.puts())
            return self.used() == (0, 0, 0, 0) and not any(left)

        await until(empty)

    async def put(
        self, name: str, array: np.ndarray[Any, Any], *, survive: int = 0, **options: Any
    ) -> tuple[Claim, Any, bool]:
        """Store an array as a client would."""
        call = options.pop("call", None) or ClientCall(array.tobytes())
        request = put_request(name, array, survive=survive, **options)
        return await self.putting.put(request, call)

    async def get(self, name: str) -> bytes:
        """Read a matrix as a client would."""
        claim = self.membership.core.directory.get(name)
        manifest = await self.lookups.look_up(claim, deadline=trio.current_time() + 5)
        pieces = [bytes(piece) async for _, piece in self.getting.stream(manifest, name)]
        return b"".join(pieces)


class Rig:
    """Nodes by name, every two of them with a session."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._nodes: dict[str, RigNode] = {}
        self._links: dict[frozenset[str], trio.CancelScope] = {}

    def __getitem__(self, name: str) -> RigNode:
        return self._nodes[name]

    def __iter__(self) -> Any:
        return iter(self._nodes.values())

    def add(self, node: RigNode) -> None:
        for other in self:
            if other.name != node.name:
                other.membership.meet(node.membership)
                node.membership.meet(other.membership)
        self._nodes[node.name] = node
        for other in self:
            if other.name != node.name:
                self.connect(node.name, other.name)

    def connect(self, *names: str) -> None:
        """Give two nodes a session."""
        nodes = [self[name] for name in names]
        channels = [Channel(near.methods, far.peer_id, far.name) for near, far in (nodes, reversed(nodes))]
        scope = self._links[frozenset(names)] = trio.CancelScope()
        self._nursery.start_soon(_carry, scope, *channels)
        for (near, far), channel in zip((nodes, nodes[::-1]), channels, strict=True):
            near.sessions.attach(far.peer_id, channel)

    def cut(self, *names: str) -> None:
        """End the session between two nodes; what is under way on it fails."""
        near, far = (self[name] for name in names)
        near.sessions.detach(far.peer_id)
        far.sessions.detach(near.peer_id)
        self._links.pop(frozenset(names)).cancel()

    async def stop(self, name: str) -> None:
        """Stop a node's services and close its sessions; its database and its blobs stay open."""
        node = self._nodes.pop(name)
        for pair in [pair for pair in self._links if name in pair]:
            (other,) = pair - {name}
            self[other].sessions.detach(node.peer_id)
            node.sessions.detach(self[other].peer_id)
            self._links.pop(pair).cancel()
        node.scope.cancel()
        await trio.testing.wait_all_tasks_blocked(0.02)

    async def restart(self, name: str, stopped: RigNode, pledge_bytes: int = PLEDGE_BYTES) -> RigNode:
        """Start a stopped node again, on what lies on its disk."""
        blobs = await open_blobs(stopped.blobs.directory)
        node = await _make_node(name, stopped.database, blobs, pledge_bytes, stopped.devices.profile)
        for signed in stopped.membership.core.directory.records():
            node.membership.core.directory.accept(signed)
        await self.run(node)
        return node

    async def run(self, node: RigNode) -> None:
        async def serve(task_status: Any) -> None:
            with node.scope:
                async with trio.open_nursery() as nursery:
                    await nursery.start(node.holding.run)
                    await restore_copies(node.database, node.holding, node.manifests.kept())
                    await nursery.start(node.removing.run)
                    node.removing.free_all_unnamed()
                    self.add(node)
                    await nursery.start(node.releasing.run, await node.puts())
                    await nursery.start(node.healing.run)
                    await nursery.start(node.reconciling.run)
                    task_status.started()

        await self._nursery.start(serve)


async def _carry(scope: trio.CancelScope, near: Channel, far: Channel) -> None:
    async def pump(source: Channel, target: Channel) -> None:
        while True:
            frame = source.take()
            if frame is None:
                await source.wait_for_frames()
                continue
            for copy in FrameDecoder().receive_data(b"".join(map(bytes, encode(frame)))):
                target.deliver(copy)
            await trio.lowlevel.checkpoint()

    with scope:
        async with trio.open_nursery() as nursery:
            for source, target in ((near, far), (far, near)):
                nursery.start_soon(source.serve)
                nursery.start_soon(pump, source, target)


async def _make_node(
    name: str, database: Database, blobs: BlobStore, pledge_bytes: int, profile: DeviceProfile
) -> RigNode:
    identity = identity_of(name)
    membership: Any = FakeMembership(identity, name, pledge_bytes)
    sessions: Any = FakeSessions()
    ledger = CapacityLedger(memory_pledged_bytes=pledge_bytes, disk_pledged_bytes=2 * pledge_bytes, node=name)
    kernels: Any = ReadyKernels()
    cells = CellLedger(0 if profile.is_ideal else CELLS, name)
    devices = Devices(
        own_peer_id=identity.peer_id,
        profile=profile,
        cells=cells,
        ledger=ledger,
        database=database,
        blobs=blobs,
        kernels=kernels,
    )
    devices.changed = lambda: holding.changed()
    await devices.load()
    residents = Residents(blobs, IdealEngine(), devices)
    holding = HoldingService(
        own_peer_id=identity.peer_id,
        database=database,
        blobs=blobs,
        residents=residents,
        sessions=sessions,
        ledger=ledger,
        on_changed=lambda: membership.update_advert(
            memory_used_bytes=ledger.memory.used_bytes + ledger.memory.reserved_bytes,
            disk_used_bytes=ledger.disk.used_bytes + ledger.disk.reserved_bytes,
            device_profile=profile.name,
            cells_pledged=cells.usage.pledged,
            cells_used=cells.usage.used + cells.usage.reserved,
        ),
    )
    manifest_service = ManifestService(
        identity=identity,
        database=database,
        membership=membership,
        stored=await database.read(manifests.load),
        applying=holding.applying,
        on_kept=lambda manifest: healing.look_at([manifest.key]),
    )
    devices.needed = partial(asked_of_devices, holding, manifest_service)
    await mend_manifests(database, manifest_service)
    healing = HealingService(
        own_peer_id=identity.peer_id,
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
        own_peer_id=identity.peer_id,
        database=database,
        sessions=sessions,
        membership=membership,
        manifests=manifest_service,
    )
    lookups = LookUpService(sessions=sessions, membership=membership, manifests=manifest_service)
    establishing = EstablishingService(
        identity=identity,
        database=database,
        sessions=sessions,
        membership=membership,
        manifests=manifest_service,
    )
    removing = RemovingService(
        identity=identity,
        database=database,
        sessions=sessions,
        membership=membership,
        manifests=manifest_service,
        establishing=establishing,
    )
    composed: Any = SimpleNamespace(membership=membership, removing=removing)
    membership.on_claim = partial(Node._notice_replacement, composed)
    releasing = ReleasingService(
        own_peer_id=identity.peer_id, database=database, sessions=sessions, holding=holding
    )
    putting = PuttingService(
        own_peer_id=identity.peer_id,
        blobs=blobs,
        sessions=sessions,
        membership=membership,
        lookups=lookups,
        holding=holding,
        committing=CommittingService(
            identity=identity,
            database=database,
            membership=membership,
            manifests=manifest_service,
            establishing=establishing,
            holding=holding,
            retire=removing.retire,
        ),
        releasing=releasing,
        reserving=ReservingService(
            own_peer_id=identity.peer_id,
            sessions=sessions,
            membership=membership,
            holding=holding,
            releasing=releasing,
            expectations=Expectations(),
        ),
        on_replaced=removing.on_replaced,
    )
    describing = DescribingService(
        own_peer_id=identity.peer_id, devices=devices, manifests=manifest_service, sessions=sessions
    )
    methods = MethodTable()
    methods.add("DeviceService", describing)
    methods.add("HoldingService", holding)
    methods.add("ManifestService", manifest_service)
    methods.add("OwnerService", removing)
    methods.add("ReconcilingService", reconciling)
    return RigNode(
        name=name,
        identity=identity,
        database=database,
        blobs=blobs,
        ledger=ledger,
        residents=residents,
        membership=membership,
        sessions=sessions,
        methods=methods,
        holding=holding,
        manifests=manifest_service,
        lookups=lookups,
        establishing=establishing,
        healing=healing,
        reconciling=reconciling,
        removing=removing,
        putting=putting,
        releasing=releasing,
        getting=GettingService(blobs=blobs, sessions=sessions, membership=membership),
        devices=devices,
        describing=describing,
    )


@asynccontextmanager
async def open_rig(
    directory: Path,
    *names: str,
    pledges: dict[str, int] | None = None,
    profiles: dict[str, DeviceProfile] | None = None,
) -> AsyncIterator[Rig]:
    """Run nodes of these names, each with a pledge of memory in bytes, and of twice as much disk."""
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        rig = Rig(nursery)
        for name in names:
            home = directory / name
            home.mkdir()
            database = await stack.enter_async_context(open_database(home / "store.db"))
            blobs = await open_blobs(home / "blobs")
            pledge_bytes = (pledges or {}).get(name, PLEDGE_BYTES)
            profile = (profiles or {}).get(name, IDEAL)
            await rig.run(await _make_node(name, database, blobs, pledge_bytes, profile))
        try:
            yield rig
        finally:
            nursery.cancel_scope.cancel()


def put_request(
    name: str, array: np.ndarray[Any, Any], *, survive: int = 0, **options: Any
) -> wire.PutMatrixRequest:
    return wire.PutMatrixRequest(
        name=name,
        rows=array.shape[0],
        columns=array.shape[1],
        data_type=DATA_TYPES[str(array.dtype)],
        survive=survive,
        **options,
    )


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that other tasks bring about."""
    with trio.fail_after(10):
        while not await condition():  # noqa: ASYNC110 - many things bring it about
            await trio.sleep(0.005)


async def fails_with(error: type[SedmadError], action: Callable[[], Awaitable[Any]]) -> SedmadError:
    """Run an action and return the typed error that it ends with, out of whatever groups it comes in."""
    try:
        await action()
    except BaseException as raised:
        while isinstance(raised, BaseExceptionGroup):
            raised = raised.exceptions[0]
        if isinstance(raised, error):
            return raised
        raise
    raise AssertionError(f"{error.__name__} was expected")
