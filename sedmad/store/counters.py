"""Numbers that only grow and never repeat, also over restarts. Write these durably."""

from __future__ import annotations

import sqlite3


def increment(connection: sqlite3.Connection, name: str) -> int:
    """Return the next value of a counter: 1 at first, far more in restored tables. `name` is a constant of ours."""
    (value,) = connection.execute(
        "INSERT INTO counter (name, value)"
        " VALUES (?, 1 + coalesce((SELECT value FROM counter WHERE name = ''), 0))"
        " ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value",
        (name,),
    ).fetchone()
    return int(value)
