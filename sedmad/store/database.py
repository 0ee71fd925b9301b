"""One SQLite file in WAL mode: one writer whose waiting transactions share a commit, and reads beside it.

Owns the two connections and when bytes reach the disk; the tables belong to the modules beside it. The event
loop never waits for the disk: everything runs in worker threads.
"""

from __future__ import annotations

import copy
import os
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import structlog
import trio

from sedmad.errors import BytesCorrupt, DiskFull, LocalError, Overloaded, SedmadError, StoreUnusable
from sedmad.store import snapshots, write_ahead_log
from sedmad.store.disk import fsync_directory
from sedmad.store.schema import MIGRATIONS, Migration, migrate
from sedmad.store.snapshots import Changes
from sedmad.store.sqlite_errors import typed_error

log = structlog.get_logger("sedmad.database")

T = TypeVar("T")
# What transactions are given, named here so that other rooms can write them without importing sqlite3.
Connection = sqlite3.Connection
Transaction = Callable[[Connection], T]

# A group takes some 12 ms, so the last of these has waited 50 ms; more of them means that the disk has stopped,
# and callers should hear it.
MAX_WAITING = 1024
# One slow group delays all that come after it: a group of small transactions stays below some 10 ms.
MAX_GROUP = 256
# Another process may look at the file (a backup, the sqlite3 shell); past this it is in the way.
BUSY_TIMEOUT_S = 5.0
# The log shrinks to this after a burst; SQLite's checkpoints keep it near 4 MiB otherwise.
WAL_LIMIT_BYTES = 16 << 20


@dataclass(slots=True, eq=False)
class _Request(Generic[T]):
    """One transaction on its way through the writer, and what became of it."""

    transaction: Transaction[T]
    durable: bool
    begun: bool = False
    finished: bool = False
    result: T | None = None
    error: BaseException | None = None

    def outcome(self) -> T:
        if self.error is not None:
            raise self.error
        return cast(T, self.result)


class Database:
    """The open database. `open_database` makes it.

    A transaction is a function of the connection: it may be run on any thread, must not commit or roll back
    by itself, and must be quick, because all others wait for it.

    Attributes:
        restored_from: where the database was damaged and its snapshot was taken up, or an empty one: the damaged
            file; the database itself where its log or single rows were damaged. What this node promised, kept and
            held since is not in the tables then. Until `reconciled` it
            must free no bytes that the tables do not name, give no promise, and write no manifest before it
            asked others for newer ones.
        damage: what a statement found damaged since it was opened; the next start takes up the snapshot.
        changes: the commits since it was opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.restored_from: Path | None = None
        self.damage: BytesCorrupt | None = None
        self.changes = Changes()
        self._waiting: deque[_Request[Any]] = deque()
        self._turn = trio.Lock()
        self._write_thread = trio.CapacityLimiter(1)
        self._read_thread = trio.CapacityLimiter(1)
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None

    async def write(self, transaction: Transaction[T], *, durable: bool = True) -> T:
        """Run a transaction whole or not at all, and return its result once it is committed.

        Transactions that wait at the same time share one commit, in the order they came; an exception in one
        undoes that one only and is raised here.

        Args:
            transaction: what to do; see the class.
            durable: survive a power cut once this returns (synchronous=FULL). Otherwise it survives the end
                of the process, and a power cut may take the last of these (NORMAL). One durable transaction
                makes its whole group durable.

        A caller that is cancelled before its group began takes its transaction back; after that, the
        transaction goes on without it and stands: as after a crash, look before you repeat.

        Raises DiskFull, BytesCorrupt or StoreUnusable for what the disk did, Overloaded at MAX_WAITING.
        """
        self._refuse_when_overloaded(len(self._waiting))
        request = _Request(transaction, durable)
        self._waiting.append(request)
        try:
            # Whoever comes first commits for all who wait by then; the others find themselves finished.
            async with self._turn:
                while not request.finished:
                    await self._commit_group()
        finally:
            if not request.begun:
                self._waiting.remove(request)
        return request.outcome()

    async def read(self, query: Transaction[T]) -> T:
        """Run a query on one consistent snapshot, beside writes, and return its result.

        It sees all that was committed before, and may not write (StoreUnusable). Raises as `write`.
        """
        self._refuse_when_overloaded(self._read_thread.statistics().tasks_waiting)
        return await trio.to_thread.run_sync(self._read, query, limiter=self._read_thread)

    def open(self, migrations: Sequence[Migration]) -> None:
        """Open both connections and migrate, restored first where it is damaged; for a worker thread, once."""
        with self._translating_errors():
            snapshots.finish(self.path)
            fault, lost_frames = self._examine()
            if fault:
                damaged = snapshots.restore(self.path, migrations)
                log.error("database_damaged", path=str(self.path), why=fault, kept_as=str(damaged))
            elif lost_frames:
                # What stands may be newer than the snapshot: it stays, and what it lacks is for others to tell.
                snapshots.distrust(self.path)
                log.error("database_log_damaged", path=str(self.path), lost_frames=lost_frames)
            restored = snapshots.restored_path(self.path)
            if restored.exists():
                self.restored_from = self.path.with_name(restored.read_text())
            self._create_file()
            self._writer = self._connect()
            self._writer.execute("PRAGMA journal_mode = WAL")
            self._writer.execute("PRAGMA synchronous = FULL")
            self._writer.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
            migrate(self._writer, str(self.path), migrations)
            if lost_frames and not fault:
                snapshots.catch_up(self._writer, restored.stat().st_mtime)
            fsync_directory(self.path.parent)
            self._reader = self._connect()
            self._reader.execute("PRAGMA query_only = ON")

    async def read_snapshot(self, query: Transaction[T]) -> T | None:
        """Return what a query finds in the snapshot, None without one that can be read."""
        return await trio.to_thread.run_sync(snapshots.read, self.path, query)

    async def distrust(self) -> None:
        """Note that rows were found damaged and left out: until `reconciled`, it is as if all were restored."""
        await trio.to_thread.run_sync(snapshots.distrust, self.path, limiter=self._write_thread)
        self.restored_from = self.path

    async def reconciled(self) -> None:
        """Note that this node has learned from others what the tables lacked since they were restored."""
        await trio.to_thread.run_sync(self._forget_restoring, limiter=self._write_thread)
        self.restored_from = None

    async def snapshot(self) -> float:
        """Write the snapshot anew, beside reads and writes; return the seconds that it took.

        Raises BytesCorrupt when the database turns out damaged, DiskFull; the snapshot before stays.
        """
        return await trio.to_thread.run_sync(self._snapshot)

    async def close(self) -> None:
        """Close both connections after what waits by now; a later use raises LocalError."""
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._close_reader, limiter=self._read_thread)
            async with self._turn:
                # The last connection to go merges the log into the file.
                await trio.to_thread.run_sync(self._close_writer, limiter=self._write_thread)

    async def _commit_group(self) -> None:
        group = list(islice(self._waiting, MAX_GROUP))
        for request in group:
            self._waiting.popleft()
            request.begun = True
        with trio.CancelScope(shield=True):  # the group belongs to others too
            await trio.to_thread.run_sync(self._commit, group, limiter=self._write_thread)

    def _commit(self, group: list[_Request[Any]]) -> None:
        try:
            with self._translating_errors():
                self._run(self._connected(self._writer), group)
        except BaseException as error:
            # Nothing of the group is on the disk: the transactions that went well have failed too.
            for request in group:
                if request.error is None:
                    request.error = self._undone(error)
            self._make_room(error)
        finally:
            for request in group:
                request.finished = True

    def _make_room(self, error: BaseException) -> None:
        """Merge the log, which may be what fills the disk: SQLite does so after a commit only."""
        if isinstance(error, DiskFull) and self._writer is not None:
            with suppress(sqlite3.Error):
                self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _run(self, connection: sqlite3.Connection, group: list[_Request[Any]]) -> None:
        durable = any(request.durable for request in group)
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        connection.execute("BEGIN IMMEDIATE")
        try:
            for request in group:
                self._apply(connection, request)
            connection.execute("COMMIT")
            self.changes = Changes(self.changes.commits + 1, self.changes.durable_commits + durable)
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _apply(self, connection: sqlite3.Connection, request: _Request[Any]) -> None:
        connection.execute("SAVEPOINT one")
        try:
            with self._translating_errors():
                request.result = request.transaction(connection)
        except BaseException as error:
            request.error = error
            if not connection.in_transaction:
                raise  # SQLite itself undid the whole group, as it may when the disk is full
            connection.execute("ROLLBACK TO one")
        connection.execute("RELEASE one")

    def _read(self, query: Transaction[T]) -> T:
        connection = self._connected(self._reader)
        with self._translating_errors():
            connection.execute("BEGIN")
            try:
                return query(connection)
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def _examine(self) -> tuple[str, int]:
        """Return what is wrong with the file, empty when it is sound or new, and how many frames its log lost."""
        if not self.path.exists() or not self.path.stat().st_size:
            return "It is empty or gone." if snapshots.snapshot_path(self.path).exists() else "", 0
        committed = write_ahead_log.committed_frames(self.path)
        with closing(self._connect()) as connection:
            fault = snapshots.fault_of(connection)
            lost_frames = max(0, committed - write_ahead_log.frames_taken(connection)) if not fault else 0
            return fault, lost_frames

    def _snapshot(self) -> float:
        with self._translating_errors():
            return snapshots.take(self.path)

    def _forget_restoring(self) -> None:
        snapshots.restored_path(self.path).unlink(missing_ok=True)
        fsync_directory(self.path.parent)

    def _create_file(self) -> None:
        # SQLite gives its -wal and -shm files the mode of this one.
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise StoreUnusable(
                f"The database {self.path} cannot be opened", why=str(error.strerror)
            ) from error

    def _connect(self) -> sqlite3.Connection:
        # The threads take turns; isolation_level=None leaves BEGIN and COMMIT to us.
        connection = sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        # A damaged text is no reason to read nothing of its table.
        connection.text_factory = lambda data: data.decode(errors="replace")
        return connection

    def _connected(self, connection: sqlite3.Connection | None) -> sqlite3.Connection:
        if connection is None:
            raise LocalError(f"The database {self.path} was used after it was closed")
        return connection

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    @contextmanager
    def _translating_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            typed = typed_error(error, self.path)
            if typed is None:
                raise
            if isinstance(typed, BytesCorrupt):
                self.damage = typed
            raise typed from error

    def _undone(self, error: BaseException) -> SedmadError:
        """Return the error for one transaction of a group that failed; tasks must not share an instance."""
        undone = (
            copy.copy(error)
            if isinstance(error, SedmadError)
            else LocalError(f"The database {self.path} undid a group of transactions", why=repr(error))
        )
        undone.__cause__ = error
        return undone

    def _refuse_when_overloaded(self, waiting: int) -> None:
        if waiting >= MAX_WAITING:
            raise Overloaded("The database does not keep up", why=f"{waiting} requests wait for the disk.")


@asynccontextmanager
async def open_database(path: Path, migrations: Sequence[Migration] = MIGRATIONS) -> AsyncIterator[Database]:
    """Open the database at `path`, made with mode 0600 when it is missing, for the length of the block.

    A damaged one is put aside and its snapshot taken up, see `Database.restored_from`. Raises StoreUnusable (written
    by a newer sedmad, not permitted), DiskFull.
    """
    database = Database(path)
    try:
        await trio.to_thread.run_sync(database.open, migrations)
        yield database
    finally:
        await database.close()
