"""Owns the outcome of planning: a plan with what it is expected to cost and to be wrong by."""

from __future__ import annotations

import math
from dataclasses import dataclass

from crossbar.mapping.tiling import TileGrid
from crossbar.planning.budget import ErrorBudget
from crossbar.planning.calibration import MeasuredError
from crossbar.planning.plan import Plan


@dataclass(frozen=True, slots=True)
class Cells:
    """Cells of a planned block.

    Attributes:
        used: cells that hold a weight once: both of a pair, all slices.
        allocated: all cells of the arrays taken, with spares, replicas and what the last tiles leave empty.
    """

    used: int
    allocated: int

    @property
    def utilisation(self) -> float:
        """used / allocated; 1 for a block that takes no cells."""
        return self.used / self.allocated if self.allocated else 1.0


@dataclass(frozen=True, slots=True)
class RungTaken:
    """A lever that was pulled, with the predicted relative error and the allocated cells after it."""

    name: str
    error: float
    cells_allocated: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan for one block on one profile, and what is known of it.

    Attributes:
        plan: what `crossbar.program` takes.
        profile_name: what it was planned for.
        target_error: the relative L2 error asked for.
        predicted: the error budget of the plan, `seconds` after programming.
        measured: on calibration vectors, after programming; None if it was not verified.
        cells: used and allocated.
        rungs: levers in the order in which they were pulled.
        pulses_per_cell: programming pulses expected.
        seconds: the age, since programming, that the target was planned to hold at.
        drifts: whether the devices change with time at all.
        fault_map_digest, load: what was known when it was planned, for `replanning`; b"" and None if nothing was.
    """

    plan: Plan
    profile_name: str
    target_error: float
    predicted: ErrorBudget
    measured: MeasuredError | None
    cells: Cells
    rungs: tuple[RungTaken, ...]
    pulses_per_cell: float
    seconds: float
    drifts: bool
    fault_map_digest: bytes = b""
    load: float | None = None

    @property
    def cells_used(self) -> int:
        return self.cells.used

    @property
    def cells_allocated(self) -> int:
        return self.cells.allocated

    @property
    def digital_share(self) -> float:
        """The share of weights that digital arithmetic makes right."""
        return 1.0 if self.plan.digital else self.plan.residual_share

    @property
    def error(self) -> float:
        """The relative error to reckon with: measured if it was, else predicted."""
        return self.predicted.total if self.measured is None else self.measured.value


def cells_of(shape: tuple[int, int], plan: Plan) -> Cells:
    """Return the cells that weights of `shape` (outputs, inputs) take: none if they are digital."""
    if plan.digital:
        return Cells(0, 0)
    outputs, inputs = shape
    grid = TileGrid(outputs, inputs, plan.rows, plan.data_columns)
    planes = plan.cells_per_weight  # arrays that hold one tile: polarities, slices, replicas
    return Cells(
        used=math.prod(shape) * planes // plan.replicas,
        allocated=grid.tiles * plan.rows * plan.columns * planes,
    )
