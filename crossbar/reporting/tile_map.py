"""Owns the map of arrays: what each tile is wrong by, what it leaves empty, and where devices are stuck."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crossbar.mapping.faults import STUCK_OFF, STUCK_ON, FaultMap, fault_map
from crossbar.mapping.tiling import TileGrid
from crossbar.programmed import Crossbar
from crossbar.reporting import svg
from crossbar.reporting.charts import WIDTH

TILES_MAX = 32
"""Tiles shown in each direction: further ones would be smaller than what tells them apart."""

_PIXELS_MAX = 880  # of the picture of stuck devices: two for each unit of the drawing
_TOP = 44.0
_COLOURS = {STUCK_ON: (230, 159, 0), STUCK_OFF: (204, 121, 167)}


@dataclass(frozen=True, slots=True)
class TileMap:
    """The tiles of a programmed block, or those in the corner of a large one.

    Attributes:
        grid: all tiles.
        errors: (tile rows, tile columns) shown: ||held - wanted|| / ||wanted|| of the weights of each.
        faults: (lines, lines) of the arrays shown, the worse of a pair's two cells, of the first slice and replica.
        array: (rows, columns) of one array.
    """

    grid: TileGrid
    errors: npt.NDArray[np.float64]
    faults: FaultMap
    array: tuple[int, int]

    @classmethod
    def of(cls, crossbar: Crossbar, weights: npt.NDArray[np.floating]) -> TileMap:
        """Compare what a crossbar holds with the weights (outputs, inputs) that it should hold."""
        plan = crossbar.plan
        grid = TileGrid(*weights.shape, plan.rows, plan.data_columns)
        shown = min(grid.tile_rows, TILES_MAX), min(grid.tile_columns, TILES_MAX)
        held = crossbar.held_weights()
        errors = np.zeros(shown)
        faults = np.zeros((shown[0] * plan.rows, shown[1] * plan.columns), np.int8)
        for row, column in np.ndindex(*shown):
            part = (grid.output_range(column), grid.input_range(row))
            norm = np.linalg.norm(weights[part])
            errors[row, column] = np.linalg.norm(held[part] - weights[part]) / norm if norm else 0.0
            lines = (
                slice(row * plan.rows, (row + 1) * plan.rows),
                slice(column * plan.columns, (column + 1) * plan.columns),
            )
            faults[lines] = _array_faults(crossbar, row, column)
        return cls(grid, errors, faults, (plan.rows, plan.columns))

    def drawn(self) -> str:
        """Return the map as SVG: inputs downwards, outputs to the right."""
        tile_rows, tile_columns = self.errors.shape
        unit = min((WIDTH - 24) / (tile_columns * self.array[1]), 420 / (tile_rows * self.array[0]))
        size = (tile_columns * self.array[1] * unit, tile_rows * self.array[0] * unit)
        corner = (22.0, _TOP + 18)
        most = float(self.errors.max()) or 1.0
        parts = [
            *_legend(most),
            svg.text((corner[0], _TOP + 11), "outputs (bit lines) →", "small"),
            svg.text((13, corner[1] + 2), "← inputs (word lines)", "small", anchor="end", turn=-90),
        ]
        gap = min(1.5, 0.06 * unit * min(self.array))
        for row, column in np.ndindex(tile_rows, tile_columns):
            tile = self.grid.tile(row, column)
            at = (
                corner[0] + column * self.array[1] * unit + gap,
                corner[1] + row * self.array[0] * unit + gap,
            )
            whole = (self.array[1] * unit - 2 * gap, self.array[0] * unit - 2 * gap)
            used = (tile.shape[1] * unit - 2 * gap, tile.shape[0] * unit - 2 * gap)
            error = float(self.errors[row, column])
            tip = (
                f"inputs {tile.inputs.start}-{tile.inputs.stop - 1}, outputs {tile.outputs.start}-"
                f"{tile.outputs.stop - 1}: weights wrong by {error:.2%}"
            )
            parts.append(svg.rectangle(at, whole, "empty"))
            parts.append(svg.rectangle(at, used, "fill blue", tip=tip, opacity=0.08 + 0.8 * error / most))
        if self.faults.any():
            parts.append(svg.image(corner, size, _pixels(self.faults, size)))
        description = f"{self.grid.tile_rows} by {self.grid.tile_columns} tiles by error, and their stuck devices"
        return svg.drawing(WIDTH, corner[1] + size[1] + 6, parts, description)

    @property
    def stuck_share(self) -> float:
        """The share of weights' places shown that have a stuck device."""
        return float((self.faults != 0).mean())


def _array_faults(crossbar: Crossbar, row: int, column: int) -> FaultMap:
    plan, profile = crossbar.plan, crossbar.profile
    polarities = 2 if plan.encoding == "differential" else 1
    maps = [
        fault_map(
            crossbar.seed, 0, 0, polarity, row, column,
            rows=plan.rows, columns=plan.columns,
            stuck_on_rate=profile.stuck_on_rate, stuck_off_rate=profile.stuck_off_rate,
        )
        for polarity in range(polarities)
    ]  # fmt: skip
    worse = maps[0].copy()
    for other in maps[1:]:
        worse[(other == STUCK_ON) | (worse == 0)] = other[(other == STUCK_ON) | (worse == 0)]
    return worse


def _pixels(faults: FaultMap, size: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Return (height, width, 4): one pixel a device, or several devices a pixel, the last one stuck deciding."""
    fold = max(1, -(-max(faults.shape) // _PIXELS_MAX))
    shape = tuple(-(-lines // fold) for lines in faults.shape)
    pixels = np.zeros((*shape, 4), np.uint8)
    for kind, colour in sorted(_COLOURS.items(), reverse=True):
        rows, columns = np.nonzero(faults == kind)
        pixels[rows // fold, columns // fold] = (*colour, 255)
    return pixels


def _legend(most: float) -> list[str]:
    parts = [svg.text((8, 15), "error of weights", "small")]
    parts += [
        svg.rectangle((112 + 12 * step, 5), (12, 12), "fill blue", opacity=0.08 + 0.8 * step / 9)
        for step in range(10)
    ]
    parts += [
        svg.text((238, 15), f"0 to {most:.2%}", "small"),
        svg.rectangle((8, 25), (12, 12), "stuck-on"),
        svg.text((26, 35), "stuck on", "small"),
        svg.rectangle((112, 25), (12, 12), "stuck-off"),
        svg.text((130, 35), "stuck off", "small"),
        svg.rectangle((220, 25), (12, 12), "empty"),
        svg.text((238, 35), "holds nothing", "small"),
    ]
    return parts
