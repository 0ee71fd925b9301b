"""A process that is killed in the middle of writing loses nothing that it had acknowledged."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from sedmad.store import counters
from sedmad.store.blobs import open_blobs
from sedmad.store.database import open_database
from sedmad.store.digests import partition_digest

WRITER = """
import sys
from pathlib import Path

import trio

from sedmad.store import counters
from sedmad.store.blobs import open_blobs
from sedmad.store.database import open_database


def acknowledge(text):
    sys.stdout.write(text + "\\n")
    sys.stdout.flush()


async def count(database):
    while True:
        acknowledge(f"count {await database.write(lambda c: counters.increment(c, 'acknowledged'))}")


async def keep(store, number):
    while True:
        async with store.create(300_000) as writer:
            for _ in range(3):
                await writer.write(number.to_bytes(4, "big") * 25_000)
            await writer.commit()
        acknowledge(f"blob {number}")
        number += 2


async def main():
    store = await open_blobs(Path(sys.argv[1]) / "blobs")
    async with open_database(Path(sys.argv[1]) / "store.db") as database, trio.open_nursery() as nursery:
        nursery.start_soon(count, database)
        nursery.start_soon(keep, store, 0)
        nursery.start_soon(keep, store, 1)


trio.run(main)
"""


@pytest.mark.parametrize("seed", range(6))
async def test_every_acknowledged_write_is_there_after_a_kill(tmp_path: Path, seed: int) -> None:
    acknowledged = run_and_kill(tmp_path, random.Random(seed))
    count = max((int(number) for kind, number in acknowledged if kind == "count"), default=0)
    blobs = {int(number) for kind, number in acknowledged if kind == "blob"}

    async with open_database(tmp_path / "store.db") as database:
        assert await database.read(lambda c: c.execute("PRAGMA integrity_check").fetchall()) == [("ok",)]
        # One more may have been committed and not acknowledged.
        assert await database.write(lambda c: counters.increment(c, "acknowledged")) in (count + 1, count + 2)

    store = await open_blobs(tmp_path / "blobs")
    for digest in store.digests():
        await store.verify(digest)
    for number in blobs:
        assert store.contains(partition_digest(number.to_bytes(4, "big") * 75_000))
    assert list((tmp_path / "blobs" / "incoming").iterdir()) == []


def run_and_kill(home: Path, rng: random.Random) -> list[list[str]]:
    """Run the writer until it has acknowledged some writes, kill it, and return all that it acknowledged."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(home)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(rng.randint(1, 60))]
        for _ in range(rng.randint(0, 20_000)):  # not always right after an acknowledgement
            pass
        writer.kill()
        lines += writer.stdout.readlines()
    return [line.split() for line in lines if line.endswith("\n")]
