"""A node whose tables were damaged and restored: it asks others what it forgot before it gives its word or frees bytes.

What it kept, held and promised since its snapshot is not in its tables. Others that share matrices with it compare
their manifests with it as they meet it; when that has had its time, the tables are trusted again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
import trio

from sedmad.node.holding import HoldingService
from sedmad.node.membership import MembershipService
from sedmad.store.database import Database

if TYPE_CHECKING:
    # libp2p brings stubs that hide trio's own types, this one among them.
    from trio_typing import TaskStatus

log = structlog.get_logger("sedmad.recovering")

# Sessions with all that live are there after a few seconds, and a comparison takes one more. An election that this
# node's forgotten promise was part of has long ended.
COMPARED_AFTER_S = 30.0
LOOK_S = 1.0
# Somebody of a mesh is heard of by then, even where all that was known of it is gone: whoever it joined, or dials it.
ALONE_AFTER_S = 5.0


class RecoveringService:
    """Ends a node's distrust in its own tables.

    Args:
        on_recovered: called when they are trusted again.
    """

    def __init__(
        self,
        *,
        database: Database,
        membership: MembershipService,
        holding: HoldingService,
        on_recovered: Callable[[], None],
    ) -> None:
        self._database = database
        self._membership = membership
        self._holding = holding
        self._on_recovered = on_recovered

    @property
    def is_under_way(self) -> bool:
        """Whether this node may not rely on its tables."""
        return self._database.restored_from is not None

    async def run(self, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Wait until others have told what they know, then go on as usual."""
        task_status.started()
        if not self.is_under_way:
            return
        log.error("tables_restored", damaged=str(self._database.restored_from))
        await trio.sleep(ALONE_AFTER_S)
        # Alone there is nobody to ask; who has peers waits for one of them.
        if self._membership.peers():
            while not any(row.state == "alive" for row in self._membership.peers()):  # noqa: ASYNC110 - rare
                await trio.sleep(LOOK_S)
            await trio.sleep(COMPARED_AFTER_S)
        await self._database.reconciled()
        await self._holding.uses.delete_unknown()
        log.warning("tables_trusted")
        self._on_recovered()
