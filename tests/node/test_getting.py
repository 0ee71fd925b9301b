from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from examples import matrix
from rig import RigNode, fails_with

from sedmad.errors import HoldersUnreachable

RigFactory = Callable[..., Any]
W = matrix(2100, 1024)


def spoil(node: RigNode, digest: bytes, data: bytes | None) -> None:
    path = node.blobs.directory / digest.hex()[:2] / digest.hex()
    path.chmod(0o600)
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)


async def test_another_holder_gives_what_one_has_lost(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        _, manifest, _ = await nodes["ann"].put("w", W, survive=1)
        for index, copies in enumerate(manifest.copies):
            (holder,) = [node for node in nodes if node.peer_id == next(iter(copies))]
            spoil(holder, manifest.digests[index], None)
        for node in nodes:
            assert await node.get("w") == W.tobytes()


async def test_changed_bytes_are_an_error_and_never_an_answer(rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        _, manifest, _ = await nodes["ann"].put("w", W)
        (holder,) = [node for node in nodes if node.peer_id in manifest.copies[0]][:1]
        spoil(holder, manifest.digests[0], bytes(manifest.size_of(0)))
        for node in nodes:
            await fails_with(HoldersUnreachable, partial(node.get, "w"))


async def test_where_the_bytes_of_one_holder_changed_another_gives_them(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        _, manifest, _ = await nodes["ann"].put("w", W, survive=1)
        for index, copies in enumerate(manifest.copies):
            (holder,) = [node for node in nodes if node.peer_id == next(iter(copies))]
            spoil(holder, manifest.digests[index], bytes(manifest.size_of(index)))
        for node in nodes:
            assert await node.get("w") == W.tobytes()


async def test_without_a_holder_it_says_who_was_asked(rig: RigFactory) -> None:
    async with rig("ann", "ben", pledges={"ann": 5 << 20}) as nodes:
        nodes["ann"].membership.update_advert(memory_pledged_bytes=0, disk_pledged_bytes=0)
        _, manifest, _ = await nodes["ann"].put("w", W)
        assert manifest.holders == {nodes["ben"].peer_id}
        for digest in manifest.digests:
            spoil(nodes["ben"], digest, None)
        error = await fails_with(HoldersUnreachable, partial(nodes["ann"].get, "w"))
        assert "ben" in error.why
        assert error.matrix == "w"
        nodes.cut("ann", "ben")
        error = await fails_with(HoldersUnreachable, partial(nodes["ann"].get, "w"))
        assert "ben: the node is not connected" in error.why


@pytest.mark.parametrize("survive", [0, 1])
async def test_a_holder_lost_in_the_middle_costs_nothing_where_there_is_another(
    survive: int, rig: RigFactory
) -> None:
    async with rig("ann", "ben", "cyd", pledges={"ann": 5 << 20}) as nodes:
        ann = nodes["ann"]
        _, manifest, _ = await ann.put("w", W, survive=survive)
        assert ann.peer_id not in manifest.holders
        claim = ann.membership.core.directory.get("w")
        pieces = []

        async def read() -> None:
            known = await ann.lookups.look_up(claim, deadline=1e9)
            async for _, piece in ann.getting.stream(known, "w"):
                pieces.append(bytes(piece))
                if len(pieces) == 3:
                    holders = [node for node in nodes if node.peer_id in manifest.copies[0]]
                    nodes.cut("ann", holders[0].name)

        if survive:
            await read()
            assert b"".join(pieces) == W.tobytes()
        else:
            await fails_with(HoldersUnreachable, read)
