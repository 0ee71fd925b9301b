"""What this node decided for itself and goes by after a restart: that it drains, how far it scrubbed."""

from __future__ import annotations

import sqlite3


def load(connection: sqlite3.Connection, name: str) -> str | None:
    """Return a value, or None when there is none. `name` is a constant of the program."""
    row = connection.execute("SELECT value FROM setting WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def keep(connection: sqlite3.Connection, name: str, value: str) -> None:
    """Keep a value in place of the one before."""
    connection.execute("REPLACE INTO setting (name, value) VALUES (?, ?)", (name, value))


def remove(connection: sqlite3.Connection, name: str) -> None:
    """Forget a value; no error when there is none."""
    connection.execute("DELETE FROM setting WHERE name = ?", (name,))
