"""Stores of other versions: an older one is taken over with all that it holds, a newer one is left alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sedmad.store import holdings, invitations, manifests, promises, puts, records, schema, settings
from sedmad.store.database import open_database
from sedmad.store.holdings import Holding, Kind, State
from sedmad.store.manifests import ManifestKey, Role, StoredManifest, StoredTombstone
from sedmad.store.promises import StoredPromise
from sedmad.store.puts import StoredPut
from sedmad.store.records import RecordKind

A, B = ManifestKey(b"A" * 32, "ann"), ManifestKey(b"B" * 32, "ben")
# What version 1 wrote, table by table.
ROWS: dict[str, list[tuple[Any, ...]]] = {
    "manifest": [(A.matrix_digest, A.first_owner, 3, 7, b"signed manifest", 5)],
    "tombstone": [(B.matrix_digest, B.first_owner, 1, 2, b"signed tombstone", 1.5e9)],
    "holding": [(b"group", 4, b"d" * 32, "standby", 8 << 20, "active")],
    "record": [("claim", b"key", b"signed claim")],
    "invitation": [(b"s" * 32, 2e9, None, None)],
    "counter": [("boot", 12)],
    "put": [(b"p" * 16, b"intent", 1.7e9)],
}


def write_version_1(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        schema.migrate(connection, str(path), schema.MIGRATIONS[:1])
        for table, rows in ROWS.items():
            for row in rows:
                connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)


def tables(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """The columns of version 1, and what is in them."""
    with closing(sqlite3.connect(path)) as connection:
        return {
            table: [row[: len(rows[0])] for row in connection.execute(f"SELECT * FROM {table}")]
            for table, rows in ROWS.items()
        }


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


async def test_a_store_of_version_1_is_taken_over_with_all_that_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    write_version_1(path)
    for _ in range(2):
        async with open_database(path) as database:
            assert database.restored_from is None
            # Version 1 acknowledged a manifest when all its holders had it.
            assert await database.read(manifests.load) == [
                StoredManifest(A, 3, 7, b"signed manifest", Role.OWNER | Role.HOLDER, established=True)
            ]
            assert await database.read(manifests.load_tombstones) == [
                StoredTombstone(B, 1, 2, b"signed tombstone", 1.5e9)
            ]
            assert await database.read(holdings.load) == [
                Holding(b"group", 4, b"d" * 32, Kind.STANDBY, 8 << 20, State.ACTIVE)
            ]
            assert await database.read(lambda c: records.load(c, RecordKind.CLAIM)) == {
                b"key": b"signed claim"
            }
            assert await database.read(puts.load) == [StoredPut(b"p" * 16, b"intent", 1.7e9)]
            assert await database.read(promises.load) == []
    assert tables(path) == ROWS
    assert version(path) == len(schema.MIGRATIONS)


async def test_what_version_2_adds_works_on_a_store_of_version_1(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    write_version_1(path)
    given = StoredPromise(A, 4, "cyd")
    async with open_database(path) as database:
        await database.write(lambda c: promises.promise(c, given))
        await database.write(lambda c: settings.keep(c, "draining", "1"))
        await database.write(lambda c: invitations.use(c, b"s" * 32, "peer", 1e9))
    async with open_database(path) as database:
        assert await database.read(promises.load) == [given]
        assert await database.read(lambda c: settings.load(c, "draining")) == "1"
        await database.write(lambda c: settings.remove(c, "draining"))
        assert await database.read(lambda c: settings.load(c, "draining")) is None


class PowerCut(BaseException):
    pass


class CutShort(sqlite3.Connection):
    """A connection that dies before the nth statement, without a word to SQLite."""

    left = 0

    def execute(self, statement: str, *arguments: Any) -> sqlite3.Cursor:
        if not CutShort.left:
            raise PowerCut
        CutShort.left -= 1
        return super().execute(statement, *arguments)


@pytest.mark.parametrize("before", [0, 1])
def test_a_migration_that_is_cut_short_is_whole_or_absent(tmp_path: Path, before: int) -> None:
    steps_seen = set()
    for statements in range(40):
        path = tmp_path / f"{statements}.db"
        if before:
            write_version_1(path)
        with closing(sqlite3.connect(path, isolation_level=None, factory=CutShort)) as connection:
            CutShort.left = statements
            try:
                schema.migrate(connection, str(path))
                cut = False
            except PowerCut:
                cut = True
        reached = version(path)
        steps_seen.add(reached)
        with closing(sqlite3.connect(path)) as connection:
            found = {
                name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
            }
        assert ("holding" in found) == (reached >= 1)
        assert ("promise" in found) == ("setting" in found) == (reached >= 2)
        if before:
            assert tables(path) == ROWS
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            schema.migrate(connection, str(path))
        assert version(path) == len(schema.MIGRATIONS)
        if not cut:
            break
    assert not cut
    assert steps_seen == set(range(before, len(schema.MIGRATIONS) + 1))


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b"no database"), Path.unlink])
async def test_a_snapshot_of_version_1_is_migrated_as_it_is_taken_up(
    tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    path = tmp_path / "store.db"
    write_version_1(path)
    path.rename(tmp_path / "store.db.snapshot")
    path.touch()
    spoil(path)
    async with open_database(path) as database:
        assert database.restored_from is not None
        assert [row.key for row in await database.read(manifests.load)] == [A]
        assert await database.read(promises.load) == []
