"""Puts that come to nothing: their holders give up what they had, at once or as soon as they can be told."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Protocol

import structlog
import trio

from sedmad import failpoints
from sedmad.errors import SedmadError
from sedmad.net.sessions import Sessions
from sedmad.node.clock import monotonic_s, wall_time_s
from sedmad.node.holding import HoldingService
from sedmad.store import puts as put_table
from sedmad.store.database import Database
from sedmad.store.puts import StoredPut
from sedmad.wire import messages as wire

if TYPE_CHECKING:
    # libp2p brings stubs that hide trio's own types, this one among them.
    from trio_typing import TaskStatus

log = structlog.get_logger("sedmad.releasing")

RELEASE = "sedma.v1.HoldingService/ReleasePut"
RELEASE_TIMEOUT_S = 5.0
CLEAR_UP_S = 5.0


class Undertaking(Protocol):
    """A put, or a step of a repair: its id, and the nodes that set room aside for it."""

    @property
    def put_id(self) -> bytes: ...

    @property
    def holders(self) -> frozenset[str]: ...


class ReleasingService:
    """Has the puts of which this node is the owner given up."""

    def __init__(
        self, *, own_peer_id: str, database: Database, sessions: Sessions, holding: HoldingService
    ) -> None:
        self._own_peer_id = own_peer_id
        self._database = database
        self._sessions = sessions
        self._holding = holding
        self._nursery: trio.Nursery | None = None

    async def run(
        self, abandoned: Iterable[StoredPut], task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Have puts that were cut short given up by their holders, as these come into reach, until cancelled.

        Args:
            abandoned: those that the end of this node's earlier life cut short.
        """
        async with trio.open_nursery() as nursery:
            for put in abandoned:
                nursery.start_soon(self._clear_up, put.put_id, frozenset(put.intent.decode().split()))
            self._nursery = nursery
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    async def intend(self, put: Undertaking) -> None:
        """Note on disk who will have to give a put up, should it come to nothing. Committing it ends that."""
        holders = " ".join(sorted(put.holders - {self._own_peer_id}))
        stored = StoredPut(put.put_id, holders.encode(), wall_time_s())
        await self._database.write(partial(put_table.begin, put=stored))

    async def release(self, put: Undertaking) -> None:
        """Give up what the put had: here and where it can be told at once, elsewhere as soon as it can be."""
        with trio.CancelScope(shield=True):
            untold: frozenset[str] = frozenset()
            if not await self._release_here(put.put_id):
                untold |= {self._own_peer_id}
            failpoints.reach("releasing.released_here")
            untold |= await self._tell_release(put.put_id, put.holders - {self._own_peer_id})
            ended = not untold and await self._end(put.put_id)
            if not ended and self._nursery is not None:
                self._nursery.start_soon(self._clear_up, put.put_id, untold)

    async def _clear_up(self, put_id: bytes, holders: frozenset[str]) -> None:
        """Go on until every holder gave the put up, and this node noted it: some are away, some disks are full."""
        while True:
            holders = await self._tell_release(put_id, holders)
            if not holders and await self._end(put_id):
                return
            await trio.sleep(CLEAR_UP_S)

    async def _end(self, put_id: bytes) -> bool:
        try:
            await self._database.write(partial(put_table.end, put_id=put_id))
        except SedmadError as error:
            log.error("put_not_ended", why=str(error))
            return False
        return True

    async def _release_here(self, put_id: bytes) -> bool:
        try:
            await self._holding.release(put_id)
        except SedmadError as error:
            log.error("put_not_released_here", why=str(error))
            return False
        return True

    async def _tell_release(self, put_id: bytes, holders: Iterable[str]) -> frozenset[str]:
        """Tell holders at once to give up what a put had; return those that could not be told."""
        untold: set[str] = set()

        async def tell_one(peer_id: str) -> None:
            if peer_id == self._own_peer_id:
                if not await self._release_here(put_id):
                    untold.add(peer_id)
                return
            request = wire.ReleasePutRequest(put_id=put_id)
            try:
                await self._sessions.call(
                    peer_id, RELEASE, request, deadline=monotonic_s() + RELEASE_TIMEOUT_S
                )
            except SedmadError as error:
                log.debug("put_not_released", peer=peer_id, why=str(error))
                untold.add(peer_id)

        async with trio.open_nursery() as nursery:
            for peer_id in holders:
                nursery.start_soon(tell_one, peer_id)
        failpoints.reach("releasing.told")
        return frozenset(untold)
