"""A node with restored tables frees nothing, votes for nobody and plans nothing until it has asked the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from examples import matrix
from rig import until

from sedmad.node import recovering
from sedmad.node.recovering import RecoveringService

RigFactory = Callable[..., Any]
W = matrix(300, 50)


async def test_nothing_is_freed_or_planned_before_others_were_asked(
    rig: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovering, "COMPARED_AFTER_S", 0.05)
    monkeypatch.setattr(recovering, "LOOK_S", 0.01)
    monkeypatch.setattr(recovering, "ALONE_AFTER_S", 0.01)
    async with rig("ann", "ben") as nodes:
        ann, ben = nodes["ann"], nodes["ben"]
        _, manifest, _ = await ann.put("w", W, survive=1)
        async with ann.blobs.create(4) as writer:
            await writer.write(b"four")
            digest = await writer.commit()
        ann.database.restored_from = Path("store.db.damaged")
        ann.membership.states[ben.peer_id] = "dead"
        recovered = trio.Event()
        membership: Any = ann.membership
        service = RecoveringService(
            database=ann.database,
            membership=membership,
            holding=ann.holding,
            on_recovered=recovered.set,
        )
        assert not ann.establishing.may_plan(manifest)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.run)
            await trio.sleep(0.2)
            assert service.is_under_way
            assert ann.blobs.contains(digest)
            ann.membership.states[ben.peer_id] = "alive"
            await recovered.wait()
        assert not service.is_under_way
        assert ann.establishing.may_plan(manifest)

        async def gone() -> bool:
            return not ann.blobs.contains(digest)

        await until(gone)
        assert await ann.get("w") == W.tobytes()


async def test_with_tables_that_are_sound_there_is_nothing_to_do(rig: RigFactory) -> None:
    async with rig("ann") as nodes:
        ann = nodes["ann"]
        membership: Any = ann.membership
        service = RecoveringService(
            database=ann.database, membership=membership, holding=ann.holding, on_recovered=lambda: None
        )
        await service.run()
        assert not service.is_under_way
