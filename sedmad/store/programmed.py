"""What this node's crossbars were programmed with: enough to have the same devices again, at their true age.

Lost rows cost time only: the partition is planned and programmed anew.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProgrammedRow:
    """One partition on the devices of this node.

    Attributes:
        digest, rows, columns, dtype: the bytes, and how they are read.
        target_error, demanded: what is asked of products: their error, and the profile or "".
        profile: name of this node's devices; `profile_digest` of all that is said of them.
        engine_version: of what planned and programmed.
        seed: of the devices.
        programmed_at_s: Unix time.
        plan: opaque here.
    """

    digest: bytes
    rows: int
    columns: int
    dtype: str
    target_error: float
    demanded: str
    profile: str
    profile_digest: bytes
    engine_version: int
    seed: int
    programmed_at_s: float
    plan: str


_COLUMNS = (
    "digest, rows, columns, dtype, target_error, demanded, profile, profile_digest, engine_version, seed, "
    "programmed_at_s, plan"
)


def keep(connection: sqlite3.Connection, row: ProgrammedRow) -> None:
    """Keep a row in place of the one of the same partition and target. Copies that are held bound their number."""
    connection.execute(
        f"REPLACE INTO programmed ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - our own columns
        (
            row.digest,
            row.rows,
            row.columns,
            row.dtype,
            row.target_error,
            row.demanded,
            row.profile,
            row.profile_digest,
            row.engine_version,
            row.seed,
            row.programmed_at_s,
            row.plan,
        ),
    )


def forget(connection: sqlite3.Connection, digest: bytes) -> None:
    """Forget what was programmed of these bytes; no error when there is nothing."""
    connection.execute("DELETE FROM programmed WHERE digest = ?", (digest,))


def load(connection: sqlite3.Connection) -> list[ProgrammedRow]:
    """Return all rows."""
    return [ProgrammedRow(*row) for row in connection.execute(f"SELECT {_COLUMNS} FROM programmed")]  # noqa: S608 - our own columns
