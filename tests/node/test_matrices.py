from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trio
from examples import matrix
from rig import Rig, RigNode, fails_with, open_rig, put_request, until
from stand_ins import ClientCall, PeerCall

from sedmad.core.membership.claim import Claim
from sedmad.core.membership.record import SignedRecord
from sedmad.errors import InsufficientCapacity, MatrixNotFound, MatrixTooLarge, StaleManifest
from sedmad.node.asking import Result
from sedmad.node.manifest import Manifest
from sedmad.node.matrices import STALE_RETRIES, MatrixService, MatrixSummaries
from sedmad.node.records import sign_record
from sedmad.node.removing import REPLACED_AFTER_S
from sedmad.sizes import format_bytes
from sedmad.wire import messages as wire

RigFactory = Callable[..., Any]
W = matrix(300, 50)
X = np.ones((2, 50), np.float32)


class Asking:
    """Multiplies, but calls manifests stale that it was told to."""

    def __init__(self) -> None:
        self.stale: set[tuple[int, int]] = set()
        self.asked: list[Manifest] = []

    async def multiply(self, manifest: Manifest, panel: Any, **options: Any) -> Result:
        self.asked.append(manifest)
        await trio.lowlevel.checkpoint()
        if manifest.order in self.stale:
            raise StaleManifest("it lies elsewhere")
        y = np.ascontiguousarray(panel @ W if options["transposed"] else panel @ W.T)
        return Result(y, 0.0, len(panel), ())


def service_of(node: RigNode, asking: Any) -> MatrixService:
    membership: Any = node.membership
    return MatrixService(
        membership=membership,
        lookups=node.lookups,
        summaries=MatrixSummaries(membership, node.holding),
        putting=node.putting,
        getting=node.getting,
        removing=node.removing,
        asking=asking,
        describing=node.describing,
    )


def apply(service: MatrixService, x: Any = X, **changes: Any) -> Any:
    call: Any = PeerCall("", deadline=trio.current_time() + 20, payload=x.tobytes())
    fields = {"name": "w", "columns": len(x)} | changes
    return partial(service.apply_matrix, wire.ApplyMatrixRequest(**fields), call)


async def moved(nodes: Rig) -> Manifest:
    """Write a newer manifest that only the owner knows."""
    ann = nodes["ann"]
    claim = ann.membership.core.directory.get("w")
    old = await ann.lookups.look_up(claim, deadline=trio.current_time() + 5)
    kept = await ann.manifests.store_own(replace(old, seq=old.seq + 1, previous_digest=old.digest))
    return kept.manifest


@pytest.mark.parametrize("transposed", [False, True])
async def test_products_say_what_answered_and_that_nothing_verified_it(
    transposed: bool, rig: RigFactory
) -> None:
    async with rig("ann") as nodes:
        await nodes["ann"].put("w", W)
        service = service_of(nodes["ann"], Asking())
        x = np.ones((2, 300 if transposed else 50), np.float32)
        response, payload = await apply(service, x, transposed=transposed, explain=True)()
        assert (response.version, response.length) == (1, 50 if transposed else 300)
        assert response.verification == wire.VERIFICATION_UNVERIFIED
        assert response.explanation.joined_columns == 2
        np.testing.assert_array_equal(
            np.frombuffer(payload, np.float32).reshape(2, -1), x @ W if transposed else x @ W.T
        )


async def test_a_matrix_that_moved_is_looked_up_again(rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        asking = Asking()
        _, old, _ = await nodes["ann"].put("w", W, survive=1)
        newer = await moved(nodes)
        asking.stale = {old.order}
        await apply(service_of(nodes["ben"], asking))()
        assert asking.asked == [old, newer]


async def test_a_matrix_that_always_moves_ends_in_an_error(rig: RigFactory) -> None:
    async with rig("ann", "ben") as nodes:
        asking = Asking()
        _, old, _ = await nodes["ann"].put("w", W, survive=1)
        newer = await moved(nodes)
        asking.stale = {old.order, newer.order}
        await fails_with(StaleManifest, apply(service_of(nodes["ben"], asking)))
        assert len(asking.asked) == STALE_RETRIES


async def test_what_is_asked_for_has_to_be_there_and_fit(rig: RigFactory) -> None:
    async with rig("ann") as nodes:
        await nodes["ann"].put("w", W)
        service = service_of(nodes["ann"], Asking())
        await fails_with(MatrixNotFound, apply(service, name="v"))
        await fails_with(MatrixNotFound, apply(service, version=2))
        await apply(service, version=1)()
        for columns in (0, 65):
            await fails_with(MatrixTooLarge, apply(service, columns=columns))


async def test_who_is_refused_for_want_of_room_learns_what_replaced_versions_give_back(
    tmp_path: Path,
) -> None:
    async with open_rig(tmp_path, "ann", pledges={"ann": W.nbytes * 5 // 2}) as nodes:
        ann = nodes["ann"]

        async def put(name: str, seed: int) -> None:
            array = matrix(300, 50, seed=seed)
            call: Any = ClientCall(array.tobytes())
            await service_of(ann, Asking()).put_matrix(put_request(name, array, replace=True), call)

        await put("w", 1)
        await put("v", 2)
        refusal = await fails_with(InsufficientCapacity, partial(put, "w", 3))
        assert (refusal.retry_after_s, refusal.matrix) == (None, "w")
        await ann.removing.remove("v")
        await put("w", 3)
        refusal = await fails_with(InsufficientCapacity, partial(put, "w", 4))
        assert REPLACED_AFTER_S <= refusal.retry_after_s <= REPLACED_AFTER_S + 2
        assert f"replaced versions give back {format_bytes(W.nbytes)} soon" in refusal.why
        assert f"Try again in {refusal.retry_after_s:.0f} s" in refusal.hint


async def test_room_comes_as_long_as_replaced_versions_are_there(
    rig: RigFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sedmad.node.removing.REPLACED_AFTER_S", 0.2)
    async with rig("ann", "ben") as nodes:
        ann = nodes["ann"]
        assert ann.removing.room_to_come() is None
        await ann.put("w", W, survive=1)
        await ann.put("w", matrix(300, 50, seed=1), survive=1, replace=True)
        coming = ann.removing.room_to_come()
        assert coming.size_bytes == 2 * W.nbytes
        assert coming.within_s <= 0.2

        async def is_gone() -> bool:
            return ann.removing.room_to_come() is None

        await until(is_gone)
        assert ann.used()[2] == W.nbytes


async def test_whatever_a_claim_says_the_list_is_shown(rig: RigFactory) -> None:
    """One member's nonsense must not keep the others from seeing their matrices."""
    async with rig("ann") as nodes:
        ann = nodes["ann"]
        await ann.put("w", W)
        nonsense = Claim(
            "x", 1, bytes(32), ann.peer_id, ann.peer_id, rows=2**62, columns=2**62, dtype="", survive=0
        )
        ann.membership.hear("ben", SignedRecord(nonsense, sign_record(nonsense, ann.identity)))
        ann.membership.hear(
            "ben",
            SignedRecord(
                replace(nonsense, name="y", dtype="float64"),
                sign_record(replace(nonsense, name="y", dtype="float64"), ann.identity),
            ),
        )
        membership: Any = ann.membership
        summaries = [
            MatrixSummaries(membership, ann.holding).of(name, claim)
            for name, claim in membership.core.directory.entries()
        ]
        assert [(summary.name, summary.size_bytes) for summary in summaries] == [
            ("w", W.nbytes),
            ("x", 0),
            ("y", 2**64 - 1),
        ]
