"""Numbers that only grow and never repeat, also over restarts. Write these durably."""

from __future__ import annotations

import sqlite3


def increment(connection: sqlite3.Connection, name: str) -> int:
    """Return the next value of a counter: 1 at first. `name` is a constant of the program."""
    (value,) = connection.execute(
        "INSERT INTO counter (name, value) VALUES (?, 1)"
        " ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value",
        (name,),
    ).fetchone()
    return int(value)
