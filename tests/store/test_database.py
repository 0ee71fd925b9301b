from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
import trio
import trio.testing

from sedmad.errors import BytesCorrupt, DiskFull, LocalError, Overloaded, StoreUnusable
from sedmad.store import database as database_module
from sedmad.store.database import Database, open_database
from sedmad.store.schema import MIGRATIONS

TABLE = (("CREATE TABLE word (text TEXT NOT NULL PRIMARY KEY) STRICT",),)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "store.db", TABLE) as opened:
        yield opened


def insert(connection: sqlite3.Connection, word: str) -> str:
    connection.execute("INSERT INTO word VALUES (?)", (word,))
    return word


def words(connection: sqlite3.Connection) -> list[str]:
    return [text for (text,) in connection.execute("SELECT text FROM word ORDER BY text")]


class Gate:
    """A transaction that holds the writer until it is opened, so that others must wait for it."""

    def __init__(self) -> None:
        self.entered = trio.Event()
        self.token = trio.lowlevel.current_trio_token()
        self.opened = threading.Event()

    def __call__(self, connection: sqlite3.Connection) -> None:
        self.token.run_sync_soon(self.entered.set)
        self.opened.wait()


async def test_write_returns_the_result_and_read_sees_it(database: Database) -> None:
    assert await database.write(lambda connection: insert(connection, "one")) == "one"
    assert await database.write(lambda connection: insert(connection, "two"), durable=False) == "two"
    assert await database.read(words) == ["one", "two"]


async def test_it_survives_closing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with open_database(path, TABLE) as database:
        await database.write(lambda connection: insert(connection, "kept"), durable=False)
    async with open_database(path, TABLE) as database:
        assert await database.read(words) == ["kept"]


async def test_only_the_owner_may_read_the_files(database: Database) -> None:
    await database.write(lambda connection: insert(connection, "secret"))
    names = {path.name for path in database.path.parent.iterdir()}
    assert {"store.db", "store.db-wal"} <= names
    for name in names:
        assert stat.S_IMODE((database.path.parent / name).stat().st_mode) == 0o600


async def test_an_exception_undoes_only_its_own_transaction(database: Database) -> None:
    gate = Gate()
    outcomes: dict[str, str] = {}

    async def write(word: str, fault: Exception | None) -> None:
        def transaction(connection: sqlite3.Connection) -> None:
            insert(connection, word)
            if fault is not None:
                raise fault

        try:
            await database.write(transaction)
        except (ZeroDivisionError, sqlite3.IntegrityError) as error:
            outcomes[word] = type(error).__name__
        else:
            outcomes[word] = "committed"

    async with trio.open_nursery() as nursery:
        nursery.start_soon(database.write, gate)
        await gate.entered.wait()
        nursery.start_soon(write, "a", None)
        nursery.start_soon(write, "b", ZeroDivisionError())
        nursery.start_soon(write, "c", None)
        await trio.testing.wait_all_tasks_blocked()
        gate.opened.set()
    await write("a", None)  # the primary key is taken
    assert outcomes == {"a": "IntegrityError", "b": "ZeroDivisionError", "c": "committed"}
    assert await database.read(words) == ["a", "c"]


async def test_waiting_transactions_share_a_commit_in_their_order(database: Database) -> None:
    statements: list[str] = []
    gate = Gate()
    order: list[int] = []

    def appending(number: int) -> database_module.Transaction[None]:
        return lambda connection: order.append(number)

    await database.write(lambda connection: connection.set_trace_callback(statements.append))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(database.write, gate)
        await gate.entered.wait()
        for number in range(50):
            nursery.start_soon(database.write, appending(number))
            await trio.testing.wait_all_tasks_blocked()
        statements.clear()
        gate.opened.set()
    assert order == list(range(50))
    assert statements.count("COMMIT") == 2  # the gate's own, and one for all who waited


@pytest.mark.parametrize(("durable", "level"), [((False, False), 1), ((False, True), 2), ((True, True), 2)])
async def test_one_durable_transaction_makes_the_commit_full(
    database: Database, durable: tuple[bool, bool], level: int
) -> None:
    gate = Gate()
    levels: list[int] = []

    def look(connection: sqlite3.Connection) -> None:
        levels.append(connection.execute("PRAGMA synchronous").fetchone()[0])

    async def write(durable: bool) -> None:
        await database.write(look, durable=durable)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(database.write, gate)
        await gate.entered.wait()
        for each in durable:
            nursery.start_soon(write, each)
        await trio.testing.wait_all_tasks_blocked()
        gate.opened.set()
    assert levels == [level, level]


async def test_more_than_a_group_are_committed_all(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "MAX_GROUP", 3)
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(database.write, lambda c, n=number: insert(c, f"{n:02}"))
    assert await database.read(words) == [f"{number:02}" for number in range(20)]


async def test_cancelled_before_its_turn_a_transaction_is_taken_back(database: Database) -> None:
    gate = Gate()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(database.write, gate)
        await gate.entered.wait()
        with trio.CancelScope() as scope:
            scope.cancel()
            await database.write(lambda connection: insert(connection, "cancelled"))
        async with trio.open_nursery() as waiting:
            waiting.start_soon(database.write, lambda connection: insert(connection, "also cancelled"))
            await trio.testing.wait_all_tasks_blocked()
            waiting.cancel_scope.cancel()
        gate.opened.set()
    await database.write(lambda connection: insert(connection, "next"))
    assert await database.read(words) == ["next"]


async def test_cancelled_in_its_turn_a_transaction_stands_and_others_go_on(database: Database) -> None:
    gate = Gate()

    def slowly(connection: sqlite3.Connection) -> None:
        insert(connection, "stands")
        gate(connection)

    async with trio.open_nursery() as others, trio.open_nursery() as nursery:
        nursery.start_soon(database.write, slowly)
        await gate.entered.wait()
        others.start_soon(database.write, lambda connection: insert(connection, "waited"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        gate.opened.set()
    assert await database.read(words) == ["stands", "waited"]


async def test_cancelling_the_whole_database_commits_what_had_begun(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with trio.CancelScope() as scope:
        async with open_database(path, TABLE) as database, trio.open_nursery() as nursery:
            gate = Gate()

            def slowly(connection: sqlite3.Connection) -> None:
                insert(connection, "begun")
                gate(connection)

            nursery.start_soon(database.write, slowly)
            await gate.entered.wait()
            scope.cancel()
            gate.opened.set()
    async with open_database(path, TABLE) as database:
        assert await database.read(words) == ["begun"]


async def test_the_queue_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "MAX_WAITING", 2)
    gate = Gate()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(database.write, gate)
        await gate.entered.wait()
        for word in ("a", "b"):
            nursery.start_soon(database.write, lambda c, w=word: insert(c, w))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Overloaded):
            await database.write(lambda connection: insert(connection, "c"))
        gate.opened.set()
    assert await database.read(words) == ["a", "b"]


async def test_reads_go_on_beside_a_write_and_see_what_is_committed(database: Database) -> None:
    gate = Gate()

    def uncommitted(connection: sqlite3.Connection) -> None:
        insert(connection, "soon")
        gate(connection)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(database.write, uncommitted)
        await gate.entered.wait()
        assert await database.read(words) == []
        gate.opened.set()
    assert await database.read(words) == ["soon"]


async def test_a_read_may_not_write_and_may_fail(database: Database) -> None:
    with pytest.raises(StoreUnusable, match="readonly"):
        await database.read(lambda connection: insert(connection, "no"))
    with pytest.raises(ZeroDivisionError):
        await database.read(lambda connection: 1 / 0)
    assert await database.read(words) == []


async def test_a_full_disk_fails_who_needs_room_and_loses_nothing(database: Database) -> None:
    await database.write(lambda connection: insert(connection, "before"))
    pages = await database.write(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    await database.write(
        lambda connection: connection.execute(f"PRAGMA max_page_count = {pages + 2}").close()
    )
    with pytest.raises(DiskFull, match="cannot grow"):
        await database.write(lambda connection: insert(connection, "x" * 100_000))
    await database.write(lambda connection: insert(connection, "after"))
    assert await database.read(words) == ["after", "before"]


async def test_a_group_that_sqlite_undoes_fails_for_all_of_it(database: Database) -> None:
    gate = Gate()
    failures: list[BaseException] = []

    def undoing(connection: sqlite3.Connection) -> None:
        connection.execute("ROLLBACK")  # what SQLite does by itself on some errors of the disk
        raise DiskFull("no room")

    async def write(transaction: database_module.Transaction[object]) -> None:
        try:
            await database.write(transaction)
        except DiskFull as error:
            failures.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(database.write, gate)
        await gate.entered.wait()
        for transaction in (lambda c: insert(c, "a"), undoing, lambda c: insert(c, "b")):
            nursery.start_soon(write, transaction)
            await trio.testing.wait_all_tasks_blocked()
        gate.opened.set()
    assert len({id(failure) for failure in failures}) == 3
    assert await database.write(lambda connection: insert(connection, "c")) == "c"
    assert await database.read(words) == ["c"]


async def test_use_after_closing_is_our_bug(tmp_path: Path) -> None:
    async with open_database(tmp_path / "store.db", TABLE) as database:
        pass
    with pytest.raises(LocalError):
        await database.write(words)
    with pytest.raises(LocalError):
        await database.read(words)


async def test_migrations_are_applied_once_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with open_database(path, TABLE) as database:
        await database.write(lambda connection: insert(connection, "old"))
    grown = (*TABLE, ("ALTER TABLE word ADD COLUMN length INTEGER", "UPDATE word SET length = length(text)"))
    for _ in range(2):
        async with open_database(path, grown) as database:
            assert await database.read(lambda c: c.execute("SELECT * FROM word").fetchall()) == [("old", 3)]


async def test_a_failing_migration_leaves_the_schema_before(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with open_database(path, TABLE):
        pass
    with pytest.raises(sqlite3.OperationalError):
        async with open_database(path, (*TABLE, ("CREATE TABLE half (x)", "not a statement"))):
            pass
    async with open_database(path, TABLE) as database:
        assert await database.read(words) == []
        tables = await database.read(lambda c: c.execute("SELECT name FROM sqlite_schema").fetchall())
    assert ("half",) not in tables


async def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with open_database(path, (*TABLE, ("CREATE TABLE later (x)",))):
        pass
    before = path.read_bytes()
    with pytest.raises(StoreUnusable, match="newer") as caught:
        async with open_database(path, TABLE):
            pass
    assert str(path) in caught.value.what
    assert caught.value.exit_code == os.EX_CONFIG
    assert path.read_bytes() == before


async def test_damage_found_by_a_statement_is_named_and_noted(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with open_database(path, TABLE) as database:
        await database.write(lambda c: [insert(c, f"{n:04}" * 50) for n in range(1000)])
        with closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        with path.open("r+b") as file:
            file.seek(2 * 4096)
            file.write(os.urandom(40 * 4096))
        assert database.damage is None
        with pytest.raises(BytesCorrupt, match="is damaged"):
            await database.read(lambda c: c.execute("PRAGMA integrity_check").fetchall() and words(c))
        assert database.damage is not None


async def test_a_path_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="missing"):
        async with open_database(tmp_path / "missing" / "store.db"):
            pass


async def test_the_real_schema_opens(tmp_path: Path) -> None:
    for _ in range(2):
        async with open_database(tmp_path / "store.db") as database:
            version = await database.read(lambda c: c.execute("PRAGMA user_version").fetchone()[0])
            assert version == len(MIGRATIONS)
