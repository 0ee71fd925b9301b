from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import trio
from examples import identity_of, matrix
from rig import PLEDGE_BYTES, RigNode, fails_with
from stand_ins import PeerCall

from sedmad.errors import (
    InsufficientCapacity,
    MatrixNotFound,
    NotEnoughPeers,
    NotPermitted,
    Overloaded,
    ProtocolViolation,
)
from sedmad.node.holding import PUTS_MAX
from sedmad.node.node import Node
from sedmad.store.digests import partition_digest
from sedmad.store.holdings import Kind, State
from sedmad.store.manifests import ManifestKey
from sedmad.wire import messages as wire

RigFactory = Callable[..., Any]
OWNER = identity_of("ann").peer_id
W = matrix(300, 50)
SIZE = W.nbytes


def reservation(
    put_id: bytes = b"p" * 16, resident: int = SIZE, disk: int = SIZE, **changes: Any
) -> wire.ReserveCopiesRequest:
    fields = {"rows": 300, "columns": 50, "data_type": wire.DATA_TYPE_FLOAT32} | changes
    return wire.ReserveCopiesRequest(put_id=put_id, resident_bytes=resident, disk_bytes=disk, **fields)


async def blob_of(node: RigNode, array: Any = W) -> bytes:
    """Put an array's bytes on a node's disk, needed as if they were being spooled; return their digest."""
    data = array.tobytes()
    digest = partition_digest(data)
    await node.holding.need(digest)
    async with node.blobs.create(len(data)) as writer:
        await writer.write(data)
        await writer.commit(digest)
    return digest


@pytest.mark.parametrize(
    "request_",
    [
        reservation(b"short"),
        reservation(data_type=0),
        reservation(disk=0, resident=0),
    ],
    ids=["id", "dtype", "nothing"],
)
async def test_a_malformed_reservation_is_refused(
    request_: wire.ReserveCopiesRequest, rig: RigFactory
) -> None:
    async with rig("ben") as nodes:
        with pytest.raises(ProtocolViolation):
            nodes["ben"].holding.reserve(request_, OWNER)
        assert nodes["ben"].used() == (0, 0, 0, 0)


async def test_room_is_set_aside_once_and_never_beyond_the_pledge(rig: RigFactory) -> None:
    async with rig("ben") as nodes:
        holding = nodes["ben"].holding
        holding.reserve(reservation(), OWNER)
        with pytest.raises(ProtocolViolation):
            holding.reserve(reservation(), OWNER)
        with pytest.raises(InsufficientCapacity) as raised:
            holding.reserve(reservation(b"q" * 16, resident=PLEDGE_BYTES, disk=PLEDGE_BYTES), OWNER)
        assert "memory" in raised.value.what
        with pytest.raises(InsufficientCapacity, match="disk"):
            holding.reserve(reservation(b"q" * 16, disk=2 * PLEDGE_BYTES), OWNER)
        assert nodes["ben"].used() == (0, SIZE, 0, SIZE)
        await holding.release(b"p" * 16)
        await holding.release(b"p" * 16)
        assert nodes["ben"].used() == (0, 0, 0, 0)


async def test_only_so_many_puts_are_under_way(rig: RigFactory) -> None:
    async with rig("ben") as nodes:
        for number in range(PUTS_MAX):
            nodes["ben"].holding.reserve(reservation(bytes([number]) * 16, 1, 1), OWNER)
        with pytest.raises(Overloaded):
            nodes["ben"].holding.reserve(reservation(b"x" * 16, 1, 1), OWNER)


async def test_what_is_told_of_a_put_is_taken_from_its_owner_alone(rig: RigFactory) -> None:
    async with rig("ben") as nodes:
        ben = nodes["ben"]
        ben.holding.reserve(reservation(), OWNER)
        stranger: Any = PeerCall(identity_of("cyd").peer_id)
        request = wire.HoldCopyRequest(put_id=b"p" * 16, digest=bytes(32), kind=wire.COPY_KIND_RESIDENT)
        await fails_with(NotPermitted, partial(ben.holding.hold_copy, request, stranger))
        release = wire.ReleasePutRequest(put_id=b"p" * 16)
        await fails_with(NotPermitted, partial(ben.holding.release_put, release, stranger))
        await ben.holding.release_put(wire.ReleasePutRequest(put_id=b"unknown"), stranger)
        assert ben.used() == (0, SIZE, 0, SIZE)


@pytest.mark.parametrize(
    "changes", [{"partition_index": 1}, {"digest": b"short"}, {"kind": 0}, {"kind": 7}], ids=str
)
async def test_a_copy_of_what_there_is_not_is_refused(changes: dict[str, Any], rig: RigFactory) -> None:
    async with rig("ben") as nodes:
        ben = nodes["ben"]
        ben.holding.reserve(reservation(), OWNER)
        fields = {"put_id": b"p" * 16, "digest": bytes(32), "kind": wire.COPY_KIND_RESIDENT} | changes
        request = wire.HoldCopyRequest(**fields)
        owner: Any = PeerCall(OWNER)
        await fails_with(ProtocolViolation, partial(ben.holding.hold_copy, request, owner))


@pytest.mark.parametrize(
    ("resident", "disk", "kind"), [(0, SIZE, Kind.RESIDENT), (0, SIZE - 1, Kind.STANDBY)]
)
async def test_no_more_is_held_than_was_reserved(
    resident: int, disk: int, kind: Kind, rig: RigFactory
) -> None:
    async with rig("ben") as nodes:
        ben = nodes["ben"]
        ben.holding.reserve(reservation(resident=resident, disk=disk), OWNER)
        digest = await blob_of(ben)
        await fails_with(ProtocolViolation, partial(ben.holding.hold, b"p" * 16, 0, digest, kind))
        ben.holding.need_no_more(digest)
        await ben.holding.release(b"p" * 16)
        await ben.is_empty()


async def test_a_partition_is_held_once_and_never_changes(rig: RigFactory) -> None:
    async with rig("ben") as nodes:
        ben = nodes["ben"]
        ben.holding.reserve(reservation(), OWNER)
        digest, other = await blob_of(ben), await blob_of(ben, matrix(300, 50, seed=1))
        for kind in (Kind.STANDBY, Kind.RESIDENT, Kind.RESIDENT):
            await ben.holding.hold(b"p" * 16, 0, digest, kind)
        await fails_with(ProtocolViolation, partial(ben.holding.hold, b"p" * 16, 0, other, Kind.RESIDENT))
        (held,) = await ben.held()
        assert (held.digest, held.kind, held.state) == (digest, Kind.RESIDENT, State.PENDING)
        for needed in (digest, other):
            ben.holding.need_no_more(needed)
        await ben.holding.release(b"p" * 16)
        await ben.is_empty()


async def test_a_put_given_up_meanwhile_leaves_nothing_behind(rig: RigFactory) -> None:
    """The owner gives up while a holder fetches: at whatever moment, nothing stays."""
    async with rig("ann", "ben") as nodes:
        ann, ben = nodes["ann"], nodes["ben"]
        digest = await blob_of(ann)
        for pause_s in (0.0, 0.001, 0.002, 0.005, 0.01, 0.02):
            put_id = secrets.token_bytes(16)
            ben.holding.reserve(reservation(put_id), OWNER)
            request = wire.HoldCopyRequest(
                put_id=put_id, digest=digest, kind=wire.COPY_KIND_RESIDENT, sources=[ann.peer_id]
            )

            async def hold(request: wire.HoldCopyRequest = request) -> None:
                owner: Any = PeerCall(OWNER)
                with suppress(NotPermitted):
                    await ben.holding.hold_copy(request, owner)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(hold)
                await trio.sleep(pause_s)
                await ben.holding.release(put_id)
            await ben.is_empty()
            assert not ben.residents._resident


async def test_copies_of_a_dead_owner_are_given_up_and_its_commit_comes_too_late(rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        ann, ben = nodes["ann"], nodes["ben"]

        async def die(peer_id: str) -> None:
            ben.holding.owner_gone(ann.peer_id)
            await trio.sleep(0.1)

        ann.sessions.before["StoreManifest"] = die
        await fails_with(NotEnoughPeers, partial(ann.put, "w", W, survive=1))
        for node in nodes:
            await node.is_empty()


async def test_copies_of_a_matrix_outlive_the_news_of_its_owners_death(rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        await nodes["ann"].put("w", W, survive=1)
        nodes["ben"].holding.owner_gone(nodes["ann"].peer_id)
        await trio.sleep(0.05)
        await nodes["ben"].settled()
        assert nodes["ben"].used()[2] == SIZE


async def test_a_manifest_cannot_commit_anothers_put_nor_name_what_is_not_here(rig: RigFactory) -> None:
    async with rig("ann", "ben", "cyd") as nodes:
        ann, ben, cyd = nodes["ann"], nodes["ben"], nodes["cyd"]
        _, manifest, _ = await cyd.put("w", W)
        ben.holding.reserve(reservation(), OWNER)
        digest = await blob_of(ben)
        await ben.holding.hold(b"p" * 16, 0, digest, Kind.RESIDENT)
        there = replace(manifest, copies=({ben.peer_id: Kind.RESIDENT},), seq=2)

        async def apply() -> None:
            async with ben.holding.applying(there, b"p" * 16, established=False):
                raise AssertionError("it was let in")

        await fails_with(NotPermitted, apply)
        assert ann.peer_id == OWNER
        assert ben.used() == (0, SIZE, 0, SIZE)


async def test_what_a_node_lacked_before_hinders_no_new_copy(rig: RigFactory) -> None:
    """Its disk was lost, and the new one has room for the first partition only."""
    async with rig("ann", "ben", "cyd") as nodes:
        _, manifest, _ = await nodes["ann"].put("w", W)
        ben = next(node for node in nodes if node.peer_id not in {OWNER, *manifest.holders})
        ben.holding.reserve(reservation(), OWNER)
        digest = await blob_of(ben)
        await ben.holding.hold(b"p" * 16, 0, digest, Kind.RESIDENT)
        given = {ben.peer_id: Kind.RESIDENT}
        both = replace(manifest, digests=(digest, b"l" * 32), copies=(given, given), seq=2)

        async def apply(put_id: bytes) -> None:
            async with ben.holding.applying(both, put_id, established=False) as transaction:
                await ben.database.write(transaction)

        await fails_with(NotPermitted, partial(apply, b"of no put yet..."))
        await apply(b"p" * 16)
        assert [holding.partition_index for holding in await ben.held()] == [0]


async def test_a_commit_that_fails_on_disk_changes_nothing(rig: RigFactory) -> None:
    async with rig("ann") as nodes:
        ann = nodes["ann"]
        _, manifest, _ = await ann.put("w", W)

        async def fail() -> None:
            async with ann.holding.applying(replace(manifest, seq=2, removed=True), b"", established=True):
                raise Overloaded("the disk is busy")

        await fails_with(Overloaded, fail)
        assert ann.used() == (SIZE, 0, SIZE, 0)
        assert await ann.get("w") == W.tobytes()


async def test_matrices_share_bytes_and_each_counts_its_own(rig: RigFactory) -> None:
    async with rig("ann", "ben", pledges={"ann": 8 * SIZE, "ben": SIZE - 1}) as nodes:
        ann, ben = nodes["ann"], nodes["ben"]
        await ann.put("mine", W)
        ben.membership.update_advert(memory_pledged_bytes=0)
        await ben.put("yours", W)
        assert len(ann.blobs.digests()) == 1
        assert ann.used() == (2 * SIZE, 0, 2 * SIZE, 0)
        await ann.removing.remove("mine")
        await ann.settled()
        assert await ann.get("yours") == W.tobytes()
        assert ann.used() == (SIZE, 0, SIZE, 0)
        await ben.removing.remove("yours")
        for node in nodes:
            await node.is_empty()


async def test_the_same_bytes_in_another_shape_are_another_matrix(rig: RigFactory) -> None:
    async with rig("ann") as nodes:
        ann = nodes["ann"]
        for name, shape in (("wide", (150, 100)), ("narrow", (300, 50))):
            _, manifest, _ = await ann.put(name, W.reshape(shape))
            partition = await ann.residents.get(manifest.digests[0], *shape, "float32")
            x = np.ones((1, shape[1]), np.float32)
            np.testing.assert_allclose(
                partition.multiply(x)[0], W.reshape(shape).sum(axis=1), rtol=1e-4, atol=1e-4
            )
        assert len(ann.blobs.digests()) == 1
        await ann.removing.remove("wide")
        partition = await ann.residents.get(manifest.digests[0], 300, 50, "float32")
        assert partition.shape == (300, 50)


async def test_partitions_are_given_from_any_chunk_on(rig: RigFactory) -> None:
    w = matrix(3 * 64, 5000)  # 3.7 MiB
    async with rig("ann") as nodes:
        ann = nodes["ann"]
        _, manifest, _ = await ann.put("w", w)
        call: Any = PeerCall("somebody")
        request = wire.FetchPartitionRequest(digest=manifest.digests[0], offset=2 << 20)
        await ann.holding.fetch_partition(request, call)
        assert b"".join(call.sent) == w.tobytes()[2 << 20 :]
        unknown = wire.FetchPartitionRequest(digest=bytes(32))
        await fails_with(MatrixNotFound, partial(ann.holding.fetch_partition, unknown, call))


async def test_room_for_a_put_that_was_given_up_is_asked_for_too_late(rig: RigFactory) -> None:
    async with rig("ben") as nodes:
        ben = nodes["ben"]
        owner: Any = PeerCall(OWNER)
        await ben.holding.release_put(wire.ReleasePutRequest(put_id=b"p" * 16), owner)

        async def reserve() -> None:
            ben.holding.reserve(reservation(), OWNER)

        await fails_with(NotPermitted, reserve)
        assert ben.used() == (0, 0, 0, 0)


@pytest.mark.parametrize("disk", [0, SIZE])
async def test_a_matrix_of_the_same_content_lends_its_bytes_but_no_room(disk: int, rig: RigFactory) -> None:
    """Ann believes a standby copy on ben and has it made resident, which takes no disk; only ben's own is there."""
    async with rig("ann", "ben") as nodes:
        ann, ben = nodes["ann"], nodes["ben"]
        ann.membership.update_advert(memory_pledged_bytes=0)
        _, mine, _ = await ben.put("mine", W)
        anns = replace(mine, key=ManifestKey(mine.key.matrix_digest, ann.peer_id), owner=ann.peer_id)
        ben.holding.reserve(reservation(disk=disk), ann.peer_id)
        await ben.holding.hold(b"p" * 16, 0, mine.digests[0], Kind.RESIDENT)

        async def commit() -> None:
            async with ben.holding.applying(anns, b"p" * 16, established=False) as transaction:
                await ben.database.write(transaction)

        if disk:
            await commit()
            assert ben.used() == (2 * SIZE, 0, 2 * SIZE, 0)
        else:
            await fails_with(NotPermitted, commit)
            assert ben.used() == (SIZE, SIZE, SIZE, 0)


@pytest.mark.parametrize(("state", "taken"), [("alive", True), ("suspect", True), ("dead", False)])
async def test_a_node_held_for_dead_sets_no_room_aside(state: str, taken: bool, rig: RigFactory) -> None:
    """Nobody would tell that it died, and give up its put: that news came already."""
    async with rig("ann", "ben") as nodes:
        ben = nodes["ben"]
        ben.membership.states[nodes["ann"].peer_id] = state
        composed: Any = SimpleNamespace(
            membership=ben.membership, draining=SimpleNamespace(is_draining=False)
        )
        ben.holding.refuses = partial(Node.refusal_of_copies, composed)
        owner: Any = PeerCall(nodes["ann"].peer_id)
        reserve = partial(ben.holding.reserve_copies, reservation(), owner)
        if taken:
            await reserve()
        else:
            await fails_with(InsufficientCapacity, reserve)
        assert ben.used() == (0, SIZE * taken, 0, SIZE * taken)
