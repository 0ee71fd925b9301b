"""What SQLite says of the disk, in our words."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sedmad.errors import BytesCorrupt, DiskFull, SedmadError, StoreUnusable
from sedmad.store.disk import disk_space

# The log, or what SQLite remembers of it, grows by so much at once.
LEAST_GROWTH_BYTES = 32 << 10


def typed_error(error: sqlite3.Error, path: Path) -> SedmadError | None:
    """Return what the disk did to the database at `path`, or None for a fault of the statement."""
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_FULL:
            return _full(error, path)
        case sqlite3.SQLITE_IOERR if disk_space(path.parent).free_bytes < LEAST_GROWTH_BYTES:
            # What it says where its shared memory cannot grow, and of a quota.
            return _full(error, path)
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return BytesCorrupt(
                f"The database {path} is damaged",
                why=str(error),
                hint="Start the node again: it takes up the last snapshot and asks the others for the rest.",
            )
        case (
            sqlite3.SQLITE_IOERR
            | sqlite3.SQLITE_CANTOPEN
            | sqlite3.SQLITE_BUSY
            | sqlite3.SQLITE_PERM
            | sqlite3.SQLITE_READONLY
        ):
            return StoreUnusable(f"The database {path} cannot be used", why=str(error))
    return None


def _full(error: sqlite3.Error, path: Path) -> DiskFull:
    free_bytes = disk_space(path.parent).free_bytes
    return DiskFull(
        f"The database {path} cannot grow",
        why=f"{LEAST_GROWTH_BYTES:,} bytes are needed at least, {free_bytes:,} are free ({error}).",
    )
