"""A changed manifest counts when most guardians have it on disk, and not before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from examples import matrix
from rig import fails_with

from sedmad.errors import NotEnoughPeers

RigFactory = Callable[..., Any]


async def test_too_few_guardians_establish_nothing(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        ann = nodes["ann"]
        _, manifest, _ = await ann.put("w", matrix(300, 50), survive=1)
        assert len(manifest.guardians) == 3
        for other in ("ben", "cyd"):
            nodes.cut("ann", other)
        changed = replace(manifest, seq=manifest.seq + 1, previous_digest=manifest.digest)
        await fails_with(NotEnoughPeers, partial(ann.establishing.establish, changed))
        kept = ann.manifests.get(manifest.key)
        assert (kept.manifest.order, kept.established) == (changed.order, False)


async def test_most_of_them_do(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        ann, ben = nodes["ann"], nodes["ben"]
        _, manifest, _ = await ann.put("w", matrix(300, 50), survive=1)
        nodes.cut("ann", "cyd")
        changed = replace(manifest, seq=manifest.seq + 1, previous_digest=manifest.digest)
        await ann.establishing.establish(changed)
        for node in (ann, ben):
            kept = node.manifests.get(manifest.key)
            assert (kept.manifest.order, kept.established) == (changed.order, True)
