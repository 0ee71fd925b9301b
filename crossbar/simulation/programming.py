"""Owns programming: weights become the conductances of every single cell, row of tiles by row of tiles.

Cells are described by how far they fill the window of their devices (`crossbar.kernels.programming`). What a cell
draws depends on the seed, its place and the pulse only, so that a block programmed again gets the same devices:
that is how an aged block is made, and why no conductances are kept.

Beyond what is written down in `crossbar.devices` and `crossbar.mapping`:

- Write-verify draws every pulse anew, device variation included.
- With resistive wires every tile is folded by itself (`crossbar.irdrop`); the noise of a read is weakened as the
  current of its cell is, which is exact to first order for cells of its own bit line. Nonlinear terms are not folded.
- An offset encoding's reference column is programmed and read like any other; that all outputs of a tile share its
  read noise is not modelled, their variances are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crossbar import randomness
from crossbar.devices.profile import DeviceProfile
from crossbar.kernels import programming as kernels
from crossbar.kernels.randomness import fill_lines
from crossbar.mapping.encoding import Encoder, Window, column_scales
from crossbar.mapping.tiling import TileGrid
from crossbar.planning.plan import Plan
from crossbar.simulation.arrays import Arrays, Float32
from crossbar.simulation.placement import Placement, place

PROGRAMMING_POINTS = 1024
READ_POINTS = 2048
"""Points of the tables in which kernels look laws up, linear in between."""

_READ_REACH = 1.5  # of the largest conductance: programming noise takes no device further
_LEAST_SCALE = (
    2.0**-60
)  # of the largest weight: its square has an inverse in float32, and no converter sees it


@dataclass(frozen=True, slots=True)
class Laws:
    """A profile's laws as tables, all as shares of the conductance window.

    Attributes:
        floor: the filling of a device that conducts nothing.
        programming: standard deviation of a pulse over the window.
        read: standard deviation of a read from `floor` to 1.5 times the largest conductance.
        read_per_window: points of that table for one window.
    """

    floor: np.float32
    programming: Float32
    read: Float32
    read_per_window: np.float32

    @classmethod
    def of(cls, profile: DeviceProfile, seconds: float) -> Laws:
        least, most, span = (
            profile.conductance_min_siemens,
            profile.conductance_max_siemens,
            profile.window_siemens,
        )
        targets = np.linspace(least, most, PROGRAMMING_POINTS)
        conductances = np.linspace(0.0, _READ_REACH * most, READ_POINTS)
        return cls(
            floor=np.float32(-least / span),
            programming=(profile.programming_sd_siemens(targets) / span).astype(np.float32),
            read=(profile.read_sd_siemens(conductances, seconds) / span).astype(np.float32),
            read_per_window=np.float32(span / (_READ_REACH * most) * (READ_POINTS - 1)),
        )

    @property
    def is_flat_programming(self) -> bool:
        return bool(np.ptp(self.programming) == 0)

    @property
    def is_flat_read(self) -> bool:
        return bool(np.ptp(self.read) == 0)


def program_arrays(
    weights: npt.NDArray[np.floating], profile: DeviceProfile, plan: Plan, seed: int, seconds: float = 0.0
) -> Arrays:
    """Program `weights` (outputs, inputs), finite, and let the devices age for `seconds`."""
    return _Programmer(weights, profile, plan, seed, seconds).program()


class _Programmer:
    """The buffers and the results of programming one block. Nothing but results is larger than a row of tiles."""

    def __init__(
        self,
        weights: npt.NDArray[np.floating],
        profile: DeviceProfile,
        plan: Plan,
        seed: int,
        seconds: float,
    ) -> None:
        self._weights, self._profile, self._plan = weights, profile, plan
        self._seed, self._seconds = seed, seconds
        outputs, inputs = weights.shape
        self._grid = TileGrid(outputs, inputs, min(plan.rows, inputs), plan.data_columns)
        self._laws = Laws.of(profile, seconds)
        self._encoder = Encoder(Window(0.0, 1.0, profile.levels), plan.encoding, plan.slices)
        largest = max(float(weights.max()), -float(weights.min()))
        self._unit = 2.0 ** np.frexp(largest)[1] if largest else 1.0
        self._largest = largest / self._unit
        self._pulses = self._stuck = 0
        stack = self._grid.tile_rows * plan.slices * plan.replicas
        shape = (stack, self._grid.rows, outputs)
        folded = plan.fold_ir_drop and (profile.word_line_ohm > 0 or profile.bit_line_ohm > 0)
        self._wires = (profile.word_line_ohm, profile.bit_line_ohm) if folded else None
        flat_read = self._laws.is_flat_read and not folded
        self._read_deviation = float(self._laws.read[0]) * 2**0.5 if flat_read else 0.0
        self._held = np.zeros(shape, np.float32)
        self._window = np.empty((stack, outputs), np.float32)
        has_variances = not flat_read and bool(self._laws.read.any())
        self._variances = np.zeros(shape, np.float32) if has_variances else None
        nonlinear = profile.nonlinearity is not None
        self._second = np.zeros(shape, np.float32) if nonlinear else None
        self._third = np.zeros(shape, np.float32) if nonlinear else None

    def program(self) -> Arrays:
        plan, grid = self._plan, self._grid
        for tile_row in range(grid.tile_rows):
            block = self._block(grid.input_range(tile_row))
            scale = column_scales(block, matrix_scale=self._largest if plan.scale == "matrix" else None)
            scale = np.where(scale > _LEAST_SCALE, scale, np.float32(0))
            sliced = None if plan.slices == 1 else self._encoder.encode(block, scale)
            for slice_ in range(plan.slices):
                meaning = self._encoder.weight_per_siemens(scale)[slice_] / plan.replicas
                for replica in range(plan.replicas):
                    targets = self._encoded(block, scale) if sliced is None else sliced[slice_]
                    index = (slice_ * plan.replicas + replica) * grid.tile_rows + tile_row
                    self._window[index] = meaning
                    self._program_row(index, tile_row, slice_, replica, targets)
        return Arrays(
            grid=grid,
            unit=self._unit,
            weights=self._held,
            window=self._window,
            reach=1.0 if self._encoder.polarities == 2 else 0.5,
            read_deviation=self._read_deviation,
            variances=self._variances,
            second=self._second,
            third=self._third,
            pulses=self._pulses,
            stuck=self._stuck,
        )

    def _block(self, inputs: slice) -> Float32:
        """Return the weights of one row of tiles (inputs, outputs), in units of `_unit`."""
        weights = self._weights
        block = np.empty((inputs.stop - inputs.start, len(weights)), np.float32)
        if weights.dtype == np.float32 and weights.flags.c_contiguous:
            kernels.take_lines(weights, inputs.start, np.float32(1 / self._unit), block)
        else:
            block[:] = (weights[:, inputs] / self._unit).T
        return block

    def _encoded(self, block: Float32, scale: Float32) -> Float32:
        """Return the targets (polarities, inputs, outputs) of weights in one slice."""
        per_scale = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
        steps = np.float32(max(self._profile.levels - 1, 0))
        targets = np.empty((self._encoder.polarities, *block.shape), np.float32)
        if self._encoder.polarities == 2:
            kernels.encode_pairs(block, per_scale, steps, targets[0], targets[1])
        else:
            kernels.encode_offset(block, per_scale, steps, targets[0])
        return targets

    def _program_row(self, index: int, tile_row: int, slice_: int, replica: int, targets: Float32) -> None:
        """Program one row of tiles of one slice and replica, and write what it holds to the stack."""
        profile, plan = self._profile, self._plan
        placements: list[Placement] | None = None
        if profile.stuck_on_rate or profile.stuck_off_rate:
            placements = place(
                targets,
                self._window[index],
                self._grid,
                profile,
                plan,
                self._seed,
                (slice_, replica, tile_row),
            )
        cells = [*targets, self._reference_targets(len(targets[0]))][:2]
        for polarity, filled in enumerate(cells):
            place_key = (slice_, 2 * replica + polarity, tile_row)
            self._program_cells(filled, place_key)
        for tile_column, placement in enumerate(placements or ()):
            self._stuck += placement.stick(cells, tile_column)
        self._write_row(index, tile_row, cells, placements)

    def _reference_targets(self, inputs: int) -> Float32:
        """Return the targets (inputs, tile columns) of an offset encoding's reference columns."""
        return np.full((inputs, self._grid.tile_columns), 0.5, np.float32)

    def _program_cells(self, filled: Float32, place_key: tuple[int, int, int]) -> None:
        """Program cells to `filled` (lines, columns), which becomes what they hold at the age asked for."""
        laws, plan = self._laws, self._plan
        ages = self._seconds > 0 and self._profile.drift is not None
        meant = self._siemens(filled) if ages else None
        stream = np.uint64(randomness.key(self._seed, randomness.PROGRAMMING, *place_key))
        if plan.write_verify_tolerance > 0 and plan.write_verify_tries > 1:
            share = self._profile.conductance_max_siemens / self._profile.window_siemens
            tolerance = np.float32(plan.write_verify_tolerance * share)
            self._pulses += kernels.program_verified(
                filled, stream, laws.programming, tolerance, plan.write_verify_tries, laws.floor
            )
        else:
            self._pulses += filled.size
            if laws.programming.any():
                kernels.program_once(filled, stream, laws.programming, laws.is_flat_programming, laws.floor)
        if meant is not None:
            deviates = np.empty_like(filled)
            stream = np.uint64(randomness.key(self._seed, randomness.DRIFT, *place_key))
            fill_lines(stream, deviates)
            aged = self._profile.aged_siemens(self._siemens(filled), deviates, self._seconds, target=meant)
            filled[:] = (aged - self._profile.conductance_min_siemens) / self._profile.window_siemens

    def _siemens(self, filled: Float32) -> Float32:
        siemens: Float32 = filled * np.float32(self._profile.window_siemens)
        siemens += np.float32(self._profile.conductance_min_siemens)
        np.maximum(siemens, 0, out=siemens)  # rounding alone takes a cell below
        return siemens

    def _write_row(
        self, index: int, tile_row: int, cells: list[Float32], placements: list[Placement] | None
    ) -> None:
        """Turn programmed cells into what the stack holds of them."""
        laws, meaning, lines = self._laws, self._window[index], len(cells[0])
        positive, negative = cells[0], self._at_outputs(cells[1])
        if self._second is not None and self._third is not None:
            self._write_nonlinear(index, positive, negative)
        if self._variances is not None:
            kernels.read_variances(
                positive,
                negative,
                meaning,
                laws.read,
                laws.floor,
                laws.read_per_window,
                self._variances[index, :lines],
            )
        if self._wires is not None:
            positive, negative = self._folded(index, cells, placements)
        kernels.subtract_cells(positive, negative, meaning, self._held[index, :lines])

    def _at_outputs(self, cells: Float32) -> Float32:
        """Return a row's second polarity (inputs, outputs): as it is, or its reference columns at every output."""
        outputs = self._grid.outputs
        if self._encoder.polarities == 2:
            return cells
        return np.ascontiguousarray(np.repeat(cells, self._grid.columns, axis=1)[:, :outputs])

    def _write_nonlinear(self, index: int, positive: Float32, negative: Float32) -> None:
        """Write the terms of |x| x and x^3 for inputs of at most 1, which is `read_volts`."""
        meaning = self._window[index] / np.float32(self._profile.window_siemens)
        volts = self._profile.read_volts
        for cells, sign in ((positive, 1), (negative, -1)):
            terms = self._profile.nonlinear_terms(self._siemens(cells))
            for power, (array, term) in enumerate(
                zip((self._second, self._third), terms or (), strict=True), start=1
            ):
                assert array is not None
                array[index, : len(cells)] += term * (sign * volts**power) * meaning

    def _folded(
        self, index: int, cells: list[Float32], placements: list[Placement] | None
    ) -> tuple[Float32, Float32]:
        """Return the cells (inputs, outputs) of both polarities as they count at the feet of resistive wires."""
        from crossbar.simulation.wires import fold_row  # and SciPy

        profile, plan = self._profile, self._plan
        siemens = [self._siemens(filled) for filled in cells]
        effective = fold_row(
            siemens,
            self._grid,
            self._wires or (0.0, 0.0),
            placements if plan.assignment != "none" else None,
            (plan.rows, plan.columns),
            profile.conductance_min_siemens,
        )
        if self._variances is not None:
            # Of a pair the larger cell shows best by how much the wires weaken both: what reaches the foot of the
            # smaller one has also come through its neighbours.
            present = siemens[0] + self._at_outputs(siemens[1])
            weakened = np.divide(
                effective[0] + effective[1], present, out=np.ones_like(present), where=present > 0
            )
            self._variances[index, : len(cells[0])] *= np.square(np.minimum(weakened, 1))
        span = np.float32(profile.window_siemens)
        return effective[0] / span, effective[1] / span
