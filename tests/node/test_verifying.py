from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from examples import matrix
from rig import RigNode

from sedmad.node import verifying
from sedmad.node.succession import key_to_wire
from sedmad.node.verifying import verify_store
from sedmad.store import holdings, puts
from sedmad.store.puts import StoredPut
from sedmad.wire import messages as wire

RigFactory = Callable[..., Any]
W = matrix(2200, 1024)


@pytest.fixture(autouse=True)
def settled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "SETTLED_AFTER_S", 0.01)


async def verify(
    node: RigNode, *, quick: bool = False, told: list[tuple[int, int]] | None = None
) -> wire.StoreReport:
    async def on_progress(checked_bytes: int, total_bytes: int) -> None:
        if told is not None:
            told.append((checked_bytes, total_bytes))

    return await verify_store(node.database, node.blobs, node.manifests, quick=quick, on_progress=on_progress)


def path_of(node: RigNode, digest: bytes) -> Path:
    return node.blobs.directory / digest.hex()[:2] / digest.hex()


def flip(node: RigNode, digest: bytes) -> None:
    path = path_of(node, digest)
    with path.open("r+b") as file:
        byte = file.read(1)[0]
        file.seek(0)
        file.write(bytes([byte ^ 1]))


def faults(found: Any) -> set[tuple[bytes, int]]:
    return {(fault.digest, fault.partition_index) for fault in found}


def is_clean(report: wire.StoreReport) -> bool:
    return not (report.corrupt or report.missing or report.orphaned or report.more)


@pytest.mark.parametrize("quick", [False, True])
async def test_a_sound_store_is_clean_and_tells_how_far_it_is(rig: RigFactory, quick: bool) -> None:
    async with rig("ann", "ben") as nodes:
        await nodes["ann"].put("w", W, survive=1)
        await nodes["ann"].put("again", W, survive=1)  # the same bytes, read once
        for node in nodes:
            told: list[tuple[int, int]] = []
            report = await verify(node, quick=quick, told=told)
            assert is_clean(report)
            assert report.copies == len(await node.held())
            assert report.blobs == len(node.blobs.digests())
            assert told == sorted(told)
            assert {total for _, total in told} == {W.nbytes}
            assert told[-1] == (W.nbytes, W.nbytes)
            assert quick or len(told) > 2 * len(node.blobs.digests())


async def test_changed_bytes_are_reported_with_their_copies(rig: RigFactory) -> None:
    async with rig("ann") as nodes:
        ann = nodes["ann"]
        _, manifest, _ = await ann.put("w", W)
        corrupt: list[bytes] = []
        ann.blobs.on_corrupt = corrupt.append
        flip(ann, manifest.digests[1])
        assert is_clean(await verify(ann, quick=True))
        report = await verify(ann)
        assert faults(report.corrupt) == {(manifest.digests[1], 1)}
        assert report.corrupt[0].key == key_to_wire(manifest.key)
        assert not report.missing
        assert corrupt == [manifest.digests[1]]
        # Nothing has brought them back yet: the copy is there no more.
        report = await verify(ann)
        assert not report.corrupt
        assert faults(report.missing) == {(manifest.digests[1], 1)}


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("left_bytes", [None, 4096])
async def test_copies_without_their_bytes_are_missing(
    rig: RigFactory, quick: bool, left_bytes: int | None
) -> None:
    async with rig("ann") as nodes:
        ann = nodes["ann"]
        _, manifest, _ = await ann.put("w", W)
        path = path_of(ann, manifest.digests[0])
        if left_bytes is None:
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:left_bytes])
        report = await verify(ann, quick=quick)
        assert faults(report.missing) == {(manifest.digests[0], 0)}
        assert not report.corrupt


async def test_copies_that_a_manifest_gives_and_no_row_names_are_missing(rig: RigFactory) -> None:
    async with rig("ann") as nodes:
        ann = nodes["ann"]
        _, manifest, _ = await ann.put("w", W)
        (row, *_) = await ann.held()
        await ann.database.write(
            partial(holdings.release, group_key=row.group_key, partition_indices=[row.partition_index])
        )
        report = await verify(ann)
        assert faults(report.missing) == {(row.digest, row.partition_index)}
        assert report.missing[0].key == key_to_wire(manifest.key)
        assert faults(report.orphaned) == {(row.digest, 0)}


async def test_bytes_that_nothing_names_are_orphaned_unless_something_goes_on(rig: RigFactory) -> None:
    async with rig("ann") as nodes:
        ann = nodes["ann"]
        await ann.database.write(partial(puts.begin, put=StoredPut(b"p" * 16, b"", 1.0)))
        async with ann.blobs.create(4) as writer:
            await writer.write(b"four")
            digest = await writer.commit()
        assert is_clean(await verify(ann))  # a put that began before has brought it
        await ann.database.write(partial(puts.end, put_id=b"p" * 16))
        assert faults((await verify(ann)).orphaned) == {(digest, 0)}
        ann.database.restored_from = Path("damaged")
        assert is_clean(await verify(ann))  # the row may be among those that were lost


async def test_a_report_is_bounded(rig: RigFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "FAULTS_MAX", 1)
    async with rig("ann") as nodes:
        ann = nodes["ann"]
        _, manifest, _ = await ann.put("w", W)
        for digest in manifest.digests:
            flip(ann, digest)
        report = await verify(ann)
        assert len(report.corrupt) == 1
        assert report.more == len(manifest.digests) - 1
