"""The memory pledge under pressure: lowered before the kernel has to kill something, raised when there is plenty again.

Copies that lose their place stay on disk and answer through the page cache; the node tells how much it is short of,
and owners have others become resident elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from sedmad.core.pressure import MemoryReading, bearable_pledge_bytes
from sedmad.node.healing import HealingService
from sedmad.node.holding import HoldingService
from sedmad.node.manifests import ManifestService
from sedmad.node.membership import MembershipService
from sedmad.sizes import format_bytes
from sedmad.store import holdings as holding_table
from sedmad.store.database import Database
from sedmad.store.holdings import Kind

if TYPE_CHECKING:
    # libp2p brings stubs that hide trio's own types, this one among them.
    from trio_typing import TaskStatus

log = structlog.get_logger("sedmad.pledging")

# A program that takes a gigabyte a second is met before a small machine's reserve is gone.
LOOK_S = 0.5
# Who is short tells it some looks later: what was just given may still be on its way to memory.
TELL_EVERY = 10


class PledgingService:
    """Keeps this node's memory pledge to what the machine can bear.

    Args:
        pledged_bytes: what the node's user set.
        read: returns what is left on the machine now.
    """

    def __init__(
        self,
        *,
        pledged_bytes: int,
        read: Callable[[], MemoryReading],
        database: Database,
        membership: MembershipService,
        manifests: ManifestService,
        holding: HoldingService,
        healing: HealingService,
    ) -> None:
        self._pledged_bytes = pledged_bytes
        self._read = read
        self._database = database
        self._membership = membership
        self._manifests = manifests
        self._holding = holding
        self._healing = healing

    @property
    def lowered_bytes(self) -> int:
        """By how much the pledge is lower than what the user set."""
        return self._pledged_bytes - self._holding.ledger.memory.pledged_bytes

    async def run(self, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled."""
        task_status.started()
        looks = 0
        while True:
            await self.look()
            if looks % TELL_EVERY == 0:
                self._tell_shortage()
            looks += 1
            await trio.sleep(LOOK_S)

    async def look(self) -> None:
        """Set the pledge to what the machine can bear now, and give up what it no longer covers."""
        ledger = self._holding.ledger
        before = ledger.memory
        bearable_bytes = bearable_pledge_bytes(
            self._read(),
            pledged_bytes=self._pledged_bytes,
            present_bytes=before.pledged_bytes,
            resident_bytes=before.used_bytes,
        )
        if bearable_bytes != before.pledged_bytes:
            ledger.pledge_memory(bearable_bytes)
            self._membership.update_advert(memory_pledged_bytes=bearable_bytes)
        # Also where nothing changed since the last look: copies may have come that were promised before it.
        if bearable_bytes < before.used_bytes:
            given_up_bytes = await self._demote(before.used_bytes - bearable_bytes)
            log.warning(
                "memory_pressed",
                pledge=format_bytes(bearable_bytes),
                set=format_bytes(self._pledged_bytes),
                given_up=format_bytes(given_up_bytes),
            )
            self._tell_shortage()
        elif bearable_bytes > before.pledged_bytes:
            self._healing.look_at(manifest.key for manifest in self._manifests.kept())

    async def _demote(self, size_bytes: int) -> int:
        """Have resident copies of at least so many bytes answer through the page cache; return how many did.

        Their manifests still call them resident: they become it again when there is room.
        """
        copies, uses = self._holding.copies, self._holding.uses
        demoted_bytes = 0
        with trio.CancelScope(shield=True):
            async with uses.lock:
                for holding in copies.resident():
                    if demoted_bytes >= size_bytes:
                        break
                    standby = replace(holding, kind=Kind.STANDBY)
                    await self._database.write(partial(holding_table.hold, holding=standby))
                    others = copies.of(holding.group_key)
                    copies.replace(holding.group_key, {**others, holding.partition_index: standby})
                    demoted_bytes += holding.size_bytes
        self._holding.changed()
        return demoted_bytes

    def _tell_shortage(self) -> None:
        """Tell what is resident by its manifest and not in fact."""
        short_bytes = sum(
            manifest.size_of(index)
            for manifest in self._manifests.kept()
            for index, kind in self._healing.lacking(manifest).items()
            if kind is Kind.RESIDENT
        )
        if short_bytes != self._membership.core.advert.memory_short_bytes:
            self._membership.update_advert(memory_short_bytes=short_bytes)
