"""What gossip told, on disk: a node that starts again knows whom and what it knew."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from sedmad.core.membership.advert import Advert
from sedmad.core.membership.record import SignedRecord
from sedmad.errors import PeerError, SedmadError
from sedmad.node.records import read_record
from sedmad.store import manifests as manifest_table
from sedmad.store import records as record_table
from sedmad.store.database import Connection, Database
from sedmad.store.manifests import ManifestKey, StoredManifest
from sedmad.store.records import RecordKind

if TYPE_CHECKING:
    # libp2p brings stubs that hide trio's own types, this one among them.
    from trio_typing import TaskStatus

    from sedmad.node.manifests import ManifestService

log = structlog.get_logger("sedmad.keeping")

# Adverts come every ten seconds from each node; together they cost one write.
GATHER_S = 1.0
# What a node must still know after a power cut is rare: names it told its clients of, and where to find the others,
# who look for it where it was until then.
GATHER_NEWS_S = 0.05
# Nodes whose place is known to be written; a forgotten one costs a write.
PLACES_MAX = 4096


def keep_record(connection: Connection, signed: SignedRecord) -> None:
    """Write a record in place of an older one about the same thing."""
    kind = RecordKind.ADVERT if isinstance(signed.record, Advert) else RecordKind.CLAIM
    record_table.put(connection, kind, "\0".join(signed.locator).encode(), signed.signed)


async def load_records(database: Database) -> list[SignedRecord]:
    """Return the records of an earlier life; a damaged one is left out and said, and makes all tables doubtful."""
    stored: list[bytes] = []
    for kind in RecordKind:
        stored += (await database.read(partial(record_table.load, kind=kind))).values()
    records = []
    for signed in stored:
        try:
            records.append(read_record(signed))
        except PeerError as error:
            log.warning("record_damaged", why=str(error))
    if len(records) < len(stored):
        # A name may be among them: what no name stands for must not be freed before others were asked.
        await database.distrust()
    return records


async def mend_manifests(database: Database, manifests: ManifestService) -> None:
    """Take damaged manifests out of the table, and older ones from the snapshot in their place.

    What is missing then, or out of date, others know: blobs are kept until they were asked.
    """
    if not manifests.damaged:
        return
    older = {row.key: row for row in await database.read_snapshot(manifest_table.load) or ()}
    for key in manifests.damaged:
        row = older.get(key)
        if row is not None and not manifests.take_up(row):
            row = None
        await database.write(partial(_replace_manifest, key=key, row=row))
        log.error("manifest_replaced", digest=key.matrix_digest.hex()[:16], from_snapshot=row is not None)
    await database.distrust()


def _replace_manifest(connection: Connection, key: ManifestKey, row: StoredManifest | None) -> None:
    manifest_table.drop(connection, key)
    if row is not None:
        manifest_table.put(connection, row)


class RecordKeeper:
    """Writes records as they come, several at a time. Newer ones of the same thing take the older ones' place."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # Bounded by what membership keeps: a place for each node and each name.
        self._waiting: dict[tuple[str, ...], SignedRecord] = {}
        self._places: dict[str, tuple[str, ...]] = {}
        self._wake = trio.Event()
        self._news = trio.Event()

    def keep(self, records: Iterable[SignedRecord]) -> None:
        """Write these soon."""
        for signed in records:
            self._waiting[signed.locator] = signed
            if self._is_news(signed):
                self._news.set()
        self._wake.set()

    async def run(self, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write until cancelled; what waits then is written first."""
        task_status.started()
        try:
            while True:
                await self._wake.wait()
                with trio.move_on_after(GATHER_S):
                    await self._news.wait()
                    await trio.sleep(GATHER_NEWS_S)
                self._wake, self._news = trio.Event(), trio.Event()
                await self._write()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 2 * GATHER_S):
                await self._write()

    async def _write(self) -> None:
        waiting, self._waiting = self._waiting, {}
        if not waiting:
            return
        durable = any(map(self._is_news, waiting.values()))

        def transaction(connection: Connection) -> None:
            for signed in waiting.values():
                keep_record(connection, signed)

        try:
            await self._database.write(transaction, durable=durable)
        except SedmadError as error:
            log.error("records_not_kept", why=str(error))
            self._waiting = waiting | self._waiting
            return
        for signed in waiting.values():
            if isinstance(signed.record, Advert):
                self._places.pop(signed.record.peer_id, None)
                self._places[signed.record.peer_id] = signed.record.addresses
        while len(self._places) > PLACES_MAX:
            del self._places[next(iter(self._places))]

    def _is_news(self, signed: SignedRecord) -> bool:
        """Whether a record is a name, or tells of a node that it is somewhere else than the table says."""
        record = signed.record
        return not isinstance(record, Advert) or self._places.get(record.peer_id) != record.addresses
