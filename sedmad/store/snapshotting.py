"""Keeps the snapshot of a database young while its node runs, and ends the node when the database turns out damaged."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import structlog
import trio

from sedmad.errors import SedmadError
from sedmad.store.database import Database
from sedmad.store.snapshots import Changes, is_due

if TYPE_CHECKING:
    # libp2p brings stubs that hide trio's own types, this one among them.
    from trio_typing import TaskStatus

log = structlog.get_logger("sedmad.database")

# How long damage that a statement found goes unnoticed here; what was asked of the database has failed by then.
LOOK_S = 5.0
# A node that stops does not wait for a longer one.
LAST_TOOK_S_MAX = 1.0


async def keep_snapshots(
    database: Database, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Take snapshots of what changed, one more at the end, until cancelled.

    Raises BytesCorrupt once the database was found damaged: it cannot be mended under a running node. The next start
    takes up the snapshot.
    """
    keeper = _Keeper(database)
    task_status.started()
    try:
        while True:
            await trio.sleep(LOOK_S)
            if database.damage is not None:
                raise database.damage
            await keeper.look()
    finally:
        with trio.CancelScope(shield=True):
            await keeper.look(last=True)


class _Keeper:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._taken = Changes()
        # The first one does not wait: the life before may have ended without.
        self._taken_at_s = -math.inf
        self._took_s = 0.0

    async def look(self, *, last: bool = False) -> None:
        """Take a snapshot if it is time for one; the last one is taken whenever something changed."""
        changes = self._database.changes
        age_s = trio.current_time() - self._taken_at_s
        due = is_due(changes, self._taken, age_s=age_s, took_s=self._took_s)
        if last:
            due = changes != self._taken and self._took_s < LAST_TOOK_S_MAX and self._database.damage is None
        if not due:
            return
        # Also after a failure: a disk that is full is not asked again at once.
        self._taken_at_s = trio.current_time()
        try:
            self._took_s = await self._database.snapshot()
        except SedmadError as error:
            log.error("snapshot_failed", why=str(error))
        else:
            self._taken = changes
