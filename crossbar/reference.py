"""Owns the reference path: every device programmed and every read of it drawn by itself, in plain numpy.

It is slow, and written to be read: the fast path is tested against it in mean and variance. Both do the same thing:

    weights -> tiles -> conductances -> programmed devices -> per vector: DAC, currents, ADC -> digital sums

Conventions
-----------
- **Tiles.** `TileGrid` of `plan.rows` inputs and `plan.data_columns` outputs. An array's unused lines are cut off:
  an array of a remainder is as small as the remainder, and next to the drivers and the ground.
- **Planes.** One plane is one slice of one replica: an array, or a pair of arrays, with converters of its own. A pair's
  currents are subtracted before they are converted. The offset encoding's reference column lies behind the last
  output, is programmed to the middle of the window like any other, and its current is subtracted.
- **Programming.** Partner compensation changes targets; then a device is programmed, again while it is further than
  `write_verify_tolerance` of the largest conductance from its target, at most `write_verify_tries` times in all, and
  keeps its best try; then it ages; conductances are clipped at 0; stuck devices conduct what they are stuck at.
- **Inputs.** A vector is divided by its largest |x|, rounded to multiples of 1 / q with q = 2^(bits-1) - 1 (half to
  even), and applied as volts = share x `read_volts`.
- **Reads.** Every device of every vector conducts G + sd(G) z. That is not clipped at 0, so that it stays linear.
- **Currents.** G V + second |V| V + third V^3, summed along a bit line. Where `plan.fold_ir_drop`, the first term is
  that of the whole network of devices and wires, read noise included; the other two take the driver's voltage.
- **ADC.** Partial sums are converted in units of weights times shares of the largest input: rint(sum / lsb) with
  lsb = range / q, clipped to -q..q. Ranges of a plane: "max", inputs of a full tile x the plane's share x scale, for
  every tile row and output; "calibrated", the largest partial sum of all calibration vectors, tile rows and outputs,
  with headroom; "column", `calibration.column_ranges` of every tile row, at most that of "max".
  Calibration vectors pass the same DAC; read noise is off for them.
- **Sums.** Slices and tile rows are added, replicas averaged, gains of columns (fitted to calibration vectors, read
  noise off) and the vector's scale multiplied, all in float64.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crossbar import irdrop
from crossbar.devices import DeviceProfile
from crossbar.engine import FloatArray
from crossbar.errors import PlanInvalid, WeightsInvalid
from crossbar.mapping.encoding import Encoder, Window, column_scales
from crossbar.mapping.faults import FaultMap, compensated, fault_map, with_faults
from crossbar.mapping.tiling import Tile, TileGrid
from crossbar.planning.calibration import (
    HEADROOM,
    calibration_vectors,
    column_gains,
    column_ranges,
    largest_code,
)
from crossbar.planning.plan import Plan
from crossbar.randomness import DRIFT, PROGRAMMING, READ, key

Array = npt.NDArray[np.float64]


class ReferenceCrossbar:
    """Weights on simulated devices, one by one.

    Args:
        weights: (outputs, inputs), finite.
        profile: the devices.
        plan: how weights are laid out; `Plan.default(profile)` if it is not given. Assignment, spare columns and the
            digital residual move or mend weights and change nothing about a device: they are refused.
        seed: of the devices; another seed is another chip.
        seconds: age of the devices when they are read.

    Raises:
        WeightsInvalid: not two-dimensional, empty, or not finite.
        PlanInvalid: the plan asks for something that this path does not do.
    """

    def __init__(
        self,
        weights: npt.ArrayLike,
        profile: DeviceProfile,
        plan: Plan | None = None,
        *,
        seed: int = 0,
        seconds: float = 0.0,
    ) -> None:
        self.weights = _checked(weights)
        self.profile = profile
        self.plan = Plan.default(profile) if plan is None else plan
        _check_plan(self.plan)
        outputs, inputs = self.weights.shape
        self._grid = TileGrid(outputs, inputs, self.plan.rows, self.plan.data_columns)
        self._encoder = Encoder(Window.of(profile), self.plan.encoding, self.plan.slices)
        self._seed, self._seconds = seed, seconds
        self._requests = 0
        self._gains = np.ones(outputs)
        if not self.plan.digital:
            self._scales = self._tile_scales()
            self._arrays = [self._programmed(tile) for tile in self._grid]
            self._ranges = self._calibrated_ranges()
            if self.plan.column_gain:
                self._gains = self._calibrated_gains()

    def apply(self, vectors: npt.ArrayLike) -> Array:
        """Return the products (outputs, vectors) of `vectors` (inputs, vectors), with read noise drawn afresh.

        Raises:
            WeightsInvalid: the inputs do not fit the weights, or are not finite.
        """
        columns = _checked(vectors)
        if len(columns) != self.weights.shape[1]:
            raise WeightsInvalid(f"{self.weights.shape[1]} inputs were expected, not {len(columns)}")
        if self.plan.digital:
            return self.weights @ columns
        self._requests += 1
        rng = np.random.default_rng(key(self._seed, READ, self._requests))
        return self._gains[:, np.newaxis] * self._products(columns, rng)

    def _tile_scales(self) -> Array:
        """Return (tile rows, outputs): the weight that fills the window of each tile column."""
        largest = float(np.abs(self.weights).max()) if self.plan.scale == "matrix" else None
        transposed = self.weights.T
        return np.array(
            [
                column_scales(transposed[self._grid.input_range(row)], matrix_scale=largest)
                for row in range(self._grid.tile_rows)
            ]
        )

    def _programmed(self, tile: Tile) -> _TileArrays:
        """Return the devices of one tile, of all replicas and slices, as they are when they are read."""
        profile, plan = self.profile, self.plan
        window = self._encoder.window
        encoded = self._encoder.encode(self.weights.T[tile.inputs, tile.outputs], self._scale(tile))
        if plan.encoding == "offset":
            reference = np.full((*encoded.shape[:-1], 1), window.middle_siemens)
            encoded = np.concatenate([encoded, reference], axis=-1)
        targets: FloatArray = np.repeat(encoded[np.newaxis], plan.replicas, axis=0)
        faults = self._faults(tile, targets.shape)
        if plan.partner_compensation:
            targets = compensated(targets, faults, window)
        healthy = dataclasses.replace(profile, stuck_on_rate=0.0, stuck_off_rate=0.0, drift=None)
        place = (tile.row, tile.column)
        rng = np.random.default_rng(key(self._seed, PROGRAMMING, *place))
        written = _verified(healthy, targets, plan, rng)
        deviates = np.random.default_rng(key(self._seed, DRIFT, *place)).standard_normal(targets.shape)
        aged = profile.aged_siemens(written, deviates, self._seconds, target=targets)
        return _TileArrays(tile, with_faults(aged, faults, window))

    def _faults(self, tile: Tile, shape: tuple[int, ...]) -> FaultMap:
        """Return the stuck devices (replicas, slices, polarities, lines, lines) of a tile's arrays."""
        faults = np.empty(shape, np.int8)
        for replica, index, polarity in np.ndindex(*shape[:3]):
            whole = fault_map(
                self._seed,
                *(index, replica, polarity, tile.row, tile.column),
                rows=self.plan.rows,
                columns=max(
                    self.plan.columns, shape[-1]
                ),  # an array of one column has its reference beside it
                stuck_on_rate=self.profile.stuck_on_rate,
                stuck_off_rate=self.profile.stuck_off_rate,
            )
            faults[replica, index, polarity] = whole[: shape[3], : shape[4]]
        return faults

    def _products(self, columns: Array, rng: np.random.Generator | None) -> Array:
        """Return products before gains: conversion, currents, conversion, sums. Without `rng` reads are noiseless."""
        shares, scales = self._converted_inputs(columns)
        total = np.zeros((len(self.weights), columns.shape[1]))
        for arrays, ranges in zip(self._arrays, self._ranges, strict=True):
            partial = self._partial_sums(arrays, shares, rng)
            converted = _converted(partial, ranges[..., np.newaxis], self.profile.adc_bits)
            total[arrays.tile.outputs] += converted.sum(axis=1).mean(axis=0)
        return total * scales

    def _converted_inputs(self, columns: Array) -> tuple[Array, Array]:
        """Return the inputs as shares of the largest in their vector, after the DAC, and that largest."""
        scales = np.abs(columns).max(axis=0)
        shares = np.divide(columns, scales, out=np.zeros_like(columns), where=scales > 0)
        return _converted(shares, np.ones(1), self.profile.dac_bits), scales

    def _partial_sums(self, arrays: _TileArrays, shares: Array, rng: np.random.Generator | None) -> Array:
        """Return (replicas, slices, outputs, vectors): what a tile's ADCs see, in weights times input shares."""
        volts = shares[arrays.tile.inputs] * self.profile.read_volts
        replicas, slices, polarities = arrays.conductance.shape[:3]
        currents = np.empty((replicas, slices, polarities, arrays.conductance.shape[-1], volts.shape[1]))
        for place in np.ndindex(replicas, slices, polarities):
            for vector in range(volts.shape[1]):
                currents[place][:, vector] = self._currents(arrays.conductance[place], volts[:, vector], rng)
        if self.plan.encoding == "differential":
            difference = currents[:, :, 0] - currents[:, :, 1]
        else:
            difference = currents[:, :, 0, :-1] - currents[:, :, 0, -1:]
        per_ampere = self._encoder.weight_per_siemens(self._scale(arrays.tile)) / self.profile.read_volts
        return difference * per_ampere[:, :, np.newaxis]

    def _currents(self, conductance: FloatArray, volts: Array, rng: np.random.Generator | None) -> Array:
        """Return the amperes at the feet of all bit lines of one array for one vector of voltages."""
        read = conductance
        if rng is not None:
            sd = self.profile.read_sd_siemens(conductance, self._seconds)
            read = conductance + sd * rng.standard_normal(conductance.shape)
        wires = (self.profile.word_line_ohm, self.profile.bit_line_ohm)
        if self.plan.fold_ir_drop and any(wires):
            # Noise may take a device that hardly conducts below 0, which no network of resistors has: what is below
            # is so little that wires do not matter to it. Left out, it would lift the mean.
            linear = irdrop.solve(np.maximum(read, 0.0), volts[:, np.newaxis], *wires)[:, 0]
            linear = linear + np.minimum(read, 0.0).T @ volts
        else:
            linear = read.T @ volts
        terms = self.profile.nonlinear_terms(conductance)
        if terms is None:
            return linear
        second, third = terms
        return linear + second.T @ (np.abs(volts) * volts) + third.T @ volts**3

    def _scale(self, tile: Tile) -> Array:
        return self._scales[tile.row, tile.outputs]

    def _calibrated_ranges(self) -> list[Array]:
        """Return for every tile the ADC ranges (slices, outputs) in the units of partial sums."""
        lines = min(self.plan.rows, self._grid.inputs)
        bounds = [
            lines * np.outer(self._encoder.significance, self._scale(arrays.tile)) for arrays in self._arrays
        ]
        if self.plan.adc_range == "max" or self.profile.adc_bits is None:
            return bounds
        vectors = calibration_vectors(self._grid.inputs, seed=self._seed).astype(np.float64)
        shares, _ = self._converted_inputs(vectors)
        seen = [self._partial_sums(arrays, shares, None) for arrays in self._arrays]
        if self.plan.adc_range == "calibrated":
            largest = HEADROOM * np.max([np.abs(partial).max(axis=(0, 2, 3)) for partial in seen], axis=0)
            return [np.broadcast_to(largest[:, np.newaxis], bound.shape) for bound in bounds]
        return [
            np.minimum(_column_ranges(partial, self.profile.adc_bits), bound)
            for partial, bound in zip(seen, bounds, strict=True)
        ]

    def _calibrated_gains(self) -> Array:
        vectors = calibration_vectors(self._grid.inputs, seed=self._seed).astype(np.float64)
        return column_gains(self._products(vectors, None), self.weights @ vectors).astype(np.float64)


@dataclass(frozen=True, slots=True)
class _TileArrays:
    """The devices of a tile: conductances (replicas, slices, polarities, word lines, bit lines), siemens."""

    tile: Tile
    conductance: FloatArray


def _verified(
    healthy: DeviceProfile, targets: FloatArray, plan: Plan, rng: np.random.Generator
) -> FloatArray:
    """Return programmed conductances: each device is tried until it is within tolerance, and keeps its best try."""
    best = healthy.programmed(targets, rng)
    if not plan.write_verify_tolerance:
        return best
    tolerance = plan.write_verify_tolerance * healthy.conductance_max_siemens
    for _ in range(plan.write_verify_tries - 1):
        outside = np.abs(best - targets) > tolerance
        if not outside.any():
            break
        again = healthy.programmed(targets, rng)
        closer = np.abs(again - targets) < np.abs(best - targets)
        best = np.where(outside & closer, again, best)
    return best


def _converted(values: Array, full_range: Array, bits: int | None) -> Array:
    """Return what a symmetric converter of this range makes of `values`; they pass where there is none."""
    if bits is None:
        return values
    codes = largest_code(bits)
    step = np.broadcast_to(full_range / codes, values.shape)
    counts = np.divide(values, step, out=np.zeros_like(values), where=step > 0)
    return np.clip(np.rint(counts), -codes, codes) * step


def _column_ranges(partial: Array, bits: int) -> Array:
    """Return the ranges (slices, outputs) of partial sums (replicas, slices, outputs, vectors)."""
    together = np.moveaxis(
        partial, 0, 2
    )  # replicas share a converter's range: their sums differ by noise alone
    return np.array([column_ranges(each.reshape(len(each), -1).T, bits) for each in together], np.float64)


def _checked(array: npt.ArrayLike) -> Array:
    checked = np.asarray(array, np.float64)
    if checked.ndim != 2 or not checked.size:
        raise WeightsInvalid(f"rows and columns were expected, not the shape {checked.shape}")
    if not np.isfinite(checked).all():
        raise WeightsInvalid("not every value is finite")
    return checked


def _check_plan(plan: Plan) -> None:
    moved = [name for name in ("spare_columns", "residual_share") if getattr(plan, name)]
    if plan.assignment != "none":
        moved.append("assignment")
    if moved:
        raise PlanInvalid(
            f"the reference path does not do {' and '.join(moved)}",
            why="they choose between devices and change nothing about them",
            hint="Compare with a plan without them.",
        )
