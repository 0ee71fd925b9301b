"""Room for a matrix that comes in: planned with what every node offers, and set aside by all holders, or refused with
the arithmetic.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Container
from contextlib import asynccontextmanager

import trio

from sedmad import failpoints
from sedmad.core.accuracy import Accuracy
from sedmad.core.device_needs import DeviceNeeds
from sedmad.core.partitioning import Partitioning
from sedmad.core.placement import Need, Placement, place_on_devices
from sedmad.errors import InsufficientCapacity, NotEnoughPeers, SedmadError, UsageError
from sedmad.net.calls import IncomingCall
from sedmad.net.sessions import Sessions
from sedmad.node.clock import monotonic_s
from sedmad.node.expecting import Expectations
from sedmad.node.holding import PUT_ID_BYTES, HoldingService
from sedmad.node.membership import MembershipService
from sedmad.node.offering import gather_offers
from sedmad.node.put import Put
from sedmad.node.releasing import ReleasingService
from sedmad.node.replies import read_reply
from sedmad.wire import messages as wire

RESERVE = "sedma.v1.HoldingService/ReserveCopies"
# A refusal tells what really is free there; the next plan knows it.
PLANS_MAX = 3
RESERVE_TIMEOUT_S = 5.0
# A node whose connection was cut is suspected, and back within a second; within ten where it is cut again and again.
SUSPECTS_S = 10.0
SUSPECTS_STEP_S = 0.1
SURVIVE_MAX = 8
# Clients take a daemon for gone that says nothing for a minute; planning for devices takes up to that.
REPORT_S = 10.0


class ReservingService:
    """Finds and sets aside room for puts of this node."""

    def __init__(
        self,
        *,
        own_peer_id: str,
        sessions: Sessions,
        membership: MembershipService,
        holding: HoldingService,
        releasing: ReleasingService,
        expectations: Expectations,
    ) -> None:
        self._own_peer_id = own_peer_id
        self._sessions = sessions
        self._membership = membership
        self._holding = holding
        self._releasing = releasing
        self._expectations = expectations

    async def reserve(
        self,
        request: wire.PutMatrixRequest,
        partitioning: Partitioning,
        dtype: str,
        accuracy: Accuracy,
        call: IncomingCall,
    ) -> Put:
        """Plan, and have every holder set its room aside; plan again where one refuses.

        Raises:
            InsufficientCapacity, NotEnoughPeers: the mesh cannot hold it.
            UsageError, TargetUnreachable: its target cannot be kept.
        """
        async with _telling(accuracy, call):
            return await self._reserve(request, partitioning, dtype, accuracy)

    async def _reserve(
        self, request: wire.PutMatrixRequest, partitioning: Partitioning, dtype: str, accuracy: Accuracy
    ) -> Put:
        """Plan, and have every holder set its room aside; plan again where one refuses."""
        survive = request.survive
        if survive > SURVIVE_MAX:
            raise NotEnoughPeers(
                f"a matrix survives the loss of at most {SURVIVE_MAX} nodes", matrix=request.name
            )
        refused: dict[str, InsufficientCapacity] = {}
        for _ in range(PLANS_MAX):
            try:
                placement, devices = await self._place(partitioning, survive, request.name, refused, accuracy)
            except (InsufficientCapacity, NotEnoughPeers) as error:
                error.matrix = request.name
                if refused:
                    told = "; ".join(str(refusal.why or refusal.what) for refusal in refused.values())
                    if isinstance(error, NotEnoughPeers):
                        # There would be enough nodes; it is room that they lack.
                        refusal = next(iter(refused.values()))
                        refusal.matrix, refusal.why = request.name, told
                        raise refusal from error
                    error.why = f"{error.why}\n{told}"
                raise
            put = Put(
                put_id=secrets.token_bytes(PUT_ID_BYTES),
                name=request.name,
                partitioning=partitioning,
                dtype=dtype,
                survive=survive,
                replace=request.replace,
                placement=placement,
                scale=request.scale,
                accuracy=accuracy,
                devices=devices,
            )
            reserved = False
            try:
                await self._releasing.intend(put)
                failpoints.reach("reserving.intended")
                failures = await self._reserve_everywhere(put, request.data_type)
                reserved = not failures
            finally:
                if not reserved:
                    await self._releasing.release(put)
            if reserved:
                failpoints.reach("reserving.reserved")
                return put
            refused |= failures
        raise next(iter(refused.values()))

    async def _place(
        self,
        partitioning: Partitioning,
        survive: int,
        name: str,
        refused: Container[str],
        accuracy: Accuracy,
    ) -> tuple[Placement, DeviceNeeds]:
        """Plan with the living, but those who refused. Where they cannot hold it, wait for the suspects' sake.

        Where cells are short and no profile was demanded, nodes compute exactly what their arrays do not hold.
        """
        until = monotonic_s() + SUSPECTS_S
        while True:
            offers = gather_offers(self._membership, self._holding.ledger)
            offers = [offer for offer in offers if offer.peer_id not in refused]
            devices = await self._expectations.needs(accuracy, partitioning, offers)
            try:
                return place_on_devices(partitioning, survive, offers, name.encode(), devices)
            except (InsufficientCapacity, NotEnoughPeers):
                suspects = [row for row in self._membership.peers() if row.state == "suspect"]
                if not suspects or monotonic_s() >= until:
                    raise
            await trio.sleep(SUSPECTS_STEP_S)

    async def _reserve_everywhere(self, put: Put, data_type: int) -> dict[str, InsufficientCapacity]:
        failures: dict[str, InsufficientCapacity] = {}
        offers = gather_offers(self._membership, self._holding.ledger)
        cells = {offer.peer_id: put.devices.of(offer).cells for offer in offers}

        async def reserve(peer_id: str, need: Need) -> None:
            request = wire.ReserveCopiesRequest(
                put_id=put.put_id,
                resident_bytes=need.memory_bytes,
                disk_bytes=need.disk_bytes,
                rows=put.partitioning.rows,
                columns=put.partitioning.columns,
                data_type=data_type,  # type: ignore[arg-type]
                target_error=put.accuracy.target_error,
                profile=put.accuracy.profile,
                cells=need.resident_partitions * cells.get(peer_id, 0),
            )
            try:
                if peer_id == self._own_peer_id:
                    self._holding.reserve(request, peer_id)
                    compiling = self._holding.compiles_for(request)
                else:
                    deadline = monotonic_s() + RESERVE_TIMEOUT_S
                    told = await self._sessions.call(peer_id, RESERVE, request, deadline=deadline)
                    compiling = read_reply(wire.ReserveCopiesResponse, told, peer_id).compiling
                if compiling:
                    put.compiling.add(peer_id)
            except SedmadError as error:
                name = self._membership.name_of(peer_id)
                failures[peer_id] = InsufficientCapacity(
                    f"{name} has no room for {put.name}",
                    why=f"{name}: {error.why or error.what}",
                    node=name,
                    matrix=put.name,
                )

        async with trio.open_nursery() as nursery:
            for peer_id, need in put.placement.needs().items():
                nursery.start_soon(reserve, peer_id, need)
        return failures


@asynccontextmanager
async def _telling(accuracy: Accuracy, call: IncomingCall) -> AsyncIterator[None]:
    """Tell a client that waits, while devices are planned for, that this node is there."""
    if not accuracy.target_error:
        yield
        return

    async def tell() -> None:
        while True:
            await call.send(wire.PutMatrixResponse(phase="planning for devices", planning=True))
            await trio.sleep(REPORT_S)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        yield
        nursery.cancel_scope.cancel()


def accuracy_of(request: wire.PutMatrixRequest, dtype: str) -> Accuracy:
    """Return what is asked of the products of a matrix that is to be stored.

    Raises:
        UsageError: it is not possible, or not for such values.
    """
    try:
        accuracy = Accuracy(request.target_error, request.profile)
    except UsageError as error:
        error.matrix = request.name
        raise
    if accuracy.target_error and dtype == "int8":
        raise UsageError(
            f"{request.name} cannot have a target error",
            why="products of integers are exact",
            hint="Store it without --target-error, or convert it to float32 first.",
            matrix=request.name,
        )
    if accuracy.target_error and request.allow_nonfinite:
        raise UsageError(
            f"{request.name} cannot have a target error",
            why="no device can be programmed with NaN or infinities",
            hint="Clean the matrix, or store it without --target-error.",
            matrix=request.name,
        )
    return accuracy
