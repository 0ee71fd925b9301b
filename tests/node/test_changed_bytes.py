"""Somebody writes to the file of a blob while it is in use."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from examples import matrix
from rig import RigNode, fails_with

from sedmad.errors import BytesCorrupt
from sedmad.store.holdings import Kind

RigFactory = Callable[..., Any]
W = matrix(300, 50)
SHAPE = (300, 50, "float32")


def path_of(node: RigNode, digest: bytes) -> Path:
    return node.blobs.directory / digest.hex()[:2] / digest.hex()


def write_over(path: Path, data: bytes) -> None:
    with path.open("r+b") as file:
        file.write(data)


async def test_a_copy_never_answers_with_bytes_that_changed_under_it(rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        _, manifest, _ = await nodes["ann"].put("w", W, survive=1)
        (digest,) = manifest.digests
        told: list[bytes] = []
        for node in nodes:
            kind = manifest.copies[0][node.peer_id]
            assert kind in Kind
            await node.residents.get(digest, *SHAPE)
            node.blobs.on_corrupt = told.append
            write_over(path_of(node, digest), b"four")
            await fails_with(BytesCorrupt, partial(node.residents.get, digest, *SHAPE))
            assert not node.blobs.contains(digest)
        assert told == [digest, digest]


async def test_a_file_that_was_touched_and_is_right_answers(rig: RigFactory) -> None:
    async with rig("ann") as nodes:
        ann = nodes["ann"]
        _, manifest, _ = await ann.put("w", W)
        (digest,) = manifest.digests
        os.utime(path_of(ann, digest))
        assert not ann.blobs.unchanged(digest)
        partition = await ann.residents.get(digest, *SHAPE)
        x = np.ones((1, 50), np.float32)
        assert np.allclose(partition.multiply(x)[0], W.sum(axis=1), rtol=1e-3, atol=1e-3)
        assert ann.blobs.unchanged(digest)
        assert await ann.residents.get(digest, *SHAPE) is partition


async def test_members_are_told_before_a_byte_of_it_leaves(rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        _, manifest, _ = await nodes["ann"].put("w", W, survive=0)
        (digest,) = manifest.digests
        (holder,) = (node for node in nodes if node.peer_id in manifest.holders)
        (other,) = (node for node in nodes if node is not holder)
        write_over(path_of(holder, digest), b"four")
        error = await fails_with(Exception, partial(other.get, "w"))  # type: ignore[arg-type]
        assert "have changed" in str(error)
