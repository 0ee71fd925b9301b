from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sedmad.errors import DiskFull
from sedmad.store.blobs import open_blobs
from sedmad.store.database import open_database

DISK_BYTES = 4 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(directory)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system can only be mounted by root")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


async def test_a_blob_without_room_is_refused_before_a_byte_moves(small_disk: Path) -> None:
    store = await open_blobs(small_disk / "blobs")
    with pytest.raises(DiskFull, match=f"{2 * DISK_BYTES:,} bytes are needed, [0-9,]+ are free"):
        async with store.create(2 * DISK_BYTES):
            pass
    assert store.used_bytes == 0
    assert (await store.space()).free_bytes > DISK_BYTES / 2
    async with store.create(1 << 20) as writer:  # its room is taken: others cannot use it up
        with pytest.raises(DiskFull):
            async with store.create(DISK_BYTES):
                pass
        await writer.write(bytes(1 << 20))
        await store.verify(await writer.commit())


async def test_a_database_without_room_says_so_and_goes_on_with_what_fits(small_disk: Path) -> None:
    async with open_database(small_disk / "store.db", (("CREATE TABLE pile (bytes BLOB)",),)) as database:

        async def pile(size_bytes: int) -> None:
            await database.write(lambda c: c.execute("INSERT INTO pile VALUES (?)", (bytes(size_bytes),)))

        await pile(1000)
        with pytest.raises(DiskFull, match=str(small_disk)):
            await pile(DISK_BYTES)
        await pile(2000)
        sizes = await database.read(lambda c: c.execute("SELECT length(bytes) FROM pile").fetchall())
    assert sizes == [(1000,), (2000,)]
