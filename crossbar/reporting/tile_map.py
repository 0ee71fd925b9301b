"""Owns the map of arrays: where their weights are wrong, what they leave empty, and where devices are stuck."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from crossbar.mapping.faults import STUCK_OFF, STUCK_ON, FaultMap, fault_map
from crossbar.mapping.tiling import TileGrid
from crossbar.programmed import Crossbar
from crossbar.reporting import svg
from crossbar.reporting.charts import WIDTH

TILES_MAX = 32
"""Tiles shown in each direction: further ones would be smaller than what tells them apart."""

BLOCKS_OF_TILE = 16
"""Each way: errors of the cells in a block are averaged, as single ones would be nothing but noise."""

_PIXELS_MAX = 880  # of the picture of stuck devices: two for each unit of the drawing
_TOP = 44.0
_HEAT = (31, 135, 201)
_COLOURS = {STUCK_ON: (230, 159, 0), STUCK_OFF: (204, 121, 167)}

Float64 = npt.NDArray[np.float64]
_Share = TypeVar("_Share", float, Float64)


@dataclass(frozen=True, slots=True)
class TileMap:
    """The tiles of a programmed block, or those in the corner of a large one. Inputs go downwards.

    Attributes:
        grid: all tiles.
        errors: (tile rows, tile columns) shown: ||held - wanted|| / ||wanted|| of the weights of each.
        heat: RMS error of blocks of cells / RMS weight of the matrix; NaN where arrays hold nothing.
        faults: (lines, lines) of the arrays shown, the worse of a pair's two cells, of the first slice and replica.
        array: (rows, columns) of one array.
    """

    grid: TileGrid
    errors: Float64
    heat: Float64
    faults: FaultMap
    array: tuple[int, int]

    @classmethod
    def of(cls, crossbar: Crossbar, weights: npt.NDArray[np.floating]) -> TileMap:
        """Compare what a crossbar holds with the weights (outputs, inputs) that it should hold."""
        plan = crossbar.plan
        outputs, inputs = crossbar.shape
        grid = TileGrid(outputs, inputs, plan.rows, plan.data_columns)
        shown = min(grid.tile_rows, TILES_MAX), min(grid.tile_columns, TILES_MAX)
        array = (plan.rows, plan.columns)
        wrong = (crossbar.held_weights() - weights).T
        errors = np.zeros(shown)
        squares = np.full((shown[0] * plan.rows, shown[1] * plan.columns), np.nan, np.float32)
        faults = np.zeros(squares.shape, np.int8)
        for row, column in np.ndindex(*shown):
            tile = grid.tile(row, column)
            part = wrong[tile.inputs, tile.outputs]
            norm = np.linalg.norm(weights[tile.outputs, tile.inputs])
            errors[row, column] = np.linalg.norm(part) / norm if norm else 0.0
            top, left = row * plan.rows, column * plan.columns
            squares[top : top + part.shape[0], left : left + part.shape[1]] = np.square(part)
            faults[top : top + plan.rows, left : left + plan.columns] = _array_faults(crossbar, row, column)
        rms = math.sqrt(float(np.square(weights, dtype=np.float64).mean())) or 1.0
        return cls(grid, errors, np.sqrt(_block_means(squares, array)) / rms, faults, array)

    def drawn(self) -> str:
        """Return the map as SVG."""
        tile_rows, tile_columns = self.errors.shape
        unit = min((WIDTH - 24) / (tile_columns * self.array[1]), 420 / (tile_rows * self.array[0]))
        size = (tile_columns * self.array[1] * unit, tile_rows * self.array[0] * unit)
        corner = (22.0, _TOP + 18)
        most = float(np.nanpercentile(self.heat, 99)) or 1.0  # single blocks must not leave all others pale
        parts = [
            *_legend(most),
            svg.text((corner[0], _TOP + 11), "outputs (bit lines) →", "small"),
            svg.text((13, corner[1] + 2), "← inputs (word lines)", "small", anchor="end", turn=-90),
            svg.rectangle(corner, size, "empty"),
            svg.image(corner, size, _heat_pixels(self.heat / most)),
        ]
        if self.faults.any():
            parts.append(svg.image(corner, size, _fault_pixels(self.faults)))
        for row, column in np.ndindex(tile_rows, tile_columns):
            at = (corner[0] + column * self.array[1] * unit, corner[1] + row * self.array[0] * unit)
            whole = (self.array[1] * unit, self.array[0] * unit)
            parts.append(svg.rectangle(at, whole, "tile", tip=self._tip(row, column)))
        description = (
            f"{self.grid.tile_rows} by {self.grid.tile_columns} tiles by error, and their stuck devices"
        )
        return svg.drawing(WIDTH, corner[1] + size[1] + 6, parts, description)

    @property
    def stuck_share(self) -> float:
        """The share of weights' places shown that have a stuck device."""
        return float((self.faults != 0).mean())

    def _tip(self, row: int, column: int) -> str:
        tile = self.grid.tile(row, column)
        return (
            f"inputs {tile.inputs.start}-{tile.inputs.stop - 1}, outputs {tile.outputs.start}-"
            f"{tile.outputs.stop - 1}: weights wrong by {self.errors[row, column]:.2%}"
        )


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


def _block_means(values: npt.NDArray[np.float32], array: tuple[int, int]) -> Float64:
    """Return means of blocks that do not cross arrays, NaN left out; NaN for blocks that hold nothing else."""
    down, across = (
        next(size for size in range(max(1, lines // BLOCKS_OF_TILE), 0, -1) if lines % size == 0)
        for lines in array
    )
    blocks = values.reshape(values.shape[0] // down, down, values.shape[1] // across, across)
    held = np.isfinite(blocks).sum(axis=(1, 3))
    total = np.nansum(blocks, axis=(1, 3), dtype=np.float64)
    means: Float64 = np.divide(total, held, out=np.full(held.shape, np.nan), where=held > 0)
    return means


def _heat_pixels(shares: Float64) -> npt.NDArray[np.uint8]:
    """Return (height, width, 4): one pixel a block, the more opaque the further it is wrong; none for no weights."""
    pixels = np.zeros((*shares.shape, 4), np.uint8)
    pixels[..., :3] = _HEAT
    held = np.isfinite(shares)
    pixels[held, 3] = np.rint(255 * _opacity(np.minimum(shares[held], 1.0)))
    return pixels


def _fault_pixels(faults: FaultMap) -> npt.NDArray[np.uint8]:
    """Return (height, width, 4): one pixel a device, or several devices a pixel, the last one stuck deciding."""
    fold = max(1, -(-max(faults.shape) // _PIXELS_MAX))
    shape = tuple(-(-lines // fold) for lines in faults.shape)
    pixels = np.zeros((*shape, 4), np.uint8)
    for kind, colour in sorted(_COLOURS.items(), reverse=True):
        stuck = faults == kind
        if fold == 1 and max(faults.shape) > _PIXELS_MAX // 4:  # a dot of one device could hardly be seen
            stuck[1:] |= stuck[:-1]
            stuck[:, 1:] |= stuck[:, :-1]
        rows, columns = np.nonzero(stuck)
        pixels[rows // fold, columns // fold] = (*colour, 255)
    return pixels


def _opacity(share: _Share) -> _Share:
    return 0.08 + 0.92 * share


def _legend(most: float) -> list[str]:
    parts = [svg.text((8, 15), "error", "small")]
    parts += [
        svg.rectangle((54 + 12 * step, 5), (12, 12), "heat", opacity=_opacity(step / 9)) for step in range(10)
    ]
    parts += [
        svg.text((180, 15), f"0 to {most:.2%} of the RMS weight", "small"),
        svg.rectangle((8, 25), (12, 12), "stuck-on"),
        svg.text((26, 35), "stuck on", "small"),
        svg.rectangle((112, 25), (12, 12), "stuck-off"),
        svg.text((130, 35), "stuck off", "small"),
        svg.rectangle((220, 25), (12, 12), "empty"),
        svg.text((238, 35), "holds nothing", "small"),
    ]
    return parts
