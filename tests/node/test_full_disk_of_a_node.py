"""A node whose disk others fill: it refuses what is new, serves what it has, and needs no restart afterwards."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import trio
from examples import matrix
from rig import RigNode, fails_with, open_rig
from stand_ins import ClientCall, PeerCall

from sedmad.errors import DiskFull, InsufficientCapacity, SedmadError
from sedmad.node import releasing
from sedmad.node.matrices import MatrixSummaries
from sedmad.node.repair_status import RepairStatus
from sedmad.node.status import NodeService
from sedmad.wire import messages as wire

RigFactory = Callable[..., Any]
DISK_BYTES = 48 << 20
W = matrix(2000, 512)
SIZE = W.nbytes


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory for homes, on a disk of its own."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(directory)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system can only be mounted by root")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


@contextmanager
def filled(directory: Path, *, left_bytes: int = 0) -> Iterator[None]:
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    os.truncate(filler, filler.stat().st_size - left_bytes)
    try:
        yield
    finally:
        filler.unlink()


async def warnings_of(node: RigNode) -> list[str]:
    """Return what a node's status warns of."""
    membership: Any = node.membership
    repairing: Any = SimpleNamespace(status=lambda: RepairStatus((), (), 0, ()))
    service = NodeService(
        membership=membership,
        sessions=node.sessions,  # type: ignore[arg-type]
        holding=node.holding,
        manifests=node.manifests,
        pledging=SimpleNamespace(lowered_bytes=0),  # type: ignore[arg-type]
        repairing=repairing,
        restored=lambda: False,
        disk_space=node.blobs.space,
        invitations=SimpleNamespace(is_admin=False),  # type: ignore[arg-type]
        summaries=MatrixSummaries(membership, node.holding),
        mesh_id="",
        addresses=list,
        stop=lambda: None,
    )
    call: Any = PeerCall("")
    return list((await service.get_status(wire.GetStatusRequest(), call)).warnings)


async def multiplies(node: RigNode, manifest: Any) -> bool:
    rows = 0
    for index, digest in enumerate(manifest.digests):
        start, stop = manifest.rows_of(index)
        programmed = await node.residents.get(digest, stop - start, manifest.columns, manifest.dtype)
        x = np.ones((1, manifest.columns), np.float32)
        assert np.allclose(programmed.multiply(x)[0], W[start:stop].sum(axis=1), rtol=1e-3, atol=1e-2)
        rows += stop - start
    return rows == len(W)


async def test_new_puts_are_refused_with_the_arithmetic_and_all_is_well_once_there_is_room(
    small_disk: Path,
) -> None:
    async with open_rig(small_disk, "ann") as nodes:
        ann = nodes["ann"]
        _, manifest, _ = await ann.put("w", W)
        before = ann.used()
        other = matrix(2000, 512, seed=2)
        for left_bytes in (0, SIZE // 2, SIZE):  # nothing, too little, enough but for the reserve
            with filled(small_disk, left_bytes=left_bytes):
                refusal = await fails_with(SedmadError, partial(ann.put, "other", other))
                assert isinstance(refusal, InsufficientCapacity | DiskFull)
                assert "bytes are needed" in refusal.why
                assert "are free" in refusal.why
                assert await ann.get("w") == W.tobytes()
                assert await multiplies(ann, manifest)
        assert ann.used() == before
        await ann.put("other", other)
        assert await ann.get("other") == other.tobytes()


async def test_a_put_that_a_full_disk_cuts_short_gives_its_room_back_once_there_is_some(
    rig: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releasing, "CLEAR_UP_S", 0.05)
    async with rig("ann", "ben") as nodes:
        ann, ben = nodes["ann"], nodes["ben"]
        call = ClientCall(W.tobytes(), pause_after=SIZE // 2)

        async def refused(*arguments: object, **options: object) -> None:
            raise DiskFull("The database cannot grow")

        async def put() -> None:
            await fails_with(SedmadError, partial(ann.put, "w", W, survive=1, call=call))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(put)
            await call.paused.wait()
            with monkeypatch.context() as patch:
                for node in (ann, ben):
                    patch.setattr(node.database, "write", refused)
                call.go_on.set()
                await trio.sleep(0.3)
                assert any(ann.used())
        for node in nodes:
            await node.is_empty()
        await ann.put("w", W, survive=1)


@pytest.mark.parametrize("name", ["ann", "ben"])
async def test_a_put_that_a_full_disk_ends_names_the_node_and_the_matrix(
    name: str, rig: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig("ann", "ben") as nodes:

        def refuse(size_bytes: int) -> None:
            raise DiskFull("The disk is full", why=f"{size_bytes} bytes are needed, 0 are free.")

        # What room there was when the put was planned is gone when its bytes come.
        monkeypatch.setattr(nodes[name].blobs, "_create", refuse)
        refusal = await fails_with(DiskFull, partial(nodes["ann"].put, "w", W, survive=1))
        assert (refusal.node, refusal.matrix) == (name, "w")
        assert refusal.what == "w was not stored"
        assert refusal.why == f"{name}: The disk is full: {SIZE} bytes are needed, 0 are free."
        for node in nodes:
            await node.is_empty()


async def test_a_full_disk_is_told_with_the_status_of_its_node(small_disk: Path) -> None:
    async with open_rig(small_disk, "ann") as nodes:
        ann = nodes["ann"]
        assert await warnings_of(ann) == []
        with filled(small_disk, left_bytes=1 << 20):
            (warning,) = await warnings_of(ann)
            assert "disk is full and takes no new copies" in warning
            assert "1.0 MiB are free, and 2.4 MiB stay free" in warning
        assert await warnings_of(ann) == []


async def test_in_the_reserve_there_is_room_to_remove(small_disk: Path) -> None:
    async with open_rig(small_disk, "ann") as nodes:
        ann = nodes["ann"]
        count = 0
        refusal: SedmadError | None = None
        while refusal is None:
            try:
                await ann.put(f"w{count}", matrix(2000, 512, seed=count))
                count += 1
            except (DiskFull, InsufficientCapacity) as error:
                refusal = error
        assert "bytes are needed" in refusal.why
        assert count > 3
        for number in range(count):
            await ann.removing.remove(f"w{number}")
        await ann.is_empty()


async def test_where_the_disk_of_one_node_is_full_others_take_its_copies(
    rig: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig("ann", "ben", "cyd") as nodes:

        def refuse(needed_bytes: int) -> None:
            raise DiskFull("The disk is full", why=f"{needed_bytes} bytes are needed, 0 are free.")

        monkeypatch.setattr(nodes["ben"].blobs, "require_room", refuse)
        _, manifest, _ = await nodes["ann"].put("w", W, survive=1)
        assert nodes["ben"].peer_id not in manifest.holders
        assert nodes["ben"].used() == (0, 0, 0, 0)
