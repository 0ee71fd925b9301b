"""Reads this node's blobs again in the background, so that bytes that rot are found while others have good ones.

How often and how fast is decided in core/scrubbing.py; what is found bad is set aside and told by the store. Also
forgets, once an hour, what the tables keep for a time only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from sedmad.core import scrubbing
from sedmad.core.scrubbing import RATE_BYTES_PER_S, ROUND_S, Round
from sedmad.errors import BytesCorrupt, SedmadError
from sedmad.node.clock import wall_time_s
from sedmad.store import manifests, promises, settings
from sedmad.store.blobs import BlobStore
from sedmad.store.database import Connection, Database

if TYPE_CHECKING:
    # libp2p brings stubs that hide trio's own types, this one among them.
    from trio_typing import TaskStatus

log = structlog.get_logger("sedmad.scrubbing")

SETTING = "scrubbing"
# A daemon that starts has better things to read.
FIRST_AFTER_S = 60.0
# Tombstones live for 90 days: an hour more or less does not matter.
TIDY_EVERY_S = 3600.0
# How far the round is, on disk: what was read since is read again after a crash.
KEEP_EVERY_BYTES = 1 << 30


class ScrubbingService:
    """Scrubs the blob store of a node.

    Args:
        busy: whether products run here right now.
        rate_bytes_per_s: the most that is read at any time.
    """

    def __init__(
        self,
        *,
        database: Database,
        blobs: BlobStore,
        busy: Callable[[], bool],
        rate_bytes_per_s: float = RATE_BYTES_PER_S,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._busy = busy
        self._rate_bytes_per_s = rate_bytes_per_s

    async def run(self, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Scrub and tidy until cancelled."""
        task_status.started()
        await trio.sleep(FIRST_AFTER_S)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tidy)
            while True:
                try:
                    await self.scrub()
                except SedmadError as error:
                    log.error("scrubbing_failed", why=str(error))
                await trio.sleep(TIDY_EVERY_S)

    async def scrub(self) -> None:
        """Go on with the round, or begin the next one if it is time, and read to its end."""
        turn = scrubbing.next_round(await self._load(), wall_time_s())
        if turn is None:
            return
        ends_at_s = turn.begun_s + ROUND_S
        waiting = sorted(digest for digest in self._blobs.digests() if digest > turn.after)
        left_bytes, since_kept_bytes = sum(map(self._blobs.size_bytes, waiting)), 0

        async def pause(size_bytes: int, cpu_s: float) -> None:
            nonlocal left_bytes
            left_bytes -= size_bytes
            await trio.sleep(
                scrubbing.pause_s(
                    size_bytes,
                    cpu_s,
                    busy=self._busy(),
                    left_bytes=left_bytes,
                    left_s=ends_at_s - wall_time_s(),
                    rate_bytes_per_s=self._rate_bytes_per_s,
                )
            )

        for digest in waiting:
            size_bytes = self._blobs.size_bytes(digest)
            if not size_bytes:
                continue
            try:
                await self._blobs.verify(digest, pause)
            except BytesCorrupt as error:
                log.error("rot_found", why=str(error))
            turn = turn.passed(digest)
            since_kept_bytes += size_bytes
            if since_kept_bytes >= KEEP_EVERY_BYTES:
                await self._keep(turn)
                since_kept_bytes = 0
        await self._keep(turn.end())
        log.info("scrubbed", blobs=len(waiting))

    async def _tidy(self) -> None:
        while True:
            try:
                await self._database.write(_forget_old)
            except SedmadError as error:
                log.error("tidying_failed", why=str(error))
            await trio.sleep(TIDY_EVERY_S)

    async def _load(self) -> Round | None:
        kept = await self._database.read(partial(settings.load, name=SETTING))
        if kept is None:
            return None
        begun_s, ended, after = kept.split()
        return Round(float(begun_s), bytes.fromhex(after.strip("-")), bool(int(ended)))

    async def _keep(self, turn: Round) -> None:
        value = f"{turn.begun_s} {int(turn.ended)} {turn.after.hex() or '-'}"
        await self._database.write(partial(settings.keep, name=SETTING, value=value), durable=False)


def _forget_old(connection: Connection) -> None:
    manifests.purge_tombstones(connection, wall_time_s())
    promises.purge(connection)
