"""Puts that this node has begun as owner: what to clean up, here and at the holders, after a restart.

Write these durably: `begin` before the first byte leaves the node, `end` with the manifest or after the
clean-up.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from sedmad.errors import Overloaded

# Far more than one node can stream at the same time.
MAX_PUTS = 1024


@dataclass(frozen=True, slots=True)
class StoredPut:
    """One put under way. `intent` is opaque here; `begun_s` is in Unix seconds."""

    put_id: bytes
    intent: bytes
    begun_s: float


def begin(connection: sqlite3.Connection, put: StoredPut) -> None:
    """Keep the intent, in place of an earlier one with the same id. Raises Overloaded at MAX_PUTS."""
    (others,) = connection.execute("SELECT count(*) FROM put WHERE put_id != ?", (put.put_id,)).fetchone()
    if others >= MAX_PUTS:
        raise Overloaded("Too many matrices are being stored", why=f"{others:,} puts are under way.")
    connection.execute(
        "REPLACE INTO put (put_id, intent, begun_s) VALUES (?, ?, ?)", (put.put_id, put.intent, put.begun_s)
    )


def end(connection: sqlite3.Connection, put_id: bytes) -> None:
    """Forget a put that was committed or cleaned up; no error when there is none."""
    connection.execute("DELETE FROM put WHERE put_id = ?", (put_id,))


def load(connection: sqlite3.Connection) -> list[StoredPut]:
    """Return all puts under way, the oldest first."""
    rows = connection.execute("SELECT put_id, intent, begun_s FROM put ORDER BY begun_s, put_id")
    return [StoredPut(*row) for row in rows]
