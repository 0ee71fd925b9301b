"""One product under way, with holders that answer as a script says and a clock that does not wait."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
import trio
from examples import SPREAD_COLUMNS as COLUMNS
from examples import SPREAD_HOLDERS as HOLDERS
from examples import SPREAD_ROWS as ROWS
from examples import matrix, spread_manifest

from sedmad.core.accuracy import EXACT
from sedmad.core.prediction import Work
from sedmad.errors import (
    DeadlineExceeded,
    HoldersUnreachable,
    MatrixNotFound,
    NodeUnreachable,
    SedmadError,
    StaleManifest,
)
from sedmad.node.manifest import Manifest
from sedmad.node.noise import noise_keys
from sedmad.node.product import ROUND_PAUSES_S, Product
from sedmad.node.share import Share, ShareResult

W = matrix(ROWS, COLUMNS)
LATE_S = 1.0
Script = Callable[[tuple[int, ...]], Awaitable[None]]


class Holders:
    """Answers shares as ShareAsker does; what a script says comes first."""

    def __init__(self, w: Any) -> None:
        self.w = w
        self.scripts: dict[str, Script] = {}
        self.asked: list[tuple[str, tuple[int, ...]]] = []

    async def ask(
        self,
        peer_id: str,
        manifest: Manifest,
        partitions: tuple[int, ...],
        panel: Any,
        noise: Any,
        *,
        transposed: bool,
        deadline: float,
    ) -> ShareResult:
        self.asked.append((peer_id, partitions))
        await trio.lowlevel.checkpoint()
        if script := self.scripts.get(peer_id):
            with trio.CancelScope(deadline=deadline) as scope:
                await script(partitions)
            if scope.cancelled_caught:
                raise DeadlineExceeded("no answer in time", node=peer_id)
        arrays = []
        with np.errstate(all="ignore"):
            for index in partitions:
                rows = slice(*manifest.rows_of(index))
                if transposed:
                    arrays.append(panel[:, rows].astype(np.float64) @ self.w[rows].astype(np.float64))
                else:
                    arrays.append(panel @ self.w[rows].T)
        return ShareResult(arrays, 0.001, 0.002)


class Choices:
    """Chooses the first holder that was not tried, as Chooser would."""

    def __init__(self) -> None:
        self.dead: set[str] = set()
        self.may_hedge = True
        self.counts: dict[str, int] = dict.fromkeys(("asked", "answered", "failed", "withdrawn"), 0)

    def shares(self, manifest: Manifest, work: Work, partitions: Any, tried: Any, reason: str) -> list[Share]:
        assigned: dict[str, list[int]] = {}
        for index in partitions:
            for peer in manifest.copies[index]:
                if peer not in tried[index] and peer not in self.dead:
                    assigned.setdefault(peer, []).append(index)
                    break
        return [Share(peer, tuple(indexes), not reason, 0.01, reason) for peer, indexes in assigned.items()]

    def is_lost(self, manifest: Manifest, index: int) -> bool:
        return self.dead.issuperset(manifest.copies[index])

    def unreachable(self, manifest: Manifest, partitions: list[int]) -> HoldersUnreachable:
        holders = sorted({peer for index in partitions for peer in manifest.copies[index]})
        return HoldersUnreachable(f"{len(partitions)} partitions", node=", ".join(holders))

    def late_after_s(self, share: Share) -> float:
        return LATE_S

    def may_ask_twice(self, share: Share) -> bool:
        return self.may_hedge

    def asked(self, share: Share) -> None:
        self.counts["asked"] += 1

    def answered(self, share: Share, work: Work, elapsed_s: float, result: ShareResult) -> None:
        self.counts["answered"] += 1

    def failed(self, share: Share) -> None:
        self.counts["failed"] += 1

    def withdrawn(self, share: Share) -> None:
        self.counts["withdrawn"] += 1


class Setup:
    def __init__(
        self, *, transposed: bool = False, copies: int = 2, patience_s: float = 30, w: Any = W
    ) -> None:
        self.holders, self.choices = Holders(w), Choices()
        self.x = (
            np.random.default_rng(1).standard_normal((3, ROWS if transposed else COLUMNS)).astype(w.dtype)
        )
        asker: Any = self.holders
        chooser: Any = self.choices
        self.product = Product(
            spread_manifest(str(w.dtype), copies),
            self.x,
            noise_keys(EXACT, len(self.x)),
            transposed=transposed,
            deadline=trio.current_time() + patience_s,
            asker=asker,
            chooser=chooser,
            name_of=lambda peer_id: peer_id.upper(),
        )
        self.expected = self.x @ w if transposed else self.x @ w.T

    async def run(self) -> Any:
        try:
            y = await self.product.run()
        finally:
            # Everybody that was asked is accounted for once, however it ended.
            counts = self.choices.counts
            assert counts["asked"] == counts["answered"] + counts["failed"] + counts["withdrawn"]
        np.testing.assert_allclose(y, self.expected, rtol=1e-4, atol=1e-4)
        return y


def sleeping(seconds: float) -> Script:
    async def sleep(partitions: tuple[int, ...]) -> None:
        await trio.sleep(seconds)

    return sleep


def failing(error: SedmadError) -> Script:
    async def fail(partitions: tuple[int, ...]) -> None:
        raise error

    return fail


GONE = NodeUnreachable("it is gone")


@pytest.mark.parametrize("transposed", [False, True])
async def test_each_holder_is_asked_once_for_its_partitions(transposed: bool, autojump_clock: object) -> None:
    setup = Setup(transposed=transposed)
    await setup.run()
    assert sorted(setup.holders.asked) == [(holder, (index,)) for index, holder in enumerate(HOLDERS)]
    assert {answer.share.reason for answer in setup.product.answers} == {""}


@pytest.mark.parametrize("transposed", [False, True])
async def test_a_late_answer_is_asked_of_a_standby_copy_and_the_first_counts(
    transposed: bool, autojump_clock: object
) -> None:
    setup = Setup(transposed=transposed)
    setup.holders.scripts["ann"] = sleeping(20)
    began = trio.current_time()
    await setup.run()
    assert trio.current_time() - began == pytest.approx(LATE_S)
    assert setup.holders.asked[-1] == ("ben", (0,))
    assert "ANN is late" in {answer.share.reason for answer in setup.product.answers}


async def test_the_late_answer_counts_if_it_comes_first(autojump_clock: object) -> None:
    setup = Setup()
    setup.holders.scripts["ann"] = sleeping(2)
    first = itertools.count()

    async def slower(partitions: tuple[int, ...]) -> None:
        await trio.sleep(0 if next(first) == 0 else 10)

    setup.holders.scripts["ben"] = slower
    began = trio.current_time()
    await setup.run()
    assert trio.current_time() - began == pytest.approx(2)
    assert setup.choices.counts["withdrawn"] == 1


async def test_without_budget_a_late_answer_is_waited_for(autojump_clock: object) -> None:
    setup = Setup()
    setup.choices.may_hedge = False
    setup.holders.scripts["ann"] = sleeping(5)
    await setup.run()
    assert len(setup.holders.asked) == 4


@pytest.mark.parametrize("transposed", [False, True])
async def test_an_error_is_answered_by_another_holder_at_once(
    transposed: bool, autojump_clock: object
) -> None:
    setup = Setup(transposed=transposed)
    setup.holders.scripts["ann"] = failing(GONE)
    began = trio.current_time()
    await setup.run()
    assert trio.current_time() == began
    assert "ANN failed" in {answer.share.reason for answer in setup.product.answers}


async def test_whom_one_doubts_others_are_asked_for_at_once(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    setup = Setup()
    setup.holders.scripts["ann"] = sleeping(20)

    async def doubt() -> None:
        await trio.sleep(0.1)
        setup.product.doubt("ann")
        setup.product.doubt("nobody")

    nursery.start_soon(doubt)
    began = trio.current_time()
    await setup.run()
    assert trio.current_time() - began == pytest.approx(0.1)
    assert "ANN is suspected" in {answer.share.reason for answer in setup.product.answers}


async def test_holders_that_come_back_within_the_rounds_are_asked_again(autojump_clock: object) -> None:
    setup = Setup()
    began = trio.current_time()

    async def away(partitions: tuple[int, ...]) -> None:
        if trio.current_time() - began < 1.0:
            raise GONE

    for holder in HOLDERS:
        setup.holders.scripts[holder] = away
    await setup.run()
    assert 1.0 <= trio.current_time() - began < 2.0


@pytest.mark.parametrize("copies", [1, 2])
async def test_many_holders_lost_at_once_share_their_rounds(copies: int, autojump_clock: object) -> None:
    """Each failure alone would use up a round: a short break of this node's network would end every product."""
    setup = Setup(copies=copies)
    began = trio.current_time()

    async def away(partitions: tuple[int, ...]) -> None:
        await trio.sleep(0.001 * partitions[0])
        if trio.current_time() - began < 3.0:
            raise GONE

    for holder in HOLDERS:
        setup.holders.scripts[holder] = away
    await setup.run()


async def test_holders_that_stay_away_are_named(autojump_clock: object) -> None:
    setup = Setup()
    for holder in ("ann", "ben"):
        setup.holders.scripts[holder] = failing(GONE)
    began = trio.current_time()
    with pytest.raises(HoldersUnreachable) as raised:
        await setup.run()
    assert trio.current_time() - began == pytest.approx(sum(ROUND_PAUSES_S))
    assert raised.value.node == "ann, ben"


async def test_nobody_waits_for_the_dead(autojump_clock: object) -> None:
    setup = Setup()
    setup.choices.dead = {"ann", "ben"}
    began = trio.current_time()
    with pytest.raises(HoldersUnreachable):
        await setup.run()
    assert trio.current_time() == began


async def test_a_stale_manifest_ends_the_product(autojump_clock: object) -> None:
    setup = Setup()
    setup.holders.scripts["cyd"] = failing(StaleManifest("it lies elsewhere"))
    setup.holders.scripts["ann"] = sleeping(20)
    began = trio.current_time()
    with pytest.raises(StaleManifest):
        await setup.run()
    assert trio.current_time() == began


@pytest.mark.parametrize("copies", [1, 2])
async def test_at_its_deadline_a_product_ends_and_knows_whom_it_waited_for(
    copies: int, autojump_clock: object, nursery: trio.Nursery
) -> None:
    setup = Setup(copies=copies, patience_s=5)
    for holder in ("ann", "ben"):
        setup.holders.scripts[holder] = sleeping(60)
    waited: list[list[str]] = []

    async def look() -> None:
        await trio.sleep(4)
        waited.append(setup.product.waiting_for())

    nursery.start_soon(look)
    began = trio.current_time()
    with pytest.raises((DeadlineExceeded, HoldersUnreachable)):
        await setup.run()
    assert trio.current_time() - began <= 5.25
    assert waited == [["ann", "ben"]]


async def test_between_rounds_it_says_whom_it_waits_for(
    autojump_clock: object, nursery: trio.Nursery
) -> None:
    setup = Setup(copies=1)
    setup.holders.scripts["cyd"] = failing(GONE)
    with trio.move_on_after(0.05):
        await setup.product.run()
    assert setup.product.waiting_for() == ["cyd"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
async def test_transposed_sums_are_the_same_bits_whoever_answers_first(
    dtype: str, autojump_clock: object
) -> None:
    w = matrix(ROWS, COLUMNS, dtype)
    results = set()
    for order in itertools.permutations(range(4)):
        setup = Setup(transposed=True, w=w)
        for place, holder in zip(order, HOLDERS, strict=True):
            setup.holders.scripts[holder] = sleeping(0.1 * place)
        results.add((await setup.run()).tobytes())
    assert len(results) == 1


@pytest.mark.parametrize("transposed", [False, True])
async def test_what_is_no_number_goes_through_without_a_warning(
    transposed: bool, autojump_clock: object
) -> None:
    setup = Setup(transposed=transposed)
    setup.x[0, 0], setup.x[1, -1] = np.inf, np.nan
    if transposed:
        setup.x[0, -1] = -np.inf
    with np.errstate(all="ignore"):
        setup.expected = (setup.x.astype(np.float64) @ (W if transposed else W.T)).astype(np.float32)
    await setup.run()


async def test_holders_that_know_nothing_of_a_matrix_send_the_asker_to_look_it_up_again(
    autojump_clock: object,
) -> None:
    """It was removed or replaced while the product was on its way: nobody is out of reach."""
    setup = Setup()
    for holder in HOLDERS:
        setup.holders.scripts[holder] = failing(MatrixNotFound("this node holds nothing of that matrix"))
    with pytest.raises(StaleManifest):
        await setup.run()
    # One that missed nothing is enough.
    setup = Setup()
    setup.holders.scripts["ann"] = failing(MatrixNotFound("this node holds nothing of that matrix"))
    await setup.run()
