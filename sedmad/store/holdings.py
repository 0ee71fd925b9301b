"""The copies that this node holds, and which blobs they still need.

A holding belongs to a group: a put under way, or a matrix. Matrices share blobs by digest, so a blob may go
only when no holding references it. Write these durably, and in this order: a holding before its blob is
written, the blob's deletion after `release`; then a crash leaves at most blobs that nothing references, to be
deleted at start.
"""

from __future__ import annotations

import enum
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from sedmad.errors import LocalError, Overloaded

log = structlog.get_logger("sedmad.holdings")

# 8 TiB in partitions of 8 MiB; the rows are read into memory at start.
MAX_HOLDINGS = 1 << 20


class Kind(enum.StrEnum):
    RESIDENT = "resident"
    STANDBY = "standby"


class State(enum.StrEnum):
    PENDING = "pending"
    """The bytes are on their way, or no manifest names this copy yet."""
    ACTIVE = "active"


@dataclass(frozen=True, slots=True)
class Holding:
    """One copy of one partition. `group_key`: the put's id, or bytes that stand for the matrix's key."""

    group_key: bytes
    partition_index: int
    digest: bytes
    kind: Kind
    size_bytes: int
    state: State


_COLUMNS = "group_key, partition_index, digest, kind, size_bytes, state"


def hold(connection: sqlite3.Connection, holding: Holding) -> None:
    """Add a holding, or change kind and state of the one with the same group and index.

    Raises LocalError when that one has another digest (partitions never change), Overloaded at MAX_HOLDINGS.
    """
    kept = connection.execute(
        "SELECT digest FROM holding WHERE group_key = ? AND partition_index = ?",
        (holding.group_key, holding.partition_index),
    ).fetchone()
    if kept is None:
        (count,) = connection.execute("SELECT count(*) FROM holding").fetchone()
        if count >= MAX_HOLDINGS:
            raise Overloaded("No room for another copy", why=f"{count:,} are held, the most allowed.")
    elif kept[0] != holding.digest:
        raise LocalError(
            f"Partition {holding.partition_index} was given other bytes",
            why=f"It is held with digest {kept[0].hex()}, not {holding.digest.hex()}.",
        )
    connection.execute(
        f"REPLACE INTO holding ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608 - our own columns
        (
            holding.group_key,
            holding.partition_index,
            holding.digest,
            holding.kind,
            holding.size_bytes,
            holding.state,
        ),
    )


def activate(connection: sqlite3.Connection, group_key: bytes, matrix_group_key: bytes) -> None:
    """Make the holdings of a put those of its matrix, and active; what the matrix already held stays.

    The two keys may be one: then the pending copies of a matrix become active.
    """
    if group_key != matrix_group_key:
        connection.execute(
            "UPDATE OR IGNORE holding SET group_key = ? WHERE group_key = ?", (matrix_group_key, group_key)
        )
        connection.execute("DELETE FROM holding WHERE group_key = ?", (group_key,))
    connection.execute("UPDATE holding SET state = ? WHERE group_key = ?", (State.ACTIVE, matrix_group_key))


def release(
    connection: sqlite3.Connection, group_key: bytes, partition_indices: Iterable[int] | None = None
) -> frozenset[bytes]:
    """Remove holdings of a group, all of them without indices; return the digests nothing references now.

    The caller deletes the blobs of those digests.
    """
    removed: set[bytes] = set()
    for index in _indices(connection, group_key) if partition_indices is None else partition_indices:
        removed.update(
            digest
            for (digest,) in connection.execute(
                "DELETE FROM holding WHERE group_key = ? AND partition_index = ? RETURNING digest",
                (group_key, index),
            ).fetchall()
        )
    return frozenset(digest for digest in removed if not _is_referenced(connection, digest))


def load(connection: sqlite3.Connection) -> list[Holding]:
    """Return all holdings, by group and index; one that is damaged is left out and said."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM holding ORDER BY group_key, partition_index"  # noqa: S608 - our own columns
    )
    found = []
    for group_key, index, digest, kind, size_bytes, state in rows:
        try:
            found.append(Holding(group_key, index, digest, Kind(kind), size_bytes, State(state)))
        except ValueError as error:
            # A flipped bit of a value leaves the table sound. The copy is lost, and is taken again as others are.
            log.error("holding_damaged", partition=index, digest=digest.hex()[:16], why=str(error))
    return found


def _indices(connection: sqlite3.Connection, group_key: bytes) -> list[int]:
    rows = connection.execute("SELECT partition_index FROM holding WHERE group_key = ?", (group_key,))
    return [index for (index,) in rows]


def _is_referenced(connection: sqlite3.Connection, digest: bytes) -> bool:
    row = connection.execute("SELECT 1 FROM holding WHERE digest = ? LIMIT 1", (digest,)).fetchone()
    return row is not None
