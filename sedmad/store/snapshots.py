"""A second copy of the database beside it: taken while the node runs, taken up when the database is damaged.

    store.db.snapshot                 the copy: whole, checked and on disk before it takes the place of the one before
    store.db.restoring                what is about to become the database; it is complete once it has this name
    store.db.restored                 names the damaged file: the database is older than what this node did since
    store.db.damaged-20260131T235959  what was found damaged, with its log beside it

Owns these files and the order in which they change, so that a crash in between loses none. When a snapshot is taken
is decided here, too. Everything that blocks is for worker threads.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sedmad.errors import BytesCorrupt
from sedmad.store.disk import fsync_directory, require_room, writing
from sedmad.store.schema import AFTER_RESTORING, Migration, migrate

T = TypeVar("T")

# Of what was found damaged, the latest are kept: for somebody to look at, not to fill the disk.
DAMAGED_KEPT_MAX = 3
# Durable transactions are promises and manifests: what a snapshot lacks of them must be learned from others.
DURABLE_INTERVAL_S = 60.0
INTERVAL_S = 600.0
# A snapshot of large tables is written for seconds; it may take a twentieth of the time.
SHARE_OF_TIME = 0.05


@dataclass(frozen=True, slots=True)
class Changes:
    """Commits of a database so far, and those of them that were durable."""

    commits: int = 0
    durable_commits: int = 0


def is_due(now: Changes, taken: Changes, *, age_s: float, took_s: float) -> bool:
    """Return whether a snapshot of age `age_s`, which took `took_s` to write, should be replaced."""
    if age_s < took_s / SHARE_OF_TIME:
        return False
    if now.durable_commits > taken.durable_commits:
        return age_s >= DURABLE_INTERVAL_S
    return now.commits > taken.commits and age_s >= INTERVAL_S


def snapshot_path(path: Path) -> Path:
    """Return where the snapshot of the database at `path` lies."""
    return _beside(path, ".snapshot")


def restored_path(path: Path) -> Path:
    """Return the file that is there while the database at `path` is older than what its node did since."""
    return _beside(path, ".restored")


def fault_of(connection: sqlite3.Connection) -> str:
    """Return what is wrong with a database, empty when it is sound. Reads all of it."""
    try:
        (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    except UnicodeDecodeError:
        # What SQLite says of a damaged schema quotes it.
        return "The schema is damaged."
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in (
            sqlite3.SQLITE_CORRUPT,
            sqlite3.SQLITE_NOTADB,
        ):
            raise
        return str(error)
    return "" if found == "ok" else str(found)


def take(path: Path) -> float:
    """Write a snapshot of the database at `path`, beside its other users; return the seconds that it took.

    Raises BytesCorrupt when what was written is not sound, DiskFull; then the snapshot before stays.
    """
    began_s = time.monotonic()
    part = _beside(path, ".snapshot.part")
    needed_bytes = path.stat().st_size
    require_room(path.parent, needed_bytes)
    with writing(part, needed_bytes):
        part.unlink(missing_ok=True)
        _make_private(part)
        with closing(_connect(path)) as connection:
            connection.execute("VACUUM INTO ?", (str(part),))
        with closing(_connect(part)) as copied:
            fault = fault_of(copied)
        if fault:
            part.unlink()
            raise BytesCorrupt(f"The snapshot of the database {path} is not sound", why=fault)
        _fsync(part)
        part.rename(snapshot_path(path))
        fsync_directory(path.parent)
    return time.monotonic() - began_s


def read(path: Path, query: Callable[[sqlite3.Connection], T]) -> T | None:
    """Return what a query finds in the snapshot of the database at `path`; None without one that can be read."""
    if not snapshot_path(path).exists():
        return None
    with closing(_connect(snapshot_path(path))) as connection, suppress(sqlite3.DatabaseError):
        return query(connection)
    return None


def distrust(path: Path) -> None:
    """Note that the tables of the database at `path` lack something, as after a restoration."""
    _write(restored_path(path), path.name)
    fsync_directory(path.parent)


def restore(path: Path, migrations: Sequence[Migration]) -> Path:
    """Put the snapshot in the place of the database at `path`, an empty one where there is none that is sound.

    The database is closed; what it was is kept under another name, which is returned. Raises StoreUnusable when
    the snapshot was written by a newer sedmad, DiskFull.
    """
    _forget_oldest(path)
    with writing(path, path.stat().st_size if path.exists() else 0):
        wall_time_s = _touch(restored_path(path))
        damaged = _beside(path, time.strftime(".damaged-%Y%m%dT%H%M%S", time.gmtime(wall_time_s)))
        _write(restored_path(path), damaged.name)
        _prepare(path, migrations, wall_time_s)
        # From here on `finish` goes on after a crash: first what belongs to the old file, the new one last.
        for suffix in ("-wal", "-shm", ""):
            old = _beside(path, suffix)
            if old.exists():
                old.rename(_beside(damaged, suffix))
        finish(path)
    return damaged


def catch_up(connection: sqlite3.Connection, wall_time_s: float) -> None:
    """Have counters in tables that lost their latest rows go on beyond all that they can have counted."""
    for statement in AFTER_RESTORING:
        connection.execute(statement, {"wall_time_s": int(wall_time_s)})


def finish(path: Path) -> None:
    """Put a database that was prepared in its place; nothing where none is."""
    restoring = _beside(path, ".restoring")
    if not restoring.exists():
        return
    for suffix in ("-wal", "-shm"):
        # A log of the old file would be played into the new one. It is gone unless a crash came in between.
        _beside(path, suffix).unlink(missing_ok=True)
    restoring.rename(path)
    fsync_directory(path.parent)


def _prepare(path: Path, migrations: Sequence[Migration], wall_time_s: float) -> None:
    snapshot, part = snapshot_path(path), _beside(path, ".restoring.part")
    part.unlink(missing_ok=True)
    _make_private(part)
    if snapshot.exists():
        shutil.copyfile(snapshot, part)
        with closing(_connect(part)) as copied:
            if fault_of(copied):
                os.truncate(part, 0)
    with closing(_connect(part)) as copied:
        migrate(copied, str(path), migrations)
        catch_up(copied, wall_time_s)
    _fsync(part)
    part.rename(_beside(path, ".restoring"))
    fsync_directory(path.parent)


def _forget_oldest(path: Path) -> None:
    stamps = sorted({old.name.split("-")[1] for old in path.parent.glob(f"{path.name}.damaged-*")})
    for stamp in stamps[: -DAMAGED_KEPT_MAX + 1]:
        for old in path.parent.glob(f"{path.name}.damaged-{stamp}*"):
            old.unlink()


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _touch(path: Path) -> float:
    """Write to a file; return the time in Unix seconds, by the clock of the file system."""
    _make_private(path)
    os.utime(path)
    return path.stat().st_mtime


def _write(path: Path, text: str) -> None:
    _make_private(path)
    path.write_text(text)
    _fsync(path)


def _make_private(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)
