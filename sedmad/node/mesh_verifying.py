"""Whether everything is where it should be: the stores of all nodes that answer, then every matrix against them.

Owns who is asked, how far they are, and what their reports mean for matrices. What a node finds out about its own
store is `verifying.py`'s affair. Nothing is mended here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

import trio
from google.protobuf.message import Message

from sedmad.core.membership.claim import Claim
from sedmad.errors import DeadlineExceeded, SedmadError
from sedmad.net.calls import IncomingCall
from sedmad.net.sessions import Sessions
from sedmad.node.clock import monotonic_s
from sedmad.node.looking_up import LookUpService
from sedmad.node.manifest import Manifest
from sedmad.node.membership import MembershipService
from sedmad.node.replies import read_reply
from sedmad.wire import messages as wire

VERIFY_STORE = "sedma.v1.StoreService/VerifyStore"
# 8 TiB at 100 MB/s; a node that says nothing for SILENCE_S is given up long before.
VERIFY_TIMEOUT_S = 86_400.0
# Whoever verifies tells how far it is once a second, also while it waits for its turn.
TELL_S = 1.0
SILENCE_S = 15.0
LOOK_UP_TIMEOUT_S = 10.0
# Each look-up may ask guardians elsewhere; a few at once hide the round trips.
LOOK_UPS_MAX = 16
# Names of at most 128 bytes and a reason: a message stays far below a frame's bound.
MATRICES_PER_MESSAGE = 1000

OnProgress = Callable[[int, int], Awaitable[None]]
# Whose copy of which partition: peer id, digest and first owner of its matrix, index.
CopyKey = tuple[str, bytes, str, int]

# More than a disk holds; what nodes say of themselves is added up in 64 bits.
STORE_BYTES_MAX = 1 << 53


class VerifyStore(Protocol):
    """Reads this node's copies, and reports: `verifying.verify_store` on a node's own store."""

    async def __call__(self, *, quick: bool, on_progress: OnProgress) -> wire.StoreReport: ...


@dataclass(slots=True)
class Progress:
    """Bytes that are checked and bytes that there are, by node."""

    by_node: dict[str, tuple[int, int]] = field(default_factory=dict)

    def told(self, peer_id: str, response: wire.VerifyStoreResponse) -> None:
        """Take note of what another node says of itself."""
        self.by_node[peer_id] = (
            min(response.checked_bytes, STORE_BYTES_MAX),
            min(response.total_bytes, STORE_BYTES_MAX),
        )

    @property
    def checked_bytes(self) -> int:
        return sum(checked for checked, _ in self.by_node.values())

    @property
    def total_bytes(self) -> int:
        return sum(total for _, total in self.by_node.values())


class StoreService:
    """Verifies this node's store; serves StoreService of the contract to members."""

    def __init__(self, verify_store: VerifyStore) -> None:
        self._verify_store = verify_store
        # Two at once would read everything twice.
        self._turn = trio.Lock()

    async def verify_store(
        self, request: wire.VerifyStoreRequest, call: IncomingCall
    ) -> wire.VerifyStoreResponse:
        """Verify this node's store for a member."""
        progress = Progress()

        def told() -> wire.VerifyStoreResponse:
            return wire.VerifyStoreResponse(
                checked_bytes=progress.checked_bytes, total_bytes=progress.total_bytes
            )

        async with _telling(call, told):
            report = await self.verify(request.quick, progress, "")
        response = told()
        response.report.CopyFrom(report)
        return response

    async def verify(self, quick: bool, progress: Progress, node: str) -> wire.StoreReport:
        """Verify this node's store, and note under `node` how far it is."""

        async def on_progress(checked_bytes: int, total_bytes: int) -> None:
            progress.by_node[node] = (checked_bytes, total_bytes)

        async with self._turn:
            report = await self._verify_store(quick=quick, on_progress=on_progress)
        _, report.size_bytes = progress.by_node.get(node, (0, 0))
        return report


class VerifyingService:
    """Verifies the mesh; serves VerifyingService of the contract to clients."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        membership: MembershipService,
        lookups: LookUpService,
        store: StoreService,
    ) -> None:
        self._sessions = sessions
        self._membership = membership
        self._lookups = lookups
        self._store = store

    async def verify_mesh(
        self, request: wire.VerifyMeshRequest, call: IncomingCall
    ) -> wire.VerifyMeshResponse:
        """Ask all nodes that are not dead to verify their stores, then look for the copies of every matrix."""
        progress = Progress()

        def told() -> wire.VerifyMeshResponse:
            return wire.VerifyMeshResponse(
                checked_bytes=progress.checked_bytes, total_bytes=progress.total_bytes
            )

        unsound: set[CopyKey] = set()

        async def verify_node(peer_id: str) -> None:
            verified = wire.NodeVerification(
                node=wire.NodeReference(peer_id=peer_id, name=self._membership.name_of(peer_id))
            )
            try:
                report = await self._verify_node(peer_id, request.quick, progress)
            except SedmadError as error:
                verified.error = error.what
            else:
                verified.report.CopyFrom(report)
                unsound.update(_unsound_copies(peer_id, report))
            message = told()
            message.nodes.append(verified)
            await call.send(message)

        async with _telling(call, told):
            async with trio.open_nursery() as nursery:
                for peer_id in self._living():
                    nursery.start_soon(verify_node, peer_id)
            matrices = await self._verify_matrices(unsound)
        last = told()
        while len(matrices) > MATRICES_PER_MESSAGE:
            batch, matrices = matrices[:MATRICES_PER_MESSAGE], matrices[MATRICES_PER_MESSAGE:]
            await call.send(wire.VerifyMeshResponse(matrices=batch))
        last.matrices.extend(matrices)
        return last

    def _living(self) -> list[str]:
        others = [row.peer_id for row in self._membership.peers() if row.state != "dead"]
        return [self._membership.core.peer_id, *others]

    async def _verify_node(self, peer_id: str, quick: bool, progress: Progress) -> wire.StoreReport:
        if peer_id == self._membership.core.peer_id:
            return await self._store.verify(quick, progress, peer_id)
        request = wire.VerifyStoreRequest(quick=quick)
        deadline = monotonic_s() + VERIFY_TIMEOUT_S
        with trio.CancelScope(deadline=trio.current_time() + SILENCE_S) as silence:
            channel = await self._sessions.reach(peer_id, deadline=deadline)
            async with channel.open_call(VERIFY_STORE, request, deadline=deadline) as asked:
                async for chunk in asked:
                    silence.deadline = trio.current_time() + SILENCE_S
                    told = read_reply(wire.VerifyStoreResponse, chunk.message, peer_id)
                    progress.told(peer_id, told)
            last = read_reply(wire.VerifyStoreResponse, asked.response or b"", peer_id)
            progress.told(peer_id, last)
            return last.report
        raise DeadlineExceeded(f"it has said nothing for {SILENCE_S:g} s", node=peer_id)

    async def _verify_matrices(self, unsound: set[CopyKey]) -> list[wire.MatrixVerification]:
        """Return the names whose matrices lack copies, in their order."""
        found: dict[str, wire.MatrixVerification] = {}
        names = dict(self._membership.core.directory.entries())
        waiting = iter(names.items())

        async def verify_next() -> None:
            for name, claim in waiting:
                verified = await self._verify_matrix(name, claim, unsound)
                if verified.error or verified.degraded_partitions or verified.lost_partitions:
                    found[name] = verified

        async with trio.open_nursery() as nursery:
            for _ in range(LOOK_UPS_MAX):
                nursery.start_soon(verify_next)
        return [found[name] for name in names if name in found]

    async def _verify_matrix(self, name: str, claim: Claim, unsound: set[CopyKey]) -> wire.MatrixVerification:
        try:
            manifest = await self._lookups.look_up(claim, deadline=monotonic_s() + LOOK_UP_TIMEOUT_S)
        except SedmadError as error:
            return wire.MatrixVerification(name=name, error=error.what)
        living = {peer for peer in manifest.holders if self._membership.state_of(peer) != "dead"}
        degraded, lost = _count_lacking(manifest, living, unsound)
        return wire.MatrixVerification(name=name, degraded_partitions=degraded, lost_partitions=lost)


def _unsound_copies(peer_id: str, report: wire.StoreReport) -> Iterable[CopyKey]:
    """Yield the copies that a node has not got, whatever manifests say."""
    for faults in (report.corrupt, report.missing):
        for fault in faults:
            yield peer_id, fault.key.matrix_digest, fault.key.first_owner, fault.partition_index


def _count_lacking(manifest: Manifest, living: set[str], unsound: set[CopyKey]) -> tuple[int, int]:
    """Return how many partitions have fewer sound copies than promised, and how many have none."""
    key = manifest.key
    degraded = lost = 0
    for index, copies in enumerate(manifest.copies):
        sound = sum(
            peer in living and (peer, key.matrix_digest, key.first_owner, index) not in unsound
            for peer in copies
        )
        if not sound:
            lost += 1
        elif sound <= manifest.survive:
            degraded += 1
    return degraded, lost


@asynccontextmanager
async def _telling(call: IncomingCall, told: Callable[[], Message]) -> AsyncIterator[None]:
    """Tell the asker every TELL_S how far the block is."""

    async def tell() -> None:
        while True:
            await trio.sleep(TELL_S)
            await call.send(told())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        yield
        nursery.cancel_scope.cancel()
