from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from examples import identity_of
from rig import until

from sedmad.core.membership.advert import Advert
from sedmad.core.membership.claim import Claim
from sedmad.core.membership.record import SignedRecord
from sedmad.errors import DiskFull
from sedmad.node.keeping import RecordKeeper, keep_record, load_records
from sedmad.node.records import sign_record
from sedmad.store import records
from sedmad.store.database import Database, open_database
from sedmad.store.records import RecordKind

ANN = identity_of("ann")
ADVERT = Advert(ANN.peer_id, "ann", 1)
CLAIM = Claim("w", 1, bytes(32), ANN.peer_id, ANN.peer_id, dtype="float32")


def signed(record: Advert | Claim) -> SignedRecord:
    return SignedRecord(record, sign_record(record, ANN))


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path / "store.db") as database:
        yield database


async def kept(database: Database) -> list[Advert | Claim]:
    return [found.record for found in await load_records(database)]


@pytest.fixture
def both_are_kept(database: Database) -> Callable[[], Awaitable[bool]]:
    async def both() -> bool:
        return len(await kept(database)) == 2

    return both


async def test_what_was_told_last_is_known_after_a_restart(
    database: Database, both_are_kept: Callable[[], Awaitable[bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sedmad.node.keeping.GATHER_S", 0.06)
    keeper = RecordKeeper(database)
    async with trio.open_nursery() as nursery:
        await nursery.start(keeper.run)
        keeper.keep([signed(ADVERT), signed(CLAIM)])
        await until(both_are_kept)
        keeper.keep([signed(replace(ADVERT, sequence=2))])
        keeper.keep([signed(replace(ADVERT, sequence=3)), signed(replace(CLAIM, name="v"))])
        # What waits when the node stops is written first.
        nursery.cancel_scope.cancel()
    found = await kept(database)
    assert sorted(record.name for record in found) == ["ann", "v", "w"]
    assert replace(ADVERT, sequence=3) in found


async def test_where_a_node_is_found_is_written_long_before_its_load(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sedmad.node.keeping.GATHER_S", float("inf"))
    keeper = RecordKeeper(database)
    moved = replace(ADVERT, sequence=3, addresses=("/ip4/192.0.2.9/tcp/4101",))

    async def is_kept(advert: Advert) -> bool:
        return await kept(database) == [advert]

    async with trio.open_nursery() as nursery:
        await nursery.start(keeper.run)
        keeper.keep([signed(ADVERT)])
        await until(partial(is_kept, ADVERT))
        keeper.keep([signed(replace(ADVERT, sequence=2))])
        await trio.testing.wait_all_tasks_blocked(0.2)
        assert await kept(database) == [ADVERT]
        keeper.keep([signed(moved)])
        await until(partial(is_kept, moved))
        nursery.cancel_scope.cancel()


async def test_a_damaged_record_is_left_out(database: Database) -> None:
    await database.write(partial(keep_record, signed=signed(CLAIM)))
    put = partial(records.put, kind=RecordKind.CLAIM, key=b"x", signed=signed(CLAIM).signed[:-1])
    await database.write(put)
    assert await kept(database) == [CLAIM]


async def test_what_could_not_be_written_is_written_with_the_next(
    database: Database, both_are_kept: Callable[[], Awaitable[bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sedmad.node.keeping.GATHER_S", 0.06)
    keeper = RecordKeeper(database)
    write, failures = database.write, 1
    until_failed = trio.Event()

    async def fail_once(*args: object, **options: object) -> object:
        nonlocal failures
        if failures:
            failures -= 1
            until_failed.set()
            raise DiskFull("no room")
        return await write(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(database, "write", fail_once)
    async with trio.open_nursery() as nursery:
        await nursery.start(keeper.run)
        keeper.keep([signed(ADVERT)])
        await until_failed.wait()
        assert await kept(database) == []
        keeper.keep([signed(CLAIM)])
        await until(both_are_kept)
        nursery.cancel_scope.cancel()
