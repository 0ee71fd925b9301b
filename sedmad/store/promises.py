"""What this node promised as a guardian: of each matrix the greatest epoch, and to whom. Write these durably.

A promise is on disk before it is given: a guardian that forgot one could help two owners into one epoch.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from sedmad.errors import Overloaded, StaleManifest
from sedmad.store.manifests import MAX_MANIFESTS, ManifestKey

# A guardian promises for matrices whose manifest it keeps.
MAX_PROMISES = MAX_MANIFESTS


@dataclass(frozen=True, slots=True)
class StoredPromise:
    """From now on this node refuses manifests of epochs below `epoch`, and of it from all but `candidate`."""

    key: ManifestKey
    epoch: int
    candidate: str


def promise(connection: sqlite3.Connection, given: StoredPromise) -> None:
    """Keep a promise in place of the one before; the same again changes nothing.

    Raises StaleManifest when a later epoch is promised, or this one to another candidate, and Overloaded at
    MAX_PROMISES.
    """
    kept = latest(connection, given.key)
    if kept is None:
        (count,) = connection.execute("SELECT count(*) FROM promise").fetchone()
        if count >= MAX_PROMISES:
            raise Overloaded("No room for another promise", why=f"{count:,} are kept, the most allowed.")
    elif (kept.epoch, kept.candidate) != (given.epoch, given.candidate) and kept.epoch >= given.epoch:
        raise StaleManifest(
            "A vote was refused because it is promised already",
            why=f"Epoch {given.epoch} was asked for {given.candidate};"
            f" epoch {kept.epoch} is promised to {kept.candidate}.",
        )
    connection.execute(
        "REPLACE INTO promise (matrix_digest, first_owner, epoch, candidate) VALUES (?, ?, ?, ?)",
        (given.key.matrix_digest, given.key.first_owner, given.epoch, given.candidate),
    )


def latest(connection: sqlite3.Connection, key: ManifestKey) -> StoredPromise | None:
    """Return what is promised about a matrix."""
    row = connection.execute(
        "SELECT epoch, candidate FROM promise WHERE matrix_digest = ? AND first_owner = ?",
        (key.matrix_digest, key.first_owner),
    ).fetchone()
    return None if row is None else StoredPromise(key, *row)


def load(connection: sqlite3.Connection) -> list[StoredPromise]:
    """Return all promises."""
    rows = connection.execute("SELECT matrix_digest, first_owner, epoch, candidate FROM promise")
    return [StoredPromise(ManifestKey(*row[:2]), *row[2:]) for row in rows]


def purge(connection: sqlite3.Connection) -> int:
    """Forget what was promised about matrices of which neither manifest nor tombstone is kept; return how many."""
    return connection.execute(
        "DELETE FROM promise WHERE (matrix_digest, first_owner) NOT IN"
        " (SELECT matrix_digest, first_owner FROM manifest UNION ALL"
        " SELECT matrix_digest, first_owner FROM tombstone)"
    ).rowcount


def forget(connection: sqlite3.Connection, key: ManifestKey) -> None:
    """Forget what is promised about a matrix that ended: its tombstone refuses more than any promise."""
    connection.execute(
        "DELETE FROM promise WHERE matrix_digest = ? AND first_owner = ?",
        (key.matrix_digest, key.first_owner),
    )
