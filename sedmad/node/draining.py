"""This node leaves in good order: it says so in its advert, and owners, itself among them, move its copies elsewhere.

Owned here: the decision, which outlives a restart, and what is left. Repair does the moving.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from sedmad import failpoints
from sedmad.node.manifests import ManifestService
from sedmad.node.membership import MembershipService
from sedmad.store import settings
from sedmad.store.database import Connection, Database

log = structlog.get_logger("sedmad.draining")

SETTING = "draining"


def load(connection: Connection) -> bool:
    """Return whether it was decided, in this life of the node or an earlier one, that it leaves."""
    return settings.load(connection, SETTING) is not None


@dataclass(frozen=True, slots=True)
class Left:
    """What a node that leaves still has.

    Attributes:
        copies, bytes: that manifests give it.
        owned: matrices of which it is the owner.
        owners: peer ids of those who have to move its copies.
    """

    copies: int
    bytes: int
    owned: int
    owners: frozenset[str]


class DrainingService:
    """Decides that this node leaves, or stays after all.

    Attributes:
        is_draining: what was decided; before this node started, as its first advert says.

    Args:
        on_decided: called when it has been decided; owners elsewhere hear it from the advert.
    """

    def __init__(
        self,
        *,
        own_peer_id: str,
        database: Database,
        membership: MembershipService,
        manifests: ManifestService,
        on_decided: Callable[[], None],
    ) -> None:
        self._own_peer_id = own_peer_id
        self._database = database
        self._membership = membership
        self._manifests = manifests
        self._on_decided = on_decided
        # The mesh hears of it a moment after it is decided.
        self.is_draining = membership.core.advert.state == "draining"

    async def start(self) -> None:
        """Take no more copies, and have those that are here moved; no error if that is so already."""
        await self._decide(partial(settings.keep, name=SETTING, value="yes"), leaves=True)

    async def cancel(self) -> None:
        """Stay; what was moved does not come back by itself."""
        await self._decide(partial(settings.remove, name=SETTING), leaves=False)

    def left(self) -> Left:
        """Return what is still here."""
        kept = [manifest for manifest in self._manifests.kept() if not manifest.removed]
        held = {manifest.key: manifest.held_by(self._own_peer_id) for manifest in kept}
        return Left(
            copies=sum(map(len, held.values())),
            bytes=sum(manifest.size_of(index) for manifest in kept for index in held[manifest.key]),
            owned=sum(manifest.owner == self._own_peer_id for manifest in kept),
            owners=frozenset(manifest.owner for manifest in kept if held[manifest.key]),
        )

    async def _decide(self, change: Callable[[Connection], None], *, leaves: bool) -> None:
        # On disk before anybody hears of it.
        await self._database.write(change)
        failpoints.reach("draining.decided")
        if leaves != self.is_draining:
            self.is_draining = leaves
            self._membership.update_advert(state="draining" if leaves else "ready")
            log.info("draining_begun" if leaves else "draining_cancelled")
            self._on_decided()
