"""Owns the laws of ageing: what becomes of conductances after programming.

A law has `aged_siemens(programmed, target, deviates, seconds)`: the conductances `seconds` > 0 after programming, from
those just after it (`programmed`) and those that were meant (`target`). `deviates` are N(0, 1), one a device, the same
at every age. As in `crossbar.devices.laws`, coefficients keep the numbers of their publication, and nothing is drawn
or clipped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np

from crossbar.devices.laws import (
    LEAST_SHARE,
    MICROSIEMENS,
    FloatArray,
    PolynomialNoise,
    SaturatingNoise,
    polynomial,
)

_LEAST_SECONDS = 1.0  # tables and logarithms of time begin here: nothing earlier was measured


@dataclass(frozen=True, slots=True, kw_only=True)
class ClippedLogarithm:
    """clip(`slope` ln x + `intercept`, `least`, `most`)."""

    slope: float
    intercept: float
    least: float
    most: float

    def at(self, relative: FloatArray) -> FloatArray:
        """Return the value for every x > 0."""
        return np.clip(self.slope * np.log(relative) + self.intercept, self.least, self.most)


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerDrift:
    """G(t) = G (1 + t / t0)^-nu, nu = max(0, mean + sd z) of each device, t0 = `reference_seconds`.

    z is the device's deviate; mean and sd are clipped logarithms of x = target / `reference_siemens`.
    """

    law: ClassVar[str] = "power"
    reference_siemens: float
    reference_seconds: float
    exponent_mean: ClippedLogarithm
    exponent_sd: ClippedLogarithm

    def aged_siemens(
        self, programmed: FloatArray, target: FloatArray, deviates: FloatArray, seconds: float
    ) -> FloatArray:
        relative = np.maximum(target / self.reference_siemens, LEAST_SHARE)
        exponent = self.exponent_mean.at(relative) + self.exponent_sd.at(relative) * deviates
        decades = math.log1p(seconds / self.reference_seconds)
        aged: FloatArray = programmed * np.exp(-decades * np.maximum(exponent, 0))
        return aged


@dataclass(frozen=True, slots=True, kw_only=True)
class LogarithmicDrift:
    """G(t) = G + `mean_slope` ln t + (`sd_slope` ln t + `sd_intercept`) z, alike for every conductance.

    t is in seconds; up to a second after programming the figures of one second stand.
    """

    law: ClassVar[str] = "logarithmic"
    mean_slope: float
    sd_slope: float
    sd_intercept: float
    unit_siemens: float = MICROSIEMENS

    def aged_siemens(
        self, programmed: FloatArray, target: FloatArray, deviates: FloatArray, seconds: float
    ) -> FloatArray:
        elapsed = math.log(max(seconds, _LEAST_SECONDS))
        sd = max(self.sd_slope * elapsed + self.sd_intercept, 0.0) * self.unit_siemens
        aged: FloatArray = programmed + deviates * sd + self.mean_slope * elapsed * self.unit_siemens
        return aged


@dataclass(frozen=True, slots=True, kw_only=True)
class TabulatedState:
    """The scatter around the target at one time, and by how much the mean has moved.

    `shift` is a polynomial in the target / `unit_siemens`, held from `shift_valid_to` on: fits of a high degree
    run away beyond the data.
    """

    seconds: float
    sd: PolynomialNoise | SaturatingNoise
    shift: tuple[float, ...] = ()
    shift_valid_to: float = math.inf
    unit_siemens: float = MICROSIEMENS

    def shift_siemens(self, target: FloatArray) -> FloatArray:
        """Return the change of the mean conductance."""
        if not self.shift:
            return np.zeros_like(target)
        relative = np.minimum(target / self.unit_siemens, self.shift_valid_to)
        # Terms of a high degree cancel to a few digits: float32 has none to spare.
        moved = polynomial(self.shift, relative.astype(np.float64)) * self.unit_siemens
        return moved.astype(target.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class TabulatedDrift:
    """Mean and scatter at measured times, in between interpolated over the logarithm of time, held after the last.

    The first state is the scatter of programming. A later one adds to it, as a part of its own that `deviates`
    carries: sd_added^2 = sd(t)^2 - sd(first)^2. How one device's deviations correlate over time was not published.
    """

    law: ClassVar[str] = "tabulated"
    states: tuple[TabulatedState, ...]

    def aged_siemens(
        self, programmed: FloatArray, target: FloatArray, deviates: FloatArray, seconds: float
    ) -> FloatArray:
        shift, variance = np.zeros_like(target), -np.square(self.states[0].sd.sd_siemens(target))
        for state, weight in self._around(seconds):
            moved = state.shift_siemens(target)
            shift += moved * weight
            variance += np.square(state.sd.sd_siemens(target + moved)) * weight
        aged: FloatArray = programmed + shift + np.sqrt(np.maximum(variance, 0)) * deviates
        return aged

    def _around(self, seconds: float) -> tuple[tuple[TabulatedState, float], ...]:
        """Return the states that enclose a time, with their weights."""
        elapsed = math.log(max(seconds, _LEAST_SECONDS))
        times = [math.log(max(state.seconds, _LEAST_SECONDS)) for state in self.states]
        if elapsed <= times[0]:
            return ((self.states[0], 1.0),)
        for index in range(1, len(times)):
            if elapsed <= times[index]:
                weight = (elapsed - times[index - 1]) / (times[index] - times[index - 1])
                return (self.states[index - 1], 1.0 - weight), (self.states[index], weight)
        return ((self.states[-1], 1.0),)


AnyDrift: TypeAlias = PowerDrift | LogarithmicDrift | TabulatedDrift
