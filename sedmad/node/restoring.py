"""What lies on disk from an earlier life is taken up: copies counted and programmed, and what nothing needs deleted."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from sedmad import failpoints
from sedmad.node.holding import HoldingService
from sedmad.node.manifest import Manifest
from sedmad.store import holdings as holding_table
from sedmad.store.database import Connection, Database
from sedmad.store.holdings import Holding

log = structlog.get_logger("sedmad.restoring")


async def restore_copies(database: Database, holding: HoldingService, manifests: Iterable[Manifest]) -> None:
    """Take up the copies that the tables name. What they name and the disk lacks is for healing to fetch."""
    by_group = {manifest.group_key: manifest for manifest in manifests}
    dropped: list[Holding] = []
    for copy in await database.read(holding_table.load):
        manifest = by_group.get(copy.group_key)
        # Without a manifest: a copy of a put that was never committed. Its owner stores it again, or not.
        if manifest is None or not await holding.copies.take_up(copy, manifest):
            dropped.append(copy)
            log.warning("copy_dropped", partition=copy.partition_index, digest=copy.digest.hex()[:16])

    def release(connection: Connection) -> None:
        for copy in dropped:
            holding_table.release(connection, copy.group_key, [copy.partition_index])

    if dropped:
        await database.write(release)
        failpoints.reach("restoring.dropped")
    # Where the tables were restored they lack what was stored since: others know whose bytes those are.
    if database.restored_from is None:
        await holding.uses.delete_unknown()
    # Others plan with what this node tells of its room.
    holding.changed()
