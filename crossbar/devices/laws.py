"""Owns the laws of devices at one moment: how far conductances scatter, and how current follows voltage.

A law is a value with the coefficients of a publication in it. Coefficients keep the numbers as they were
published: they count in multiples of `unit_siemens`, and polynomials take the conductance divided by
`reference_siemens`. Laws neither draw random numbers nor clip: `crossbar.devices.profile` does. How devices age
is in `crossbar.devices.ageing`.

A law of noise has `sd_siemens(conductance, seconds)`: the standard deviation, `seconds` after programming. A law of
current has `terms(conductance)`: (second, third) of I = G V + second |V| V + third V^3, in A/V^2 and A/V^3. Arrays are
float32 or float64, of any shape, and keep their dtype.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]

MICROSIEMENS = 1e-6

LEAST_SHARE = 1e-7  # of the reference: below it a logarithm or a negative power of a conductance says nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantNoise:
    """The same standard deviation for every conductance."""

    law: ClassVar[str] = "constant"
    sd: float
    unit_siemens: float = MICROSIEMENS

    def sd_siemens(self, conductance: FloatArray, seconds: float = 0.0) -> FloatArray:
        return np.full_like(conductance, self.sd * self.unit_siemens)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolynomialNoise:
    """sd = max(0, c0 + c1 x + c2 x^2 + ...) with x = G / `reference_siemens`."""

    law: ClassVar[str] = "polynomial"
    coefficients: tuple[float, ...]
    reference_siemens: float = MICROSIEMENS
    unit_siemens: float = MICROSIEMENS

    def sd_siemens(self, conductance: FloatArray, seconds: float = 0.0) -> FloatArray:
        relative = conductance / self.reference_siemens
        return np.maximum(polynomial(self.coefficients, relative), 0) * self.unit_siemens


@dataclass(frozen=True, slots=True, kw_only=True)
class SaturatingNoise:
    """sd = `limit` (1 - exp(-G / `scale`)), never negative."""

    law: ClassVar[str] = "saturating"
    limit: float
    scale: float
    unit_siemens: float = MICROSIEMENS

    def sd_siemens(self, conductance: FloatArray, seconds: float = 0.0) -> FloatArray:
        risen = -np.expm1(-np.maximum(conductance, 0) / (self.scale * self.unit_siemens))
        sd: FloatArray = risen * (self.limit * self.unit_siemens)
        return sd


@dataclass(frozen=True, slots=True, kw_only=True)
class FlickerNoise:
    """1/f noise that accumulates: sd = G q sqrt(ln((t + t_read) / (2 t_read))).

    q = min(`most`, `scale` / x^`exponent`), x = G / `reference_siemens`; t = seconds + `reference_seconds`,
    t_read = `read_seconds`; 0 while t < t_read.
    """

    law: ClassVar[str] = "flicker"
    scale: float
    exponent: float
    most: float
    reference_siemens: float
    reference_seconds: float
    read_seconds: float

    def sd_siemens(self, conductance: FloatArray, seconds: float = 0.0) -> FloatArray:
        relative = np.maximum(np.abs(conductance) / self.reference_siemens, LEAST_SHARE)
        share = np.minimum(self.scale * relative**-self.exponent, self.most)
        grown = _flicker_growth(seconds + self.reference_seconds, self.read_seconds)
        return np.abs(conductance) * share * grown


@dataclass(frozen=True, slots=True, kw_only=True)
class LogarithmicNoise:
    """sd = `scale` log10(G / `unit_siemens`) sqrt(ln((t + t_read) / (2 t_read))), t_read = `read_seconds`.

    0 where one of its logarithms is negative.
    """

    law: ClassVar[str] = "logarithmic"
    scale: float
    read_seconds: float
    unit_siemens: float = MICROSIEMENS

    def sd_siemens(self, conductance: FloatArray, seconds: float = 0.0) -> FloatArray:
        decades = np.log10(np.maximum(conductance / self.unit_siemens, 1))
        grown = self.scale * _flicker_growth(seconds, self.read_seconds)
        sd: FloatArray = decades * (grown * self.unit_siemens)
        return sd


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerNoise:
    """sd = `scale` x^`exponent` with x = G / `reference_siemens`."""

    law: ClassVar[str] = "power"
    scale: float
    exponent: float
    reference_siemens: float
    unit_siemens: float = MICROSIEMENS

    def sd_siemens(self, conductance: FloatArray, seconds: float = 0.0) -> FloatArray:
        relative = np.maximum(conductance / self.reference_siemens, 0)
        sd: FloatArray = relative**self.exponent * (self.scale * self.unit_siemens)
        return sd


@dataclass(frozen=True, slots=True, kw_only=True)
class SummedNoise:
    """Independent noises at once: sd^2 is the sum of the `parts`' sd^2."""

    law: ClassVar[str] = "sum"
    parts: tuple[
        ConstantNoise | PolynomialNoise | SaturatingNoise | FlickerNoise | LogarithmicNoise | PowerNoise, ...
    ]

    def sd_siemens(self, conductance: FloatArray, seconds: float = 0.0) -> FloatArray:
        total = np.zeros_like(conductance)
        for part in self.parts:
            total = np.hypot(total, part.sd_siemens(conductance, seconds))
        return total


@dataclass(frozen=True, slots=True, kw_only=True)
class CubicCurrent:
    """second and third are polynomials of l = log10(G / 1 S), fitted from `least_siemens` to `most_siemens`.

    Outside, the nearest end's ratio to G stands.
    """

    law: ClassVar[str] = "cubic"
    second: tuple[float, ...]
    third: tuple[float, ...]
    least_siemens: float
    most_siemens: float

    def terms(self, conductance: FloatArray) -> tuple[FloatArray, FloatArray]:
        fitted = np.clip(conductance, self.least_siemens, self.most_siemens)
        logarithm = np.log10(fitted.astype(np.float64))  # the terms nearly cancel: float32 would lose them
        share = conductance / fitted
        second = polynomial(self.second, logarithm) * share
        third = polynomial(self.third, logarithm) * share
        return second.astype(conductance.dtype), third.astype(conductance.dtype)


AnyNoise: TypeAlias = (
    ConstantNoise
    | PolynomialNoise
    | SaturatingNoise
    | FlickerNoise
    | LogarithmicNoise
    | PowerNoise
    | SummedNoise
)
AnyCurrent: TypeAlias = CubicCurrent


def polynomial(coefficients: tuple[float, ...], at: FloatArray) -> FloatArray:
    """Return c0 + c1 x + c2 x^2 + ... by Horner's rule, in the dtype of x."""
    value = np.full_like(at, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value *= at
        value += coefficient
    return value


def _flicker_growth(seconds: float, read_seconds: float) -> float:
    """Return sqrt(ln((t + t_read) / (2 t_read))): reads of length t_read see the 1/f noise of a time t."""
    return math.sqrt(max(math.log((seconds + read_seconds) / (2 * read_seconds)), 0.0))
