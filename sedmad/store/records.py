"""Signed gossip records by kind and key: what a node knew of the mesh before it was started again."""

from __future__ import annotations

import enum
import sqlite3

from sedmad.errors import Overloaded

# Of each kind: as many claims as the mesh keeps names, and more adverts than a mesh has nodes.
MAX_RECORDS = 65_536


class RecordKind(enum.StrEnum):
    ADVERT = "advert"
    CLAIM = "claim"

    @property
    def durable(self) -> bool:
        """What to pass to `Database.write`: adverts come again by themselves, claims are promises."""
        return self is RecordKind.CLAIM


def put(connection: sqlite3.Connection, kind: RecordKind, key: bytes, signed: bytes) -> None:
    """Keep a record in place of the one with the same key. Raises Overloaded at MAX_RECORDS of a kind."""
    changed = connection.execute(
        "UPDATE record SET signed = ? WHERE kind = ? AND key = ?", (signed, kind, key)
    ).rowcount
    if changed:
        return
    (count,) = connection.execute("SELECT count(*) FROM record WHERE kind = ?", (kind,)).fetchone()
    if count >= MAX_RECORDS:
        raise Overloaded(f"No room for another {kind}", why=f"{count:,} are kept, the most allowed.")
    connection.execute("INSERT INTO record (kind, key, signed) VALUES (?, ?, ?)", (kind, key, signed))


def remove(connection: sqlite3.Connection, kind: RecordKind, key: bytes) -> None:
    """Forget a record; no error when there is none."""
    connection.execute("DELETE FROM record WHERE kind = ? AND key = ?", (kind, key))


def load(connection: sqlite3.Connection, kind: RecordKind) -> dict[bytes, bytes]:
    """Return the signed bytes of all records of a kind, by key."""
    return dict(connection.execute("SELECT key, signed FROM record WHERE kind = ?", (kind,)).fetchall())
