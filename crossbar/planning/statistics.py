"""Owns the statistics of one block of weights: all that predictions need, so that many plans cost little.

Everything here is in units of the weights. Nothing depends on a device profile.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from crossbar.engine import FloatArray
from crossbar.errors import WeightsInvalid
from crossbar.mapping.tiling import TileGrid
from crossbar.planning.plan import Scale

SAMPLE_WEIGHTS = 1 << 16
"""Weights of a sample. In tile columns of 128 there are 512 of them: what differs between tile columns is known to
1 / sqrt(512) = 4 %, and one evaluation of a device law on them takes about a millisecond."""


BentMoments: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class WeightSample:
    """Tile columns drawn in proportion to scale^2, which is what an error of a given share of the scale costs, and to
    the power of their weights.

    The error of a block with the expected squared error f(w / S) of a weight, as a share of its scale S, is

        sum over weights of m S^2 f(w / S)  =  sum(importance * f(shares))

    where m is the second moment of the weight's input.

    Attributes:
        shares: (rows, samples), w / S, within -1 and 1; 0 below the end of a last, shorter row of tiles.
        importance: (rows, samples), m S^2 times the number of tile columns that a sample stands for.
        stands_for: (samples,), that number.
    """

    shares: npt.NDArray[np.float64]
    importance: npt.NDArray[np.float64]
    stands_for: npt.NDArray[np.float64]

    def weighted(self, squared_error: npt.NDArray[np.float64]) -> float:
        """Return the squared error of the block's output from that of each weight's share (rows, samples)."""
        return float(np.einsum("ij,ij->", self.importance, squared_error))  # as fast, and starts no threads


class BlockStatistics:
    """What is known of a block of weights and its inputs.

    Args:
        weights: (outputs, inputs), float32 or float64, finite. Kept, not copied.
        inputs: (inputs, vectors): samples of what the block will be multiplied with. Without them inputs are taken
            to be white: independent, of mean 0 and variance 1, normal.

    Raises:
        WeightsInvalid: not two-dimensional, empty, or not finite; or `inputs` do not fit.

    Attributes:
        scale_max: the largest |w|.
        second_moments: (inputs,), E[x^2] of every input.
        peak_power: E[max x^2], the square of what a vector is divided by before its conversion.
        signal_power: E[||W x||^2]. white_power: the same if inputs were uncorrelated.
        weight_power: the sum of w^2.
        bent_moments: E[|v|^3], E[v^4], E[|v|^5], E[v^6], each over E[v^2], for v = x / max |x|.
    """

    def __init__(self, weights: FloatArray, inputs: FloatArray | None = None) -> None:
        if weights.ndim != 2 or 0 in weights.shape:
            raise WeightsInvalid(
                f"weights of shape {weights.shape} cannot be planned for",
                why="a block has the shape (outputs, inputs), both at least 1",
                hint="Pass a 2-D array.",
            )
        self.weights = weights
        self.outputs, self.inputs = weights.shape
        self.scale_max = _largest(weights)
        if inputs is None:
            self.second_moments = np.ones(self.inputs)
            self.peak_power = _normal_peak_power(self.inputs)
            self.bent_moments = _normal_bent_moments(self.peak_power)
            self.signal_power = _power(weights, self.second_moments)
        else:
            samples = _checked_inputs(inputs, self.inputs)
            self.second_moments = np.square(samples).mean(axis=1)
            self.peak_power = float(np.square(samples).max(axis=0).mean())
            self.bent_moments = _bent_moments(samples)
            self.signal_power = float(np.square(weights @ samples).sum(axis=0).mean())
        self.white_power = _power(weights, self.second_moments)
        self.weight_power = _power(weights, np.ones(self.inputs))
        self._remembered: dict[Hashable, float] = {}  # one entry a variant of a plan that is tried
        self._samples: dict[tuple[int, Scale], WeightSample] = {}
        self._partials: dict[int, npt.NDArray[np.float64]] = {}

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs)."""
        return self.outputs, self.inputs

    def relative(self, squared_error: float) -> float:
        """Return the relative L2 error of an expected squared error of the output; 0 for a block of zeros."""
        return math.sqrt(max(0.0, squared_error) / self.signal_power) if self.signal_power > 0 else 0.0

    def partial_powers(self, rows: int) -> npt.NDArray[np.float64]:
        """Return (tile rows, outputs): the second moment of every bit line's exact partial sum.

        Inputs are taken to be uncorrelated within a tile, scaled so that the block's own power is right.
        """
        if rows not in self._partials:
            grid = self._grid(rows)
            partials = np.empty((grid.tile_rows, self.outputs))
            for row in range(grid.tile_rows):
                here = grid.input_range(row)
                partials[row] = np.square(self.weights[:, here]) @ self.second_moments[here]
            if self.white_power > 0:
                partials *= self.signal_power / self.white_power
            self._partials[rows] = partials
        return self._partials[rows]

    def remembered(self, key: Hashable, compute: Callable[[], float]) -> float:
        """Return what was computed for `key`, or compute it: what is tried on a tile takes longer than all else."""
        if key not in self._remembered:
            self._remembered[key] = compute()
        return self._remembered[key]

    def sample(self, rows: int, scale: Scale) -> WeightSample:
        """Return tile columns of arrays with `rows` word lines, their weights divided by the scale."""
        key = (min(rows, self.inputs), scale)
        if key not in self._samples:
            self._samples[key] = self._draw(*key)
        return self._samples[key]

    def scales(self, rows: int, scale: Scale) -> npt.NDArray[np.float64]:
        """Return (tile rows, outputs): the weight that fills a window; 0 for a tile column of zeros."""
        grid = self._grid(rows)
        scales = np.empty((grid.tile_rows, self.outputs))
        for row in range(grid.tile_rows):
            np.abs(self.weights[:, grid.input_range(row)]).max(axis=1, out=scales[row])
        if scale == "matrix":
            scales[scales > 0] = self.scale_max
        return scales

    def _grid(self, rows: int) -> TileGrid:
        return TileGrid(self.outputs, self.inputs, min(rows, self.inputs), self.outputs)

    def _draw(self, rows: int, scale: Scale) -> WeightSample:
        """Systematic sampling: equal shares of the summed mass of tile columns take one of them each. Deterministic."""
        scales = self.scales(rows, scale)
        moments = np.zeros(scales.shape[0] * rows)
        moments[: self.inputs] = self.second_moments
        moments = moments.reshape(-1, rows)
        mass = np.square(scales) * moments.sum(axis=1)[:, np.newaxis]
        if not mass.any():
            return WeightSample(np.zeros((rows, 1)), np.zeros((rows, 1)), np.ones(1))
        powers = self.partial_powers(rows)
        mass = mass / mass.sum() + powers / (powers.sum() or 1.0)
        total = float(mass.sum())
        count = max(1, SAMPLE_WEIGHTS // rows)
        if mass.size <= count:
            tile_rows, columns = np.nonzero(mass)
            stands_for = np.ones(len(columns))
        else:
            marks = (np.arange(count) + 0.5) / count * total
            chosen = np.searchsorted(np.cumsum(mass), marks).clip(max=mass.size - 1)
            tile_rows, columns = np.unravel_index(chosen, mass.shape)
            stands_for = total / count / mass[tile_rows, columns]
        at = tile_rows * rows + np.arange(rows)[:, np.newaxis]
        shares = self.weights[columns, np.minimum(at, self.inputs - 1)].astype(np.float64)
        shares[at >= self.inputs] = 0.0
        chosen_scales = scales[tile_rows, columns]
        shares /= chosen_scales
        importance = moments[tile_rows].T * (np.square(chosen_scales) * stands_for)
        return WeightSample(shares, importance, stands_for)


def _largest(weights: FloatArray) -> float:
    """Return the largest |w|. A NaN or Inf anywhere shows in it."""
    largest = max(float(weights.max()), -float(weights.min()))
    if not math.isfinite(largest):
        raise WeightsInvalid(
            "weights with NaN or Inf cannot be planned for",
            why="no conductance stands for such a weight",
            hint="Clean the matrix, or keep it on a node with the ideal profile.",
        )
    return largest


def _power(weights: FloatArray, moments: npt.NDArray[np.float64]) -> float:
    """Return sum over weights of m w^2, without a copy of the whole block."""
    block_rows = max(1, SAMPLE_WEIGHTS * 4 // weights.shape[1])
    total = 0.0
    for start in range(0, weights.shape[0], block_rows):
        total += float(np.square(weights[start : start + block_rows], dtype=np.float64).sum(axis=0) @ moments)
    return total


def _checked_inputs(inputs: FloatArray, length: int) -> npt.NDArray[np.float64]:
    samples = np.asarray(inputs, np.float64)
    if samples.ndim != 2 or samples.shape[0] != length or not samples.shape[1]:
        raise WeightsInvalid(
            f"inputs of shape {samples.shape} do not fit weights with {length} inputs",
            why="calibration inputs have the shape (inputs, vectors)",
            hint="Pass one vector a column.",
        )
    if not np.isfinite(samples).all():
        raise WeightsInvalid(
            "inputs with NaN or Inf cannot be planned for",
            why="errors are relative to what these inputs give",
            hint="Pass finite inputs.",
        )
    return samples


def _normal_peak_power(count: int) -> float:
    """Return E[max z_k^2] of `count` standard normal z_k: the integral of 2 y P(max |z| > y) over y."""
    step = 0.01
    levels = np.arange(step / 2, 10.0, step)  # P(|z| > 10) = 1.5e-23
    inside = np.array([math.erf(level / math.sqrt(2)) for level in levels])
    return float(np.sum(2 * levels * (1 - inside**count)) * step)


def _normal_bent_moments(peak_power: float) -> BentMoments:
    peak, root = math.sqrt(peak_power), math.sqrt(2 / math.pi)
    return 2 * root / peak, 3 / peak**2, 8 * root / peak**3, 15 / peak**4


def _bent_moments(samples: npt.NDArray[np.float64]) -> BentMoments:
    largest = np.abs(samples).max(axis=0)
    magnitude = np.abs(samples[:, largest > 0]) / largest[largest > 0]
    if not magnitude.size:
        return 0.0, 0.0, 0.0, 0.0
    power = float(np.square(magnitude).mean())
    third, fourth, fifth, sixth = (float((magnitude**order).mean()) / power for order in (3, 4, 5, 6))
    return third, fourth, fifth, sixth
