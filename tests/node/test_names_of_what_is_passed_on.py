"""A name that gossip never told the new owner of a matrix: nothing is freed that anybody can ask for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from examples import matrix
from passing_on import passed_on, steps_of
from rig import RigNode, fails_with

from sedmad.core.membership.directory import Directory
from sedmad.errors import NotEnoughPeers, StaleManifest
from sedmad.node.keeping import load_records
from sedmad.node.manifest import Manifest

RigFactory = Callable[..., Any]
W = matrix(300, 50)


async def taken_over_without_its_name(nodes: Any) -> tuple[RigNode, Manifest]:
    """Have ben win ann's matrix, whose name gossip never told him."""
    ann, ben = nodes["ann"], nodes["ben"]
    _, first, _ = await ann.put("w", W, survive=1)
    ben.membership.core.directory = Directory()
    await ben.database.write(lambda connection: connection.execute("DELETE FROM record"))
    won = passed_on(first, ben.identity, [ben, nodes["cyd"]], 1)
    await ben.manifests.keep(won, established=False)
    return ben, ben.manifests.get_kept(first.key)


async def test_a_new_owner_hears_the_names_from_those_that_keep_its_manifest(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        ben, won = await taken_over_without_its_name(nodes)
        await ben.establishing.make_safe(ben.manifests.get(won.key))
        directory = ben.membership.core.directory
        assert [claim.name for claim in directory.naming(won.key.matrix_digest, won.key.first_owner)] == ["w"]
        assert [record.record.name for record in await load_records(ben.database)] == ["w"]


async def test_a_matrix_with_a_name_that_its_owner_does_not_know_is_not_freed(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        ben, won = await taken_over_without_its_name(nodes)
        await fails_with(StaleManifest, partial(ben.removing._free, won.key, ""))
        in_doubt = ben.manifests.get_kept(won.key)
        assert in_doubt.removed
        holders = [node for node in nodes if node.peer_id in won.holders]
        assert [len(await node.held()) for node in holders] == [1, 1]
        # Ben knows by now, and repair takes the end back.
        await steps_of(ben).settle(in_doubt)
        kept = nodes["ann"].manifests.get(won.key)
        assert (kept.manifest.removed, kept.manifest.owner, kept.established) == (False, ben.peer_id, True)
        assert await nodes["cyd"].get("w") == W.tobytes()


async def test_what_was_passed_on_and_is_in_doubt_ends_only_if_most_guardians_agree(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        ben, won = await taken_over_without_its_name(nodes)
        for other in ("ann", "cyd"):
            nodes.cut("ben", other)
        await fails_with(NotEnoughPeers, partial(ben.removing._free, won.key, ""))
        assert not ben.manifests.get(won.key).established
