"""The tables of the database, as the list of steps that made them. A step that was released is never edited.

Owns `PRAGMA user_version`: its value is the number of steps applied.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from sedmad.errors import StoreUnusable

Migration = Sequence[str]

_FIRST: Migration = (
    """CREATE TABLE manifest (
        matrix_digest BLOB NOT NULL, first_owner TEXT NOT NULL,
        epoch INTEGER NOT NULL, seq INTEGER NOT NULL, signed BLOB NOT NULL, roles INTEGER NOT NULL,
        PRIMARY KEY (matrix_digest, first_owner)) STRICT""",
    """CREATE TABLE tombstone (
        matrix_digest BLOB NOT NULL, first_owner TEXT NOT NULL,
        epoch INTEGER NOT NULL, seq INTEGER NOT NULL, signed BLOB NOT NULL, created_s REAL NOT NULL,
        PRIMARY KEY (matrix_digest, first_owner)) STRICT""",
    "CREATE INDEX tombstone_by_age ON tombstone (created_s)",
    """CREATE TABLE holding (
        group_key BLOB NOT NULL, partition_index INTEGER NOT NULL,
        digest BLOB NOT NULL, kind TEXT NOT NULL, size_bytes INTEGER NOT NULL, state TEXT NOT NULL,
        PRIMARY KEY (group_key, partition_index)) STRICT""",
    "CREATE INDEX holding_by_digest ON holding (digest)",
    """CREATE TABLE record (
        kind TEXT NOT NULL, key BLOB NOT NULL, signed BLOB NOT NULL,
        PRIMARY KEY (kind, key)) STRICT""",
    """CREATE TABLE invitation (
        secret_hash BLOB NOT NULL PRIMARY KEY, expires_s REAL NOT NULL, used_by TEXT, used_s REAL) STRICT""",
    "CREATE TABLE counter (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) STRICT",
    "CREATE TABLE put (put_id BLOB NOT NULL PRIMARY KEY, intent BLOB NOT NULL, begun_s REAL NOT NULL) STRICT",
)

# Ownership that passes on, and what a node decided for itself.
_SECOND: Migration = (
    "ALTER TABLE manifest ADD COLUMN established INTEGER NOT NULL DEFAULT 1",
    """CREATE TABLE promise (
        matrix_digest BLOB NOT NULL, first_owner TEXT NOT NULL,
        epoch INTEGER NOT NULL, candidate TEXT NOT NULL,
        PRIMARY KEY (matrix_digest, first_owner)) STRICT""",
    "CREATE TABLE setting (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) STRICT",
)

# What simulated crossbars were programmed with.
_THIRD: Migration = (
    """CREATE TABLE programmed (
        digest BLOB NOT NULL, rows INTEGER NOT NULL, columns INTEGER NOT NULL, dtype TEXT NOT NULL,
        target_error REAL NOT NULL, demanded TEXT NOT NULL,
        profile TEXT NOT NULL, profile_digest BLOB NOT NULL, engine_version INTEGER NOT NULL,
        seed INTEGER NOT NULL, programmed_at_s REAL NOT NULL, plan TEXT NOT NULL,
        PRIMARY KEY (digest, rows, columns, dtype, target_error, demanded)) STRICT""",
)

MIGRATIONS: Sequence[Migration] = (_FIRST, _SECOND, _THIRD)

# Tables that are older than what their node did since (snapshots.py) must not have it do the same again: what it
# counts goes on far ahead of where it can have been, and whoever was invited is invited anew.
AFTER_RESTORING: Sequence[str] = (
    "INSERT OR IGNORE INTO counter (name, value) VALUES ('', 0)",
    "UPDATE counter SET value = max(value + 65536, :wall_time_s)",
    "DELETE FROM invitation WHERE used_by IS NULL",
)


def migrate(connection: sqlite3.Connection, path: str, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Bring the database to the newest schema, each step whole or not at all.

    Raises StoreUnusable when a newer sedmad wrote it: what an older one does not know, it could destroy.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(migrations):
        raise StoreUnusable(
            f"The database {path} was written by a newer sedmad",
            why=f"Its schema has version {version}; this sedmad knows up to {len(migrations)}.",
            hint="Install that version again, or use another home.",
        )
    for number, steps in enumerate(migrations[version:], start=version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in steps:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
