"""Owns the crossbar that people program and multiply with: `program(weights, profile, seed=...)`.

Read noise is drawn for each vector from a key of its own, (seed, request, column): joined with others or alone, here
or on another machine, a vector meets the same noise.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from crossbar import randomness
from crossbar.devices.catalogue import profile as profile_named
from crossbar.devices.profile import DeviceProfile, check_seconds
from crossbar.engine import FloatArray
from crossbar.errors import PlanInvalid, WeightsInvalid
from crossbar.kernels.randomness import extend_keys
from crossbar.mapping.residual import ResidualSelection, SparseResidual
from crossbar.mapping.tiling import TileGrid
from crossbar.planning.calibration import calibration_vectors, column_gains, measured_error
from crossbar.planning.plan import Plan
from crossbar.simulation.arrays import Arrays, Float32
from crossbar.simulation.backward import BackwardProducts
from crossbar.simulation.converters import Converters
from crossbar.simulation.counting import Report
from crossbar.simulation.forward import ForwardProducts
from crossbar.simulation.programming import program_arrays
from crossbar.simulation.trial import adc_ranges
from crossbar.weights import checked_weights, real_numbers, require_magnitude

Keys = npt.NDArray[np.uint64]

_OWN_REQUESTS = (
    1 << 63
)  # numbers of requests that callers leave to us begin here: apart from those they choose
_TURNED_AT_ONCE = 64  # columns; 256 of 1024 numbers took 1.0 ms at once and 0.3 ms so
_BACKWARD = 1  # marks keys of transposed products


def program(
    weights: FloatArray,
    profile: DeviceProfile | str,
    *,
    seed: int,
    plan: Plan | None = None,
    calibration: FloatArray | None = None,
) -> Crossbar:
    """Put weights on simulated crossbar arrays.

    Args:
        weights: (outputs, inputs), float32 or float64; it is kept, not copied, if it is C-contiguous.
        profile: the devices, or the name of one of `crossbar.profiles()`.
        seed: of these devices. The same seed gives the same devices, faults and read noise.
        plan: how weights are laid out; `Plan.default(profile)` if it is not given.
        calibration: (inputs, vectors) like those that will be multiplied, for ADC ranges and gains; standard normal
            vectors if they are not given.

    Raises:
        WeightsInvalid: weights or calibration are not finite, empty, or of the wrong shape; no float32 is as large or
            small as the weights, or calibration is nothing but zeros.
        PlanInvalid: the plan's arrays are larger than those of the profile.
        ProfileUnknown: no profile has this name.
    """
    if isinstance(profile, str):
        profile = profile_named(profile)
    plan = Plan.default(profile) if plan is None else plan
    checked = checked_weights(weights)
    if not (plan.digital or profile.is_ideal):
        require_magnitude(checked)
    if plan.rows > profile.rows or plan.columns > profile.columns:
        raise PlanInvalid(
            f"a plan for arrays of {plan.rows} x {plan.columns} does not fit the profile {profile.name!r}",
            why=f"its arrays are {profile.rows} x {profile.columns}",
            hint="Plan smaller arrays, or change rows and columns of the profile.",
        )
    samples = None if calibration is None else _checked_panel(calibration, checked.shape[1], np.float32)
    if samples is not None and not samples.any():
        raise WeightsInvalid(
            "all calibration vectors are 0",
            why="no range of an ADC follows from them",
            hint="Leave them out.",
        )
    vectors = calibration_vectors(checked.shape[1], seed=seed, samples=samples)
    return Crossbar(checked, profile, plan, seed, vectors)


class Crossbar:
    """A matrix on crossbar arrays. Several threads may multiply with it at once. Made by `program`."""

    def __init__(
        self,
        weights: FloatArray,
        profile: DeviceProfile,
        plan: Plan,
        seed: int,
        calibration: Float32,
        *,
        seconds: float = 0.0,
        fresh: Crossbar | None = None,
        compensated: bool = True,
    ) -> None:
        self.profile, self.plan, self.seed, self.seconds = profile, plan, seed, seconds
        self._weights, self._calibration = weights, calibration
        self._requests = itertools.count(_OWN_REQUESTS)
        self._analog: _Analog | None = None
        if not (plan.digital or profile.is_ideal):
            before = None if fresh is None else fresh._analog
            self._analog = _Analog(
                weights, profile, plan, seed, calibration, seconds, before, compensated=compensated
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs)"""
        outputs, inputs = self._weights.shape
        return outputs, inputs

    @property
    def memory_bytes(self) -> int:
        """Bytes held beyond the weights themselves, scratch memory of threads not counted."""
        return 0 if self._analog is None else self._analog.memory_bytes

    def apply(self, vectors: FloatArray, *, request: int | None = None) -> FloatArray:
        """Return W X (outputs, vectors) in the dtype of the weights, for X (inputs, vectors).

        A vector that is not finite gives NaN everywhere: its DAC has no scale.

        Args:
            request: what read noise is drawn for, from 0 on: the same number gives the same noise. Without it every
                call draws anew.

        Raises:
            WeightsInvalid: X does not have as many rows as W has inputs.
        """
        checked = _checked_panel(vectors, self.shape[1], self._weights.dtype, finite=False)
        return self.multiply(_turned(checked), self._keys(request, checked.shape[1])).T

    def apply_transposed(self, vectors: FloatArray, *, request: int | None = None) -> npt.NDArray[np.float64]:
        """Return W^T X (inputs, vectors) in float64, for X (outputs, vectors): as `apply`, arrays driven backwards."""
        checked = _checked_panel(vectors, self.shape[0], self._weights.dtype, finite=False)
        keys = self._keys(request, checked.shape[1], _BACKWARD)
        return self.multiply_transposed(_turned(checked), keys).T

    def multiply(self, panel: FloatArray, keys: Keys) -> FloatArray:
        """Return (vectors, outputs) for a C-contiguous panel (vectors, inputs) in the dtype of the weights.

        Args:
            keys: (vectors,), of the read noise of each vector: `crossbar.randomness.key`.
        """
        if self._analog is None:
            with np.errstate(all="ignore"):
                product: FloatArray = panel @ self._weights.T
            return product
        return self._analog.multiply(panel, keys)

    def multiply_transposed(self, panel: FloatArray, keys: Keys) -> npt.NDArray[np.float64]:
        """Return (vectors, inputs) for a C-contiguous panel (vectors, outputs); as `multiply`."""
        if self._analog is None:
            with np.errstate(all="ignore"):
                return np.asarray(panel @ self._weights, np.float64)
        return self._analog.multiply_transposed(panel, keys)

    def error(self, vectors: FloatArray) -> float:
        """Return the relative L2 error ||apply(X) - W X|| / ||W X|| over all of X (inputs, vectors)."""
        panel = _checked_panel(vectors, self.shape[1], self._weights.dtype)
        return measured_error(self.apply, self._weights, panel).value

    def aged(self, seconds: float, *, compensated: bool = True) -> Crossbar:
        """Return the same devices `seconds` after they were programmed; ADC ranges stay what they were then.

        Args:
            compensated: global drift compensation: all results are multiplied with one number, that by which the
                summed magnitude of the answers to calibration vectors has fallen since programming.

        Raises:
            NetworkInvalid: `seconds` is negative or not finite.
        """
        check_seconds(seconds)
        return Crossbar(
            self._weights,
            self.profile,
            self.plan,
            self.seed,
            self._calibration,
            seconds=seconds,
            fresh=self,
            compensated=compensated,
        )

    def report(self) -> Report:
        """Count what the block takes."""
        if self._analog is None:
            return Report.digital(TileGrid(*self.shape, self.plan.rows, self.plan.data_columns))
        return self._analog.report()

    def held_weights(self) -> Float32:
        """Return the weights (outputs, inputs) that the arrays hold, digital corrections included."""
        if self._analog is None:
            return np.asarray(self._weights, np.float32)
        return self._analog.held_weights()

    def _keys(self, request: int | None, count: int, *direction: int) -> Keys:
        number = next(self._requests) if request is None else request
        keys = np.empty(count, np.uint64)
        stream = randomness.key(self.seed, randomness.READ, number, *direction)
        extend_keys(np.uint64(stream), keys)
        return keys


class _Analog:
    """The arrays behind a crossbar, their converters, and what digital arithmetic adds."""

    def __init__(
        self,
        weights: FloatArray,
        profile: DeviceProfile,
        plan: Plan,
        seed: int,
        calibration: Float32,
        seconds: float,
        fresh: _Analog | None,
        *,
        compensated: bool,
    ) -> None:
        self._plan = plan
        self.arrays = program_arrays(weights, profile, plan, seed, seconds)
        panel = np.ascontiguousarray(calibration.T)
        self.ranges: Float32 = (
            adc_ranges(self.arrays, profile, plan, panel) if fresh is None else fresh.ranges
        )
        self.gains, self.answer_sum = np.ones(len(weights), np.float32), 0.0
        if plan.column_gain or profile.drift is not None:
            answers = self._forward_products(profile).multiply_without_noise(panel)
            self.answer_sum = float(np.abs(answers).sum(dtype=np.float64))
            if fresh is not None:
                drifted = fresh.answer_sum / self.answer_sum if compensated and self.answer_sum else 1.0
                self.gains = fresh.gains * np.float32(drifted)
            elif plan.column_gain:
                self.gains = self._fitted_gains(weights, calibration, answers.T)
        self.arrays.multiply_outputs(self.gains)
        self._residual: SparseResidual | None = (
            _residual(weights, self.arrays, plan.residual_share) if fresh is None else fresh._residual
        )
        self._forward = self._forward_products(profile)
        self._backward = BackwardProducts(
            self.arrays, profile.dac_bits, profile.adc_bits, plan.adc_range, seed
        )

    def _fitted_gains(self, weights: FloatArray, calibration: Float32, answers: Float32) -> Float32:
        """Return the gain of every output that brings noiseless `answers` (outputs, vectors) closest to W X.

        What the residual will correct, stuck devices above all, is no reason to turn a gain: what the worst weights
        lack is added to the answers first.
        """
        residual = _residual(weights, self.arrays, self._plan.residual_share)
        if residual is not None:
            answers = answers + np.asarray(residual.apply(np.ascontiguousarray(calibration.T)), np.float32).T
        return column_gains(answers, weights @ calibration)

    def _forward_products(self, profile: DeviceProfile) -> ForwardProducts:
        converters = Converters.of(profile.dac_bits, profile.adc_bits, self.ranges * self.gains)
        return ForwardProducts(self.arrays, converters)

    @property
    def memory_bytes(self) -> int:
        residual = 0 if self._residual is None else self._residual.memory_bytes
        return self.arrays.nbytes + 3 * self.arrays.window.nbytes + residual

    def multiply(self, panel: FloatArray, keys: Keys) -> FloatArray:
        narrow, scales = _narrowed(panel)
        product = np.empty((len(panel), self.arrays.grid.outputs), np.float32)
        self._forward.multiply(narrow, keys, product)
        if self._residual is not None:
            product += self._residual.apply(narrow)
        return product if scales is None else product * scales

    def multiply_transposed(self, panel: FloatArray, keys: Keys) -> npt.NDArray[np.float64]:
        narrow, scales = _narrowed(panel)
        product = np.zeros((len(panel), self.arrays.grid.inputs), np.float64)
        self._backward.multiply(narrow, keys, product)
        if self._residual is not None:
            product += self._residual.apply_transposed(narrow)
        return product if scales is None else product * scales

    def report(self) -> Report:
        corrected = 0 if self._residual is None else self._residual.weights
        return Report.of(self.arrays, self._plan, digital_weights=corrected, memory_bytes=self.memory_bytes)

    def held_weights(self) -> Float32:
        grid = self.arrays.grid
        held = np.concatenate([self.arrays.held(row) for row in range(grid.tile_rows)]).T
        held *= np.float32(self.arrays.unit)
        if self._residual is not None:
            held += self._residual.dense()
        return held


def _residual(weights: FloatArray, arrays: Arrays, share: float) -> SparseResidual | None:
    """Return the corrections of the weights with the largest errors, or None if the plan has none."""
    if not share:
        return None
    selection = ResidualSelection(arrays.grid.outputs, arrays.grid.inputs, share)
    for row in range(arrays.grid.tile_rows):
        inputs = arrays.grid.input_range(row)
        held = arrays.held(row) * np.float32(arrays.unit)
        selection.add(np.ascontiguousarray(weights[:, inputs].T, np.float32) - held, first_input=inputs.start)
    return selection.finish()


def _turned(vectors: FloatArray) -> FloatArray:
    """Return X^T, C-contiguous: a few columns at a time, which the first cache holds the lines of."""
    turned = np.empty(vectors.shape[::-1], vectors.dtype)
    for first in range(0, len(turned), _TURNED_AT_ONCE):
        here = slice(first, first + _TURNED_AT_ONCE)
        turned[here] = vectors[:, here].T
    return turned


def _narrowed(
    panel: FloatArray,
) -> tuple[Float32, npt.NDArray[np.float64] | None]:
    """Return a panel in float32, and what to multiply float64 products with: vectors may be out of its range."""
    if panel.dtype == np.float32:
        return panel, None
    with np.errstate(all="ignore"):
        scales = np.abs(panel).max(axis=1, keepdims=True)
        scales = np.where(scales > 0, scales, 1.0)
        return (panel / scales).astype(np.float32), scales


def _checked_panel(
    vectors: FloatArray, inputs: int, dtype: npt.DTypeLike, *, finite: bool = True
) -> FloatArray:
    panel = np.asarray(real_numbers(vectors, "vectors"), dtype)
    if panel.ndim != 2 or panel.shape[0] != inputs or not panel.shape[1]:
        raise WeightsInvalid(f"vectors of shape ({inputs}, vectors) were expected, not {panel.shape}")
    if finite and not np.isfinite(panel).all():
        raise WeightsInvalid("not every value of the vectors is finite")
    return panel
