"""Products for this node's clients: joined with others that wait, routed by what this node learnt of its peers.

A product ends with the answer, or with an error that names matrix and nodes, by its deadline.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from sedmad.core.joining import RUNNING_MAX
from sedmad.errors import DeadlineExceeded, SedmadError
from sedmad.net.sessions import Sessions
from sedmad.node.choosing import Chooser
from sedmad.node.clock import monotonic_s
from sedmad.node.joiner import Joiner
from sedmad.node.manifest import Manifest
from sedmad.node.membership import MembershipService
from sedmad.node.multiplying import MultiplyingService, columns_max
from sedmad.node.noise import NoiseKeys, noise_keys
from sedmad.node.panels import Panel
from sedmad.node.product import Answer, Product
from sedmad.node.share import ShareAsker


@dataclass(frozen=True, slots=True)
class ProductTask:
    """What can be joined: products with the same manifest, in one direction, X of one dtype."""

    manifest_id: tuple[object, ...]
    transposed: bool
    dtype: str
    columns_max: int
    running_max: int


@dataclass(frozen=True, slots=True)
class _Item:
    manifest: Manifest
    panel: Panel
    noise: NoiseKeys
    asked_at: float


@dataclass(frozen=True, slots=True)
class Result:
    """A product's result.

    Attributes:
        panel: (columns, length), in the dtype of X; float32 where the matrix has a scale.
        waited_s: until it began, together with others.
        joined_columns: width of the joined product that this one was part of.
        answers: who computed what.
    """

    panel: Panel
    waited_s: float
    joined_columns: int
    answers: tuple[Answer, ...]


class AskingService:
    """Multiplies panels with matrices, wherever they lie."""

    def __init__(
        self,
        *,
        own_peer_id: str,
        membership: MembershipService,
        multiplying: MultiplyingService,
        sessions: Sessions,
        rng: random.Random,
    ) -> None:
        self._membership = membership
        self.chooser = Chooser(own_peer_id, membership, sessions, rng)
        self._asker = ShareAsker(own_peer_id, sessions, multiplying)
        self._running: list[tuple[ProductTask, Product]] = []
        self.joiner: Joiner[ProductTask, _Item, Result] = Joiner(
            self._run, lambda task: task.columns_max, lambda task: task.running_max
        )

    async def multiply(
        self,
        manifest: Manifest,
        panel: Panel,
        *,
        transposed: bool,
        deadline: float,
        name: str,
        noise_request: int = 0,
    ) -> Result:
        """Return W X, or W^T X, for a panel whose rows are the columns of X.

        Args:
            panel: (columns, n), of the dtype `panel_dtype`; n is the matrix's width, transposed its height.
            name: what the user calls the matrix, for errors.
            noise_request: what devices draw their noise for: the same number gives the same noise. 0 chooses one.

        Raises:
            HoldersUnreachable: a partition has no holder that answers.
            DeadlineExceeded: it was not done in time.
        """
        task = ProductTask(
            (manifest.key, manifest.order),
            transposed,
            panel.dtype.name,
            columns_max(manifest, transposed),
            RUNNING_MAX if self.chooser.is_far(manifest) else 1,
        )
        noise = noise_keys(manifest.accuracy, len(panel), noise_request)
        item = _Item(manifest, panel, noise, monotonic_s())
        try:
            return await self.joiner.ask(task, item, len(panel), deadline)
        except DeadlineExceeded as error:
            late = {
                peer
                for running, product in self._running
                if running == task
                for peer in product.waiting_for()
            }
            names = ", ".join(sorted(map(self._membership.name_of, late)))
            raise DeadlineExceeded(
                f"the product with {name} was not done in time",
                why=f"{names} had not answered" if names else "it was still waiting for others before it",
                node=names,
                matrix=name,
            ) from error
        except SedmadError as error:
            error.matrix = error.matrix or name
            raise

    def doubt(self, peer_id: str) -> None:
        """A peer is suspected, or its connection broke: what was asked of it is asked of others at once."""
        for _, product in list(self._running):
            product.doubt(peer_id)

    async def _run(self, task: ProductTask, items: list[_Item], deadline: float) -> list[Result]:
        began = monotonic_s()
        panel = items[0].panel if len(items) == 1 else np.concatenate([item.panel for item in items])
        product = Product(
            items[0].manifest,
            panel,
            np.concatenate([item.noise for item in items]),
            transposed=task.transposed,
            deadline=deadline,
            asker=self._asker,
            chooser=self.chooser,
            name_of=self._membership.name_of,
        )
        running = (task, product)
        self._running.append(running)
        try:
            whole = await product.run()
        finally:
            self._running = [other for other in self._running if other is not running]
        answers = tuple(product.answers)
        results, offset = [], 0
        for item in items:
            stop = offset + len(item.panel)
            results.append(Result(whole[offset:stop], began - item.asked_at, len(panel), answers))
            offset = stop
        return results
