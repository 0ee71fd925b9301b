from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
import trio
from examples import manifest_of, matrix
from rig import fails_with
from stand_ins import PeerCall

from sedmad.core.accuracy import EXACT
from sedmad.errors import MatrixNotFound, ProtocolViolation, StaleManifest, UsageError
from sedmad.node.manifest import Manifest
from sedmad.node.multiplying import MultiplyingService, columns_max
from sedmad.node.noise import noise_keys
from sedmad.node.share import ShareAsker
from sedmad.node.succession import key_to_wire
from sedmad.wire import messages as wire

RigFactory = Callable[..., Any]
W = matrix(2100, 1024)
FAR = 1e12
EXACT_KEYS = noise_keys(EXACT, 1)


@asynccontextmanager
async def holder_of(rig: RigFactory, w: Any) -> AsyncIterator[tuple[MultiplyingService, Manifest]]:
    async with rig("ann") as nodes, trio.open_nursery() as nursery:
        ann = nodes["ann"]
        _, manifest, _ = await ann.put("w", w)
        service = MultiplyingService(ann.manifests, ann.residents, ann.peer_id)
        await nursery.start(service.joiner.serve)
        yield service, manifest
        nursery.cancel_scope.cancel()


def request_for(manifest: Manifest, partitions: Any, columns: int = 2, **changes: Any) -> Any:
    fields = {"epoch": manifest.epoch, "seq": manifest.seq, "transposed": False} | changes
    return wire.MultiplyPartitionsRequest(
        key=key_to_wire(manifest.key), partitions=partitions, columns=columns, **fields
    )


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("partitions", [(0,), (1,), (0, 1), (1, 0)])
async def test_a_members_share_is_answered_partition_by_partition(
    partitions: tuple[int, ...], transposed: bool, rig: RigFactory
) -> None:
    async with holder_of(rig, W) as (service, manifest):
        blocks = [W[slice(*manifest.rows_of(index))] for index in partitions]
        width = sum(map(len, blocks)) if transposed else 1024
        x = np.random.default_rng(2).standard_normal((2, width)).astype(np.float32)
        call: Any = PeerCall("ben", deadline=FAR, payload=x.tobytes())
        request = request_for(manifest, partitions, transposed=transposed)
        _, payload = await service.multiply_partitions(request, call)
        offset = column = 0
        for block in blocks:
            length, dtype = (1024, np.float64) if transposed else (len(block), np.float32)
            size = 2 * length * np.dtype(dtype).itemsize
            got = np.frombuffer(payload[offset : offset + size], dtype).reshape(2, length)
            part = x[:, column : column + len(block)] if transposed else x
            expected = part.astype(np.float64) @ (block if transposed else block.T).astype(np.float64)
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-3)
            offset, column = offset + size, column + len(block)
        assert offset == len(payload)


@pytest.mark.parametrize(
    ("partitions", "columns"), [((), 1), ((2,), 1), ((0, 0), 1), ((0,), 0), ((0,), 65), ((0,), 1 << 31)]
)
async def test_what_there_is_not_is_refused_before_room_is_made_for_it(
    partitions: tuple[int, ...], columns: int, rig: RigFactory
) -> None:
    async with holder_of(rig, W) as (service, manifest):
        call: Any = PeerCall("ben", deadline=FAR)
        request = request_for(manifest, partitions, columns)
        await fails_with(ProtocolViolation, partial(service.multiply_partitions, request, call))


async def test_an_older_manifest_is_stale_and_an_unknown_matrix_not_here(rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        ann = nodes["ann"]
        _, manifest, _ = await ann.put("w", matrix())
        await ann.put("again", matrix(), survive=1)
        service = MultiplyingService(ann.manifests, ann.residents, ann.peer_id)
        call: Any = PeerCall("ben", deadline=FAR)
        stale = request_for(manifest, (0,))
        await fails_with(StaleManifest, partial(service.multiply_partitions, stale, call))
        stale.key.matrix_digest = bytes(32)
        await fails_with(MatrixNotFound, partial(service.multiply_partitions, stale, call))


async def test_a_partition_that_lies_elsewhere_is_not_multiplied(rig: RigFactory) -> None:
    async with holder_of(rig, matrix()) as (service, manifest):
        service._own_peer_id = "somebody else"
        x = np.zeros((1, 50), np.float32)
        multiply = partial(service.multiply, manifest, (0,), x, EXACT_KEYS, transposed=False, deadline=FAR)
        await fails_with(MatrixNotFound, multiply)


@pytest.mark.parametrize("transposed", [False, True])
async def test_near_and_far_holders_give_the_same_bits(transposed: bool, rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes, trio.open_nursery() as nursery:
        ann, ben = nodes["ann"], nodes["ben"]
        _, manifest, _ = await ann.put("w", W, survive=1)
        arrays = []
        for node in (ann, ben):
            service = MultiplyingService(node.manifests, node.residents, node.peer_id)
            await nursery.start(service.joiner.serve)
            node.methods.add("ProductService", service)
            if node is ann:
                sessions: Any = ann.sessions
                asker = ShareAsker(ann.peer_id, sessions, service)
        x = np.random.default_rng(3).standard_normal((3, 2100 if transposed else 1024)).astype(np.float32)
        for node in (ann, ben):
            result = await asker.ask(
                node.peer_id,
                manifest,
                (0, 1),
                x,
                EXACT_KEYS,
                transposed=transposed,
                deadline=trio.current_time() + 20,
            )
            arrays.append([np.asarray(array).tobytes() for array in result.arrays])
            assert result.service_s > 0
        assert arrays[0] == arrays[1]
        nursery.cancel_scope.cancel()


def test_a_panel_is_never_larger_than_may_travel() -> None:
    for rows, columns in ((1, 1), (70, 100_000), (100_000, 70), (64, 1 << 20)):
        manifest = manifest_of(rows, columns)
        for transposed in (False, True):
            assert 1 <= columns_max(manifest, transposed) <= 64


@pytest.mark.parametrize("transposed", [False, True])
async def test_a_share_of_integers_is_exact_or_refused(transposed: bool, rig: RigFactory) -> None:
    w = np.random.default_rng(0).integers(-128, 128, (9000, 1024)).astype(np.int8)
    async with holder_of(rig, w) as (service, manifest):
        block = w[slice(*manifest.rows_of(1))]
        width = len(block) if transposed else 1024
        x = np.random.default_rng(1).integers(-1000, 1000, (3, width)).astype(np.int32)

        def call_with(panel: Any) -> Any:
            return PeerCall("ben", deadline=FAR, payload=panel.tobytes())

        request = request_for(manifest, (1,), 3, transposed=transposed, integers=True)
        _, payload = await service.multiply_partitions(request, call_with(x))
        got = np.frombuffer(payload, np.float64 if transposed else np.int32).reshape(3, -1)
        np.testing.assert_array_equal(got, x.astype(np.int64) @ (block if transposed else block.T))

        x[1, 7] = -(2**31)
        with pytest.raises(UsageError, match="int32"):
            await service.multiply_partitions(request, call_with(x))


async def test_integers_are_for_int8_only(rig: RigFactory) -> None:
    async with holder_of(rig, W) as (service, manifest):
        call: Any = PeerCall("ben", deadline=FAR, payload=bytes(2 * 1024 * 4))
        with pytest.raises(ProtocolViolation, match="int8"):
            await service.multiply_partitions(request_for(manifest, (0,), integers=True), call)
