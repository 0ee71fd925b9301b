from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from examples import matrix
from rig import fails_with
from stand_ins import ClientCall

from sedmad.errors import (
    InsufficientCapacity,
    NameTaken,
    NodeUnreachable,
    NotEnoughPeers,
    UnsupportedDtype,
    UsageError,
)
from sedmad.store.holdings import Kind
from sedmad.wire import messages as wire

RigFactory = Callable[..., Any]
SMALL = 70_000


async def test_what_goes_in_comes_out_on_every_node(rig: RigFactory) -> None:
    w = matrix(4200, 1024)  # three partitions
    async with rig("ann", "ben", "cyd") as nodes:
        claim, manifest, already_stored = await nodes["ann"].put("w", w, survive=1)
        assert not already_stored
        assert (claim.version, manifest.survive, len(manifest.digests)) == (1, 1, 3)
        for node in nodes:
            assert await node.get("w") == w.tobytes()
            assert not await node.puts()
            assert node.used()[1] == node.used()[3] == 0
        assert sum(node.used()[0] for node in nodes) == w.nbytes
        assert sum(node.used()[2] for node in nodes) == 2 * w.nbytes
        for copies in manifest.copies:
            assert list(copies.values()) == [Kind.RESIDENT, Kind.STANDBY]


async def test_progress_ends_with_every_copy_safe(rig: RigFactory) -> None:
    w = matrix(2100, 1024)
    async with rig("ann", "ben") as nodes:
        call = ClientCall(w.tobytes())
        await nodes["ann"].put("w", w, survive=1, call=call)
        told = [message.safe_bytes for message in call.sent]
        assert told[0] == 0
        assert told == sorted(told)
        assert max(told) <= 2 * w.nbytes


async def test_the_same_content_under_the_same_name_is_stored_once(rig: RigFactory) -> None:
    w = matrix()
    async with rig("ann", "ben") as nodes:
        await nodes["ann"].put("w", w)
        before = [node.used() for node in nodes]
        for node in nodes:
            claim, _, already_stored = await node.put("w", w)
            assert (claim.version, already_stored) == (1, True)
        assert [node.used() for node in nodes] == before


@pytest.mark.parametrize(
    ("other", "options"),
    [
        (matrix(seed=1), {}),
        (matrix(301), {}),
        (matrix(dtype="float64"), {}),
        (matrix(), {"survive": 1}),
    ],
    ids=["content", "shape", "dtype", "survive"],
)
async def test_a_taken_name_is_refused(other: Any, options: dict[str, Any], rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        await nodes["ann"].put("w", matrix())
        await fails_with(NameTaken, partial(nodes["ben"].put, "w", other, **options))
        assert await nodes["ben"].get("w") == matrix().tobytes()


async def test_a_replacement_is_the_next_version_and_says_what_it_replaced(rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        first, _, _ = await nodes["ann"].put("w", matrix())
        second, _, _ = await nodes["ben"].put("w", matrix(seed=1), replace=True)
        assert (first.version, second.version) == (1, 2)
        assert second.replaces(first)
        assert await nodes["ann"].get("w") == matrix(seed=1).tobytes()


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (wire.PutMatrixRequest(name="a@b", rows=1, columns=1, data_type=wire.DATA_TYPE_FLOAT32), UsageError),
        (wire.PutMatrixRequest(name="w", rows=1, columns=1), UnsupportedDtype),
        (wire.PutMatrixRequest(name="w", rows=0, columns=1, data_type=wire.DATA_TYPE_FLOAT32), UsageError),
        (
            wire.PutMatrixRequest(name="w", rows=1 << 40, columns=9, data_type=wire.DATA_TYPE_FLOAT32),
            InsufficientCapacity,
        ),
        (
            wire.PutMatrixRequest(name="w", rows=1, columns=9, data_type=wire.DATA_TYPE_FLOAT32, survive=1),
            NotEnoughPeers,
        ),
        (
            wire.PutMatrixRequest(name="w", rows=1, columns=9, data_type=wire.DATA_TYPE_FLOAT32, survive=99),
            NotEnoughPeers,
        ),
    ],
    ids=["at sign", "dtype", "no rows", "too large", "no peers", "too many copies"],
)
async def test_what_cannot_be_stored_is_refused_before_a_byte_moves(
    request_: wire.PutMatrixRequest, error: Any, rig: RigFactory
) -> None:
    async with rig("ann") as nodes:
        call = ClientCall(b"1234")
        await fails_with(error, lambda: nodes["ann"].putting.put(request_, call))
        assert not call.asked
        assert not call.sent
        await nodes["ann"].is_empty()


async def test_a_refusal_shows_the_arithmetic(rig: RigFactory) -> None:
    async with rig("ann", "ben", pledges={"ann": 10_000, "ben": 10_000}) as nodes:
        error = await fails_with(InsufficientCapacity, partial(nodes["ann"].put, "w", matrix()))
        assert error.matrix == "w"
        assert "ann: memory" in error.why
        assert "ben: memory" in error.why


async def test_a_node_that_refuses_is_left_out_of_the_next_plan(rig: RigFactory) -> None:
    w = matrix(20_000, 1)  # 80 kB
    pledges = {"ann": 50_000, "ben": SMALL, "cyd": 100_000}
    async with rig("ann", "ben", "cyd", pledges=pledges) as nodes:
        # What ben tells of itself is out of date: it has no room at all.
        nodes["ben"].holding.reserve(
            wire.ReserveCopiesRequest(
                put_id=bytes(16),
                resident_bytes=SMALL,
                disk_bytes=SMALL,
                rows=1,
                columns=1,
                data_type=wire.DATA_TYPE_FLOAT32,
            ),
            "somebody",
        )
        stale = nodes["ben"].membership.core.advert
        nodes["ben"].membership.update_advert(
            memory_used_bytes=0, disk_used_bytes=0, compute_gflops=1e6, memory_bandwidth_bytes_per_s=1e15
        )
        nodes["cyd"].membership.update_advert(memory_pledged_bytes=200_000, disk_pledged_bytes=400_000)
        _, manifest, _ = await nodes["ann"].put("w", w)
        assert stale.memory_used_bytes == SMALL
        assert manifest.holders == {nodes["cyd"].peer_id}
        assert nodes["ann"].used() == (0, 0, 0, 0)


async def test_what_only_passes_through_needs_room_as_well(rig: RigFactory) -> None:
    """No byte of a partition lies on a disk that was not pledged for it, not even on its way to others."""
    async with rig("ann", "ben", pledges={"ann": 10_000, "ben": 200_000}) as nodes:
        call = ClientCall(matrix(20_000, 1).tobytes())
        error = await fails_with(
            InsufficientCapacity, partial(nodes["ann"].put, "w", matrix(20_000, 1), call=call)
        )
        assert "disk" in error.what
        assert not call.asked
        for node in nodes:
            await node.is_empty()


async def test_a_put_that_never_fits_names_who_refused(rig: RigFactory) -> None:
    async with rig("ann", "ben", pledges={"ann": 10, "ben": SMALL}) as nodes:

        async def refuse(peer_id: str) -> None:
            raise NodeUnreachable("it does not answer", node=peer_id)

        nodes["ann"].sessions.before["ReserveCopies"] = refuse
        error = await fails_with(InsufficientCapacity, partial(nodes["ann"].put, "w", matrix()))
        assert "ben" in error.why
        await nodes["ann"].is_empty()
