"""One joined product under way: asked of holders, asked again where an answer is late or lost, complete or failed.

The first answer for a partition counts. A holder is asked for a partition once in each round; rounds go on for a few
seconds while somebody who has it may come back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import structlog
import trio

from sedmad.core.prediction import Work
from sedmad.errors import DeadlineExceeded, MatrixNotFound, SedmadError, StaleManifest
from sedmad.node.choosing import Chooser
from sedmad.node.clock import monotonic_s
from sedmad.node.manifest import Manifest
from sedmad.node.noise import NoiseKeys
from sedmad.node.panels import Panel, empty_panel
from sedmad.node.scale import scaled
from sedmad.node.share import Share, ShareAsker, ShareResult

log = structlog.get_logger("sedmad.product")

# A holder whose session broke is back within these, or it is dead and membership says so.
ROUND_PAUSES_S = (0.1, 0.25, 0.5, 1.0, 2.0)
# Shares end after their product, which then still knows whom it waited for.
SHARE_GRACE_S = 0.05


@dataclass(frozen=True, slots=True)
class Answer:
    """What one holder contributed."""

    share: Share
    elapsed_s: float
    wait_s: float
    service_s: float


@dataclass(slots=True, eq=False)
class _Asked:
    """A share that has not answered yet; `late_at` is when others are asked as well, once."""

    share: Share
    late_at: float


class Product:
    """W X or W^T X for one panel.

    Args:
        panel: (columns, n), of the dtype `panel_dtype`.
        noise: (columns,), keys of the noise of devices, the same for whoever is asked; empty where all is exact.
        deadline: trio's clock.
        name_of: returns what people call a node.
    """

    def __init__(
        self,
        manifest: Manifest,
        panel: Panel,
        noise: NoiseKeys,
        *,
        transposed: bool,
        deadline: float,
        asker: ShareAsker,
        chooser: Chooser,
        name_of: Callable[[str], str],
    ) -> None:
        self.manifest = manifest
        self.answers: list[Answer] = []
        self._noise = noise
        self._panel = scaled(panel, manifest.scale) if manifest.scale and transposed else panel
        self._transposed = transposed
        self._deadline = deadline
        self._asker = asker
        self._chooser = chooser
        self._name_of = name_of
        self._work = Work.of(manifest.partitioning, len(panel), transposed=transposed)
        self._results: dict[int, Panel] = {}
        self._tried: dict[int, set[str]] = {index: set() for index in range(len(manifest.copies))}
        self._outstanding: list[_Asked] = []
        # Partitions of which nobody can be asked now: they wait for the next round.
        self._stuck: set[int] = set()
        self._rounds = 0
        # Partitions of which a holder keeps nothing, not even the manifest: the matrix was removed or replaced.
        self._gone: set[int] = set()
        self._error: SedmadError | None = None
        self._finished = trio.Event()
        # Around waiting for the shares: ends when the next of them is late.
        self._patience = trio.CancelScope()
        self._nursery: trio.Nursery | None = None

    async def run(self) -> Panel:
        """Return the product's panel, (columns, length), in the dtype of X; float32 where the matrix has a scale.

        Raises:
            HoldersUnreachable: a partition has no holder that answers.
            StaleManifest: the matrix lies elsewhere now.
            DeadlineExceeded: it was not done in time.
        """
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._ask_for(range(len(self._tried)), "")
            while not self._finished.is_set():
                late_at = min((asked.late_at for asked in self._outstanding), default=math.inf)
                with trio.CancelScope(deadline=late_at) as self._patience:
                    await self._finished.wait()
                if self._patience.cancelled_caught:
                    self._ask_others_for_late()
            nursery.cancel_scope.cancel()
        if self._error is not None:
            raise self._error
        return self._put_together()

    def waiting_for(self) -> list[str]:
        """Return the peer ids of holders that have not answered what is still missing, or cannot be asked for it."""
        silent = {asked.share.peer_id for asked in self._outstanding if self._missing(asked.share.partitions)}
        return sorted(silent.union(*(self.manifest.copies[index] for index in self._missing(self._stuck))))

    def doubt(self, peer_id: str) -> None:
        """A holder may be gone: others are asked at once, and its own answer may still come."""
        for asked in list(self._outstanding):
            if asked.share.peer_id == peer_id:
                self._ask_for(asked.share.partitions, f"{self._name_of(peer_id)} is suspected")

    def _ask_for(self, partitions: Iterable[int], reason: str) -> None:
        """Ask holders that were not tried yet for what is missing of these partitions."""
        assert self._nursery is not None
        missing = self._missing(partitions)
        for share in self._chooser.shares(self.manifest, self._work, missing, self._tried, reason):
            for index in share.partitions:
                self._tried[index].add(share.peer_id)
            asked = _Asked(share, monotonic_s() + self._chooser.late_after_s(share))
            self._outstanding.append(asked)
            self._patience.deadline = min(self._patience.deadline, asked.late_at)
            self._chooser.asked(share)
            self._nursery.start_soon(self._ask, asked)
        outstanding = {index for asked in self._outstanding for index in asked.share.partitions}
        if stuck := [index for index in missing if index not in outstanding]:
            self._try_again_later(stuck)

    async def _ask(self, asked: _Asked) -> None:
        began, share = monotonic_s(), asked.share
        outcome: ShareResult | SedmadError | None = None
        try:
            outcome = await self._asker.ask(
                share.peer_id,
                self.manifest,
                share.partitions,
                self._panel,
                self._noise,
                transposed=self._transposed,
                deadline=self._deadline + SHARE_GRACE_S,
            )
        except SedmadError as error:
            outcome = error
        finally:
            if outcome is None:
                self._chooser.withdrawn(share)
        self._outstanding.remove(asked)
        if isinstance(outcome, ShareResult):
            self._accept(share, monotonic_s() - began, outcome)
        else:
            self._fail_share(share, outcome)

    def _ask_others_for_late(self) -> None:
        now = monotonic_s()
        for asked in [asked for asked in self._outstanding if asked.late_at <= now]:
            asked.late_at = math.inf
            if self._chooser.may_ask_twice(asked.share):
                self._ask_for(asked.share.partitions, f"{self._name_of(asked.share.peer_id)} is late")

    def _accept(self, share: Share, elapsed_s: float, result: ShareResult) -> None:
        self._chooser.answered(share, self._work, elapsed_s, result)
        useful = self._missing(share.partitions)
        for index, array in zip(share.partitions, result.arrays, strict=True):
            self._results.setdefault(index, array)
        if useful:
            self.answers.append(Answer(share, elapsed_s, result.wait_s, result.service_s))
        if len(self._results) == len(self._tried):
            self._finished.set()

    def _fail_share(self, share: Share, error: SedmadError) -> None:
        self._chooser.failed(share)
        log.info("share_failed", peer=share.peer_id, partitions=share.partitions, why=error.what)
        if isinstance(error, StaleManifest):
            self._end(error)
        else:
            if isinstance(error, MatrixNotFound):
                self._gone.update(share.partitions)
            self._ask_for(share.partitions, f"{self._name_of(share.peer_id)} failed")

    def _try_again_later(self, stuck: list[int]) -> None:
        assert self._nursery is not None
        if monotonic_s() >= self._deadline:
            self._end(DeadlineExceeded("the product was not done in time"))
        elif self._gone.intersection(stuck):
            self._end(StaleManifest("the matrix is not where it was", why="its holders know it no more"))
        elif any(self._chooser.is_lost(self.manifest, index) for index in stuck):
            self._end(self._chooser.unreachable(self.manifest, stuck))
        elif self._stuck:
            self._stuck.update(stuck)
        elif self._rounds >= len(ROUND_PAUSES_S):
            self._end(self._chooser.unreachable(self.manifest, stuck))
        else:
            self._stuck.update(stuck)
            self._nursery.start_soon(self._next_round, ROUND_PAUSES_S[self._rounds])
            self._rounds += 1

    async def _next_round(self, pause_s: float) -> None:
        await trio.sleep(pause_s)
        stuck, self._stuck = self._missing(sorted(self._stuck)), set()
        for index in stuck:
            self._tried[index].clear()
        self._ask_for(stuck, "it may be back")

    def _missing(self, partitions: Iterable[int]) -> list[int]:
        return [index for index in partitions if index not in self._results]

    def _end(self, error: SedmadError) -> None:
        self._error = error
        self._finished.set()

    def _put_together(self) -> Panel:
        manifest, columns = self.manifest, len(self._panel)
        if not self._transposed:
            whole = empty_panel(columns, manifest.rows, self._panel.dtype)
            for index, array in self._results.items():
                whole[:, slice(*manifest.rows_of(index))] = array
            return scaled(whole, manifest.scale) if manifest.scale else whole
        # In the order of partitions, whoever answered first: the sum is the same every time.
        total = np.zeros((columns, manifest.columns), np.float64)
        whole = empty_panel(columns, manifest.columns, self._panel.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            for index in sorted(self._results):
                total += self._results[index]
            whole[...] = total
        return whole
