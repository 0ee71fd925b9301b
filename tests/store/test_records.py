"""Gossip records, invitations, counters and puts: the small tables."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from sedmad.errors import Overloaded, TokenExpired, TokenInvalid, TokenUsed
from sedmad.store import counters, invitations, puts, records
from sedmad.store.database import Database, open_database
from sedmad.store.puts import StoredPut
from sedmad.store.records import RecordKind
from sedmad.store.schema import migrate

DAY_S = 86_400.0
SECRET_HASH = bytes(range(32))


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection, ":memory:")
    yield connection
    connection.close()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "store.db") as opened:
        yield opened


def test_records_are_replaced_by_key_and_apart_by_kind(connection: sqlite3.Connection) -> None:
    records.put(connection, RecordKind.ADVERT, b"node", b"first")
    records.put(connection, RecordKind.ADVERT, b"node", b"second")
    records.put(connection, RecordKind.CLAIM, b"node", b"claim")
    assert records.load(connection, RecordKind.ADVERT) == {b"node": b"second"}
    records.remove(connection, RecordKind.ADVERT, b"node")
    records.remove(connection, RecordKind.ADVERT, b"node")
    assert records.load(connection, RecordKind.ADVERT) == {}
    assert records.load(connection, RecordKind.CLAIM) == {b"node": b"claim"}


def test_records_are_bounded_for_each_kind(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MAX_RECORDS", 1)
    for kind in RecordKind:
        records.put(connection, kind, b"a", b"")
        with pytest.raises(Overloaded):
            records.put(connection, kind, b"b", b"")
        records.put(connection, kind, b"a", b"replaced")


def test_claims_are_promises_and_adverts_are_not() -> None:
    assert RecordKind.CLAIM.durable
    assert not RecordKind.ADVERT.durable


def test_a_token_admits_one_peer_however_often_it_asks(connection: sqlite3.Connection) -> None:
    invitations.add(connection, SECRET_HASH, expires_s=100.0, now_s=0.0)
    invitations.use(connection, SECRET_HASH, "peer", now_s=99.0)
    invitations.use(connection, SECRET_HASH, "peer", now_s=99.5)
    invitations.use(
        connection, SECRET_HASH, "peer", now_s=1000.0
    )  # the answer was lost, and it took its time
    with pytest.raises(TokenUsed):
        invitations.use(connection, SECRET_HASH, "another", now_s=99.0)


def test_expired_and_unknown_tokens_are_refused(connection: sqlite3.Connection) -> None:
    invitations.add(connection, SECRET_HASH, expires_s=100.0, now_s=0.0)
    with pytest.raises(TokenExpired):
        invitations.use(connection, SECRET_HASH, "peer", now_s=100.0)
    with pytest.raises(TokenInvalid):
        invitations.use(connection, bytes(32), "peer", now_s=0.0)


def test_closed_invitations_are_forgotten_late(connection: sqlite3.Connection) -> None:
    invitations.add(connection, SECRET_HASH, expires_s=DAY_S, now_s=0.0)
    invitations.purge(connection, now_s=7 * DAY_S)
    with pytest.raises(TokenExpired):
        invitations.use(connection, SECRET_HASH, "peer", now_s=7 * DAY_S)
    invitations.purge(connection, now_s=8 * DAY_S + 1)
    with pytest.raises(TokenInvalid):
        invitations.use(connection, SECRET_HASH, "peer", now_s=8 * DAY_S)


def test_open_invitations_are_bounded_and_used_or_expired_ones_make_room(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invitations, "MAX_OPEN", 2)
    invitations.add(connection, b"a", expires_s=10.0, now_s=0.0)
    invitations.add(connection, b"b", expires_s=20.0, now_s=0.0)
    with pytest.raises(Overloaded):
        invitations.add(connection, b"c", expires_s=20.0, now_s=9.0)
    invitations.add(connection, b"c", expires_s=20.0, now_s=10.0)
    invitations.use(connection, b"b", "peer", now_s=11.0)
    invitations.add(connection, b"d", expires_s=20.0, now_s=11.0)


def test_closed_invitations_are_bounded_and_the_newest_stay(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invitations, "MAX_CLOSED", 2)
    for used_s in range(4):
        invitations.add(connection, bytes([used_s]), expires_s=100.0, now_s=0.0)
        invitations.use(connection, bytes([used_s]), "peer", now_s=float(used_s))
    invitations.add(connection, b"open", expires_s=100.0, now_s=5.0)
    for used_s, error in enumerate((TokenInvalid, TokenInvalid, TokenUsed, TokenUsed)):
        with pytest.raises(error):
            invitations.use(connection, bytes([used_s]), "another", now_s=6.0)
    invitations.use(connection, b"open", "peer", now_s=6.0)


async def test_of_many_peers_at_once_one_is_admitted(database: Database) -> None:
    await database.write(lambda c: invitations.add(c, SECRET_HASH, 100.0, 0.0))
    admitted: list[str] = []

    async def join(peer_id: str) -> None:
        try:
            await database.write(lambda c: invitations.use(c, SECRET_HASH, peer_id, 1.0))
        except TokenUsed:
            return
        admitted.append(peer_id)

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(join, f"peer {number}")
    assert len(admitted) == 1


async def test_counters_grow_over_restarts(tmp_path: Path) -> None:
    for expected in (1, 2, 3):
        async with open_database(tmp_path / "store.db") as database:
            assert await database.write(lambda c: counters.increment(c, "boot")) == expected
            assert await database.write(lambda c: counters.increment(c, f"other {expected}")) == 1  # noqa: B023


def test_puts_under_way_are_listed_until_they_end(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(puts, "MAX_PUTS", 2)
    older, newer = StoredPut(b"b", b"intent", 1.0), StoredPut(b"a", b"intent", 2.0)
    puts.begin(connection, newer)
    puts.begin(connection, older)
    puts.begin(connection, older)
    with pytest.raises(Overloaded):
        puts.begin(connection, StoredPut(b"c", b"", 3.0))
    assert puts.load(connection) == [older, newer]
    puts.end(connection, older.put_id)
    puts.end(connection, older.put_id)
    assert puts.load(connection) == [newer]
