"""A damaged database: its snapshot is taken up, what was damaged is kept, and the node is told."""

from __future__ import annotations

import math
import os
import random
import shutil
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sedmad.errors import BytesCorrupt, DiskFull, TokenInvalid
from sedmad.store import counters, invitations, manifests, snapshots
from sedmad.store.database import Database, open_database
from sedmad.store.manifests import ManifestKey, Role, StoredManifest
from sedmad.store.snapshots import (
    DAMAGED_KEPT_MAX,
    DURABLE_INTERVAL_S,
    INTERVAL_S,
    Changes,
    is_due,
    restored_path,
    snapshot_path,
)
from sedmad.store.snapshotting import keep_snapshots

PAGE = 4096
# Of the write-ahead log, in bytes.
LOG_HEADER, FRAME_HEADER = 32, 24
FRAME = FRAME_HEADER + PAGE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def manifest(number: int) -> StoredManifest:
    return StoredManifest(ManifestKey(number.to_bytes(32, "big"), "peer"), 0, 0, bytes(900), Role.HOLDER)


async def keep(database: Database, *numbers: int) -> None:
    for number in numbers:
        await database.write(partial(manifests.put, manifest=manifest(number)))


async def kept(database: Database) -> set[int]:
    rows = await database.read(manifests.load)
    return {int.from_bytes(row.key.matrix_digest, "big") for row in rows}


async def make(path: Path, *, before: range = range(40), after: range = range(40, 60)) -> None:
    """A database with a snapshot that lacks the manifests of `after`."""
    async with open_database(path) as database:
        await keep(database, *before)
        await database.snapshot()
        await keep(database, *after)


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def checkpoint(path: Path, how: str = "TRUNCATE") -> None:
    """Have the log begin anew."""
    with closing(sqlite3.connect(path)) as other:
        other.execute(f"PRAGMA wal_checkpoint({how})").fetchall()


def remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)


def size_of(path: Path) -> int:
    return path.stat().st_size


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "no header": lambda path: overwrite(path, 0, b"this is not a database" * 10),
    "a bad root": lambda path: overwrite(path, PAGE, os.urandom(PAGE)),
    "bad pages": lambda path: overwrite(path, 3 * PAGE, os.urandom(8 * PAGE)),
    "cut": truncate,
    "empty": lambda path: os.truncate(path, 0),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_the_snapshot_is_taken_up(path: Path, damage: str) -> None:
    await make(path)
    DAMAGES[damage](path)
    spoiled = content(path)
    async with open_database(path) as database:
        assert await kept(database) == set(range(40))
        assert database.restored_from is not None
        assert database.restored_from.name.startswith("store.db.damaged-2")
        assert spoiled in (None, content(database.restored_from))
        assert mode(path) == 0o600
        await keep(database, 99)
    # Until the node has learned from others what is missing, it is told again, after a crash too.
    async with open_database(path) as database:
        assert database.restored_from is not None
        assert await kept(database) == {*range(40), 99}
        await database.reconciled()
        assert database.restored_from is None
    async with open_database(path) as database:
        assert database.restored_from is None


async def test_without_a_sound_snapshot_it_begins_empty_and_says_so(path: Path) -> None:
    for spoil_snapshot in (Path.unlink, lambda snapshot: overwrite(snapshot, PAGE, os.urandom(PAGE))):
        await make(path)
        spoil_snapshot(snapshot_path(path))
        DAMAGES["bad pages"](path)
        async with open_database(path) as database:
            assert await kept(database) == set()
            assert database.restored_from is not None
            assert content(database.restored_from) is not None
            await database.reconciled()
        remove(path)
        remove(snapshot_path(path))


@pytest.mark.parametrize("with_snapshot", [True, False])
async def test_numbers_never_come_again_and_old_invitations_admit_nobody(
    path: Path, with_snapshot: bool
) -> None:
    secret_hash = bytes(32)
    async with open_database(path) as database:
        await database.write(partial(invitations.add, secret_hash=secret_hash, expires_s=2e9, now_s=1e9))
        if with_snapshot:
            await database.snapshot()
        # Used by somebody, which the snapshot does not know.
        await database.write(partial(invitations.use, secret_hash=secret_hash, peer_id="peer", now_s=1e9))
        for _ in range(5):
            last = await database.write(partial(counters.increment, name="boot"))
    DAMAGES["no header"](path)
    async with open_database(path) as database:
        assert await database.write(partial(counters.increment, name="boot")) > last
        with pytest.raises(TokenInvalid):
            await database.write(
                partial(invitations.use, secret_hash=secret_hash, peer_id="another", now_s=1e9)
            )


async def test_a_crash_at_any_step_of_restoring_loses_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException):
        pass

    rename, unlink = Path.rename, Path.unlink
    left = math.inf

    def crashing(step: Callable[..., object]) -> Callable[..., object]:
        def crash_first(*args: object, **options: object) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                raise Crash
            return step(*args, **options)

        return crash_first

    await make(path)
    # A log that was never merged, as after a crash: it belongs to the damaged file and to nothing else.
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("REPLACE INTO counter VALUES ('late', 1)")
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{path}{suffix}.copy")
        shutil.copy(snapshot_path(path), f"{path}.snapshot.copy")
    for crash_after in range(30):
        for old in path.parent.glob("store.db*"):
            if old.suffix != ".copy":
                unlink(old)
        for suffix in ("", "-wal", ".snapshot"):
            shutil.copy(f"{path}{suffix}.copy", f"{path}{suffix}")
        DAMAGES["bad pages"](path)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", crashing(rename))
            patch.setattr(Path, "unlink", crashing(unlink))
            patch.setattr(snapshots, "fsync_directory", crashing(snapshots.fsync_directory))
            left = crash_after
            try:
                async with open_database(path):
                    pass
            except Crash:
                pass
            done = left >= 0
        async with open_database(path) as database:
            assert await kept(database) == set(range(40)), crash_after
            assert database.restored_from is not None
            names = await database.read(lambda c: c.execute("SELECT name FROM counter").fetchall())
            assert ("late",) not in names, crash_after
        if done:
            break
    assert done
    assert crash_after > 5


async def test_damaged_files_are_kept_and_bounded(path: Path) -> None:
    await make(path)
    older = [f"store.db.damaged-2026013{number}T000000" for number in range(DAMAGED_KEPT_MAX + 2)]
    for name in older:
        for suffix in ("", "-wal"):
            path.with_name(name + suffix).touch()
    DAMAGES["no header"](path)
    async with open_database(path) as database:
        assert database.restored_from is not None
        expected = {*older[3:], f"{older[3]}-wal", f"{older[4]}-wal", database.restored_from.name}
    assert {damaged.name for damaged in path.parent.glob("store.db.damaged-*")} == expected


async def test_a_snapshot_of_a_damaged_database_does_not_replace_a_good_one(path: Path) -> None:
    async with open_database(path) as database:
        await keep(database, *range(200))
        await database.snapshot()
        checkpoint(path)
        before = snapshot_path(path).read_bytes()
        overwrite(path, 8 * PAGE, os.urandom(20 * PAGE))
        with pytest.raises(BytesCorrupt):
            await database.snapshot()
        assert snapshot_path(path).read_bytes() == before
    async with open_database(path) as database:
        assert await kept(database) == set(range(200))


async def test_a_snapshot_that_is_cut_short_leaves_the_one_before(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_database(path) as database:
        await keep(database, 1)
        await database.snapshot()
        before = snapshot_path(path).read_bytes()
        await keep(database, 2)

        def fail(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(snapshots.os, "fsync", fail)
            with pytest.raises(DiskFull):
                await database.snapshot()
        assert snapshot_path(path).read_bytes() == before
        await database.snapshot()
    assert mode(snapshot_path(path)) == 0o600
    remove(path)
    async with open_database(path) as database:
        assert await kept(database) == {1, 2}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a small database."""
    path = tmp_path_factory.mktemp("template") / "store.db"
    trio.run(partial(make, before=range(8), after=range(8, 10)), path)
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=8)
)
def test_whatever_bits_flip_the_database_opens(
    flips: list[tuple[float, int]], template: Path, tmp_path: Path
) -> None:
    data = bytearray(template.read_bytes())
    for place, bit in flips:
        data[int(place * len(data))] ^= 1 << bit
    for old in tmp_path.glob("store.db*"):
        old.unlink()
    path = tmp_path / "store.db"
    path.write_bytes(data)
    shutil.copy(snapshot_path(template), snapshot_path(path))
    trio.run(_open_flipped, path)


async def _open_flipped(path: Path) -> None:
    async with open_database(path) as database:
        if database.restored_from is not None:
            assert await kept(database) == set(range(8))
        # Flips inside a value leave the structure sound: signatures and digests find them.
        assert len(await database.read(manifests.load)) <= 10
        await keep(database, 1000)


@pytest.mark.parametrize("seed", range(10))
async def test_of_a_damaged_log_what_comes_before_stands(path: Path, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    async with open_database(path) as database:
        await keep(database, *range(30))
        torn = tmp_path / "torn" / "store.db"
        torn.parent.mkdir()
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{torn}{suffix}")
    log = Path(f"{torn}-wal")
    if seed % 2:
        os.truncate(log, rng.randrange(size_of(log)))
    else:
        overwrite(log, rng.randrange(size_of(log) - 100), os.urandom(100))
    async with open_database(torn) as database:
        found = await database.read(_kept_or_none)
        assert found == set(range(len(found)))
        # A crash tears the end of a log; what comes before something that was committed has changed.
        if seed % 2:
            assert database.restored_from is None
        else:
            assert database.restored_from is not None


@pytest.mark.parametrize("rounds", [1, 3])
async def test_a_bit_that_flips_in_the_last_commit_is_noticed(
    path: Path, tmp_path: Path, rounds: int
) -> None:
    async with open_database(path) as database:
        for _ in range(rounds - 1):
            await keep(database, *range(10))
            checkpoint(path, "RESTART")
        await keep(database, *range(10, 15))
        tables, log = content(path) or b"", content(Path(f"{path}-wal")) or b""
    last = last_commit(log)
    rng = random.Random(rounds)
    # All of its header but the mark, and its page.
    header, page = [*range(32), *range(64, 8 * FRAME_HEADER)], range(8 * FRAME_HEADER, 8 * FRAME)
    for number, bit in enumerate([*rng.sample(header, 50), *rng.sample(page, 10)]):
        flipped = bytearray(log)
        flipped[last + bit // 8] ^= 1 << bit % 8
        copied = tmp_path / str(number) / "store.db"
        write(copied, tables)
        write(Path(f"{copied}-wal"), bytes(flipped))
        async with open_database(copied) as database:
            assert database.restored_from is not None, bit


def last_commit(log: bytes) -> int:
    """Return where the last frame of the present round begins."""
    offsets = range(LOG_HEADER, len(log) - FRAME + 1, FRAME)
    return [offset for offset in offsets if log[offset + 8 : offset + 16] == log[16:24]][-1]


async def test_a_log_that_was_played_to_its_end_is_trusted(path: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied" / "store.db"
    copied.parent.mkdir()
    async with open_database(path) as database:
        for number in range(5):
            await keep(database, *range(10 * number, 10 * number + 10))
            # As after a kill; and with frames of an earlier round behind the present ones.
            for suffix in ("", "-wal"):
                shutil.copy(f"{path}{suffix}", f"{copied}{suffix}")
            async with open_database(copied) as killed:
                assert killed.restored_from is None
                assert len(await kept(killed)) == 10 * number + 10
            checkpoint(path, "RESTART")


async def test_counters_go_on_beyond_what_a_damaged_log_counted(path: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied" / "store.db"
    copied.parent.mkdir()
    async with open_database(path) as database:
        checkpoint(path)
        for _ in range(3):
            counted = await database.write(partial(counters.increment, name="boot"))
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{copied}{suffix}")
    overwrite(Path(f"{copied}-wal"), 100, os.urandom(100))
    async with open_database(copied) as database:
        assert database.restored_from is not None
        assert await database.write(partial(counters.increment, name="boot")) > counted


def _kept_or_none(connection: sqlite3.Connection) -> set[int]:
    return {int.from_bytes(row.key.matrix_digest, "big") for row in manifests.load(connection)}


def test_snapshots_are_young_and_take_little_of_the_time() -> None:
    none, some, durable = Changes(), Changes(3, 0), Changes(3, 1)
    due = partial(is_due, took_s=0.01)
    assert due(durable, none, age_s=math.inf)
    assert due(durable, none, age_s=DURABLE_INTERVAL_S)
    assert not due(durable, none, age_s=DURABLE_INTERVAL_S - 1)
    assert not due(durable, durable, age_s=math.inf)
    assert due(some, none, age_s=INTERVAL_S)
    assert not due(some, none, age_s=INTERVAL_S - 1)
    assert not is_due(durable, none, age_s=DURABLE_INTERVAL_S, took_s=10.0)
    assert is_due(durable, none, age_s=200.0, took_s=10.0)


async def test_while_a_node_runs_snapshots_follow_what_changes(
    path: Path, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[float] = []

    async def wait_for(count: int) -> None:
        while len(taken) < count:  # noqa: ASYNC110 - the clock jumps, the disk does not
            await trio.sleep(1)

    async with open_database(path) as database:
        snapshot = database.snapshot

        async def counting() -> float:
            took_s = await snapshot()
            taken.append(trio.current_time())
            return took_s

        monkeypatch.setattr(database, "snapshot", counting)
        async with trio.open_nursery() as nursery:
            await keep(database, 0)
            await nursery.start(keep_snapshots, database)
            await wait_for(1)
            await trio.sleep(20 * INTERVAL_S)
            assert len(taken) == 1
            await keep(database, 1)
            await wait_for(2)
            await keep(database, 2)
            nursery.cancel_scope.cancel()
        await wait_for(3)
    remove(path)
    async with open_database(path) as database:
        assert await kept(database) == {0, 1, 2}


async def test_damage_under_a_running_node_ends_it(
    path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_database(path) as database:
        await keep(database, 0)
        await database.snapshot()
        database.damage = BytesCorrupt("damaged")
        with pytest.raises(BytesCorrupt, match="damaged"):
            await keep_snapshots(database)


def test_a_marker_without_anything_to_finish_is_harmless(path: Path) -> None:
    restored_path(path).write_text("store.db.damaged-x")
    snapshots.finish(path)
    assert not path.exists()
