"""Manifests and tombstones by (matrix digest, first owner): of each key the newest one, and only that.

The order of (epoch, seq) is kept here, inside the transaction, so that no race lets an older manifest back
in. Only a tombstone ends a manifest. The signed bytes are opaque: whoever calls has checked them. Write these
durably.
"""

from __future__ import annotations

import enum
import sqlite3
from dataclasses import dataclass

from sedmad.errors import Overloaded, StaleManifest

# As many as the mesh keeps names.
MAX_MANIFESTS = 65_536
# Every name removed and stored again four times within the life of a tombstone.
MAX_TOMBSTONES = 4 * MAX_MANIFESTS
# A node that was away for longer reconciles every holding before it serves, so it needs no tombstones.
TOMBSTONE_LIFE_S = 90 * 86_400.0


class Role(enum.IntFlag):
    """Why this node keeps a manifest."""

    NONE = 0
    OWNER = 1
    GUARDIAN = 2
    HOLDER = 4


@dataclass(frozen=True, slots=True)
class ManifestKey:
    """Which matrix: its digest, and the peer id of the node that stored it first."""

    matrix_digest: bytes
    first_owner: str


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """`established`: most of its guardians keep it, so that it may make this node free bytes."""

    key: ManifestKey
    epoch: int
    seq: int
    signed: bytes
    roles: Role
    established: bool = True

    @property
    def order(self) -> tuple[int, int]:
        return (self.epoch, self.seq)


@dataclass(frozen=True, slots=True)
class StoredTombstone:
    key: ManifestKey
    epoch: int
    seq: int
    signed: bytes
    created_s: float

    @property
    def order(self) -> tuple[int, int]:
        return (self.epoch, self.seq)


_COLUMNS = "matrix_digest, first_owner, epoch, seq, signed, roles, established"


def put(connection: sqlite3.Connection, manifest: StoredManifest) -> None:
    """Keep `manifest` as the newest of its key; it ends an older tombstone.

    The same bytes again may change the roles; what was established stays so. Raises StaleManifest when
    something of the same or a newer (epoch, seq) is kept, Overloaded at MAX_MANIFESTS.
    """
    kept = latest(connection, manifest.key)
    established = manifest.established
    if kept is None:
        _refuse_when_full(connection, "manifest", MAX_MANIFESTS)
    elif kept.order > manifest.order or (kept.order == manifest.order and kept.signed != manifest.signed):
        raise _stale("manifest", manifest.order, kept.order)
    elif kept.order == manifest.order:
        established |= kept.established
    tombstone = latest_tombstone(connection, manifest.key)
    if tombstone is not None and tombstone.order >= manifest.order:
        raise _stale("tombstone", manifest.order, tombstone.order)
    connection.execute("DELETE FROM tombstone WHERE matrix_digest = ? AND first_owner = ?", _of(manifest.key))
    connection.execute(
        f"REPLACE INTO manifest ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - our own columns
        (
            *_of(manifest.key),
            manifest.epoch,
            manifest.seq,
            manifest.signed,
            int(manifest.roles),
            int(established),
        ),
    )


def establish(connection: sqlite3.Connection, key: ManifestKey, order: tuple[int, int]) -> bool:
    """Note that most guardians keep the manifest of `order`; False when another is kept here, or none."""
    return bool(
        connection.execute(
            "UPDATE manifest SET established = 1"
            " WHERE matrix_digest = ? AND first_owner = ? AND epoch = ? AND seq = ?",
            (*_of(key), *order),
        ).rowcount
    )


def latest(connection: sqlite3.Connection, key: ManifestKey) -> StoredManifest | None:
    """Return the manifest of a key, or None when there is none or it is deleted."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM manifest WHERE matrix_digest = ? AND first_owner = ?",  # noqa: S608 - our own columns
        _of(key),
    ).fetchone()
    return None if row is None else _manifest(row)


def load(connection: sqlite3.Connection) -> list[StoredManifest]:
    """Return all manifests."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM manifest")  # noqa: S608 - our own columns
    return [_manifest(row) for row in rows]


def drop(connection: sqlite3.Connection, key: ManifestKey) -> None:
    """Forget a manifest whose bytes are damaged, so that the same one may come again; nothing else ends one so."""
    connection.execute("DELETE FROM manifest WHERE matrix_digest = ? AND first_owner = ?", _of(key))


def bury(connection: sqlite3.Connection, tombstone: StoredTombstone) -> None:
    """Delete the manifest of a key and keep its tombstone; the same one again changes nothing.

    Raises StaleManifest when the manifest or a tombstone is newer, Overloaded at MAX_TOMBSTONES.
    """
    manifest = latest(connection, tombstone.key)
    if manifest is not None and manifest.order > tombstone.order:
        raise _stale("manifest", tombstone.order, manifest.order)
    kept = latest_tombstone(connection, tombstone.key)
    if kept is None:
        _refuse_when_full(connection, "tombstone", MAX_TOMBSTONES)
    elif kept.order > tombstone.order:
        raise _stale("tombstone", tombstone.order, kept.order)
    elif kept.order == tombstone.order:
        return
    connection.execute("DELETE FROM manifest WHERE matrix_digest = ? AND first_owner = ?", _of(tombstone.key))
    connection.execute(
        "REPLACE INTO tombstone (matrix_digest, first_owner, epoch, seq, signed, created_s)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (*_of(tombstone.key), tombstone.epoch, tombstone.seq, tombstone.signed, tombstone.created_s),
    )


def latest_tombstone(connection: sqlite3.Connection, key: ManifestKey) -> StoredTombstone | None:
    """Return the tombstone of a key that was deleted and not stored again."""
    row = connection.execute(
        "SELECT epoch, seq, signed, created_s FROM tombstone WHERE matrix_digest = ? AND first_owner = ?",
        _of(key),
    ).fetchone()
    return None if row is None else StoredTombstone(key, *row)


def load_tombstones(connection: sqlite3.Connection) -> list[StoredTombstone]:
    """Return all tombstones."""
    rows = connection.execute(
        "SELECT matrix_digest, first_owner, epoch, seq, signed, created_s FROM tombstone"
    )
    return [StoredTombstone(ManifestKey(*row[:2]), *row[2:]) for row in rows]


def purge_tombstones(connection: sqlite3.Connection, now_s: float) -> int:
    """Forget the tombstones older than TOMBSTONE_LIFE_S; return how many. `now_s`: Unix seconds."""
    return connection.execute(
        "DELETE FROM tombstone WHERE created_s < ?", (now_s - TOMBSTONE_LIFE_S,)
    ).rowcount


def _manifest(row: tuple[bytes, str, int, int, bytes, int, int]) -> StoredManifest:
    digest, first_owner, epoch, seq, signed, roles, established = row
    return StoredManifest(
        ManifestKey(digest, first_owner), epoch, seq, signed, Role(roles), bool(established)
    )


def _of(key: ManifestKey) -> tuple[bytes, str]:
    return (key.matrix_digest, key.first_owner)


def _stale(kept: str, offered: tuple[int, int], newest: tuple[int, int]) -> StaleManifest:
    return StaleManifest(
        "A manifest or tombstone was refused because it is not newer than what is kept",
        why=f"It has (epoch, seq) {offered}; the {kept} kept here has {newest}.",
    )


def _refuse_when_full(connection: sqlite3.Connection, table: str, most: int) -> None:
    (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 - our own names
    if count >= most:
        raise Overloaded(f"No room for another {table}", why=f"{count:,} are kept, the most allowed.")
