"""Products for this node's clients: joined, routed to holders, and put together again.

A product ends with the answer, or with an error that names matrix and nodes, by its deadline.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from sedmad.core.routing import Estimates, HedgeBudget
from sedmad.net.sessions import Sessions
from sedmad.node.joiner import Joiner
from sedmad.node.manifest import Manifest
from sedmad.node.manifests import ManifestService
from sedmad.node.membership import MembershipService
from sedmad.node.multiplying import MultiplyingService
from sedmad.node.panels import Panel
from sedmad.node.product import Answer


@dataclass(frozen=True, slots=True)
class ProductTask:
    """What can be joined: products with the same manifest, in one direction."""

    manifest_id: tuple[object, ...]
    transposed: bool
    columns_max: int


@dataclass(frozen=True, slots=True)
class _Item:
    manifest: Manifest
    panel: Panel


@dataclass(frozen=True, slots=True)
class Result:
    """A product's result.

    Attributes:
        panel: (columns, length), the matrix's dtype.
        joined_columns: width of the joined product that this one was part of.
        answers: who computed what.
    """

    panel: Panel
    joined_columns: int
    answers: tuple[Answer, ...]


class AskingService:
    """Multiplies panels with matrices, wherever they lie."""

    def __init__(
        self,
        *,
        manifests: ManifestService,
        membership: MembershipService,
        multiplying: MultiplyingService,
        sessions: Sessions,
        rng: random.Random,
    ) -> None:
        self._manifests = manifests
        self._membership = membership
        self._multiplying = multiplying
        self._sessions = sessions
        self._rng = rng
        self._budget = HedgeBudget()
        self.estimates = Estimates()
        self.joiner: Joiner[ProductTask, _Item, Result] = Joiner(self._run, lambda task: task.columns_max)

    async def multiply(
        self, manifest: Manifest, panel: Panel, *, transposed: bool, deadline: float
    ) -> Result:
        """Return W X, or W^T X, for a panel whose rows are the columns of X.

        Args:
            panel: (columns, n), the matrix's dtype; n is the matrix's width, transposed its height.

        Raises:
            HoldersUnreachable: a partition has no holder that answers.
            DeadlineExceeded: it was not done in time.
        """
        columns_max = manifest.partitioning.columns_per_panel(transposed)
        task = ProductTask((manifest.key, manifest.order), transposed, columns_max)
        return await self.joiner.ask(task, _Item(manifest, panel), len(panel), deadline)

    def link_lost(self, peer_id: str) -> None:
        """A session lost its stream: what was asked of that peer is asked of others at once."""
        for product in list(self._running):
            product.lost(peer_id)

    async def _run(self, task: ProductTask, items: list[_Item], deadline: float) -> list[Result]:
        panel = items[0].panel if len(items) == 1 else np.concatenate([item.panel for item in items])
