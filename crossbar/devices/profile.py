"""Owns the device profile: what is known of the devices, the wires and the converters of a crossbar array.

A profile is a description and samples single devices; how weights become conductances is decided elsewhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from crossbar.devices.ageing import AnyDrift
from crossbar.devices.checking import is_number, law_faults
from crossbar.devices.laws import AnyCurrent, AnyNoise, FloatArray
from crossbar.errors import NetworkInvalid, ProfileInvalid

AdcRange: TypeAlias = Literal["max", "calibrated", "column"]

LINES_MAX = 4096
"""Word or bit lines of one array: none of devices that size has been read at once."""

BITS_MIN, BITS_MAX = 2, 16
"""Of a symmetric converter with 2^(bits - 1) - 1 steps on either side of 0: one bit would have none."""

LEVELS_MAX = 65536
"""Conductance levels: 16 bits, more than any device was shown to keep."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}\Z")
_YEAR_S = 365 * 86400.0
_TEXT_MAX = 1000  # characters of a description or a citation, which are shown on one screen


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """The crossbar arrays of one node.

    Attributes:
        name: what users write and adverts carry.
        description, source: one line saying what it is; where the figures come from.
        conductance_min_siemens, conductance_max_siemens: the window that weights are mapped to.
        levels: conductances that can be programmed, evenly spaced over the window; 0 is any.
        programming_noise: scatter of a device around its target, by conductance.
        read_noise: scatter of every single read.
        drift: what becomes of conductances with time.
        stuck_on_rate, stuck_off_rate: share of devices stuck at the window's maximum, at its minimum.
        device_variation: relative standard deviation of the devices' own maxima. A device whose maximum is 3 % high
            conducts 3 % more than asked for at every level; programming does not know.
        nonlinearity: how current departs from Ohm's law.
        word_line_ohm, bit_line_ohm: resistance of a wire from one cell to the next.
        read_volts: voltage of the largest input.
        rows, columns: word lines (inputs) and bit lines (outputs) of an array.
        dac_bits, adc_bits: bits of the converters, sign included; None has no converter.
        adc_range: "max", what an array can give at most; "calibrated", one range a matrix; "column", one a bit line.

    Raises:
        ProfileInvalid: a value is outside what it may be.
    """

    name: str
    conductance_min_siemens: float
    conductance_max_siemens: float
    description: str = ""
    source: str = ""
    levels: int = 0
    programming_noise: AnyNoise | None = None
    read_noise: AnyNoise | None = None
    drift: AnyDrift | None = None
    stuck_on_rate: float = 0.0
    stuck_off_rate: float = 0.0
    device_variation: float = 0.0
    nonlinearity: AnyCurrent | None = None
    word_line_ohm: float = 0.0
    bit_line_ohm: float = 0.0
    read_volts: float = 0.2
    rows: int = 128
    columns: int = 128
    dac_bits: int | None = 8
    adc_bits: int | None = 8
    adc_range: AdcRange = "calibrated"

    def __post_init__(self) -> None:
        for key, value, allowed in _faults(self):
            raise ProfileInvalid(
                f"a device profile cannot have {key} = {value!r}",
                why=f"{key} must be {allowed}",
                hint=f"Change {key} in the profile {self.name!r}.",
            )

    @property
    def is_ideal(self) -> bool:
        """True if nothing departs from exact arithmetic."""
        laws = (self.programming_noise, self.read_noise, self.drift, self.nonlinearity)
        figures = (self.stuck_on_rate, self.stuck_off_rate, self.device_variation, self.levels)
        wires = (self.word_line_ohm, self.bit_line_ohm)
        return laws == (None,) * 4 and not any(figures + wires) and self.dac_bits is self.adc_bits is None

    @property
    def window_siemens(self) -> float:
        """The width of the conductance window."""
        return self.conductance_max_siemens - self.conductance_min_siemens

    def nearest_level_siemens(self, conductance: FloatArray) -> FloatArray:
        """Return the nearest conductances that can be programmed: the window's levels, or anything within it."""
        least, most = self.conductance_min_siemens, self.conductance_max_siemens
        within: FloatArray = np.clip(conductance, least, most)
        if not self.levels:
            return within
        step = self.window_siemens / (self.levels - 1)
        nearest: FloatArray = np.minimum(np.rint((within - least) / step) * step + least, most)
        return nearest

    def programming_sd_siemens(self, target: FloatArray) -> FloatArray:
        """Return the standard deviation of a healthy device around its target: noise and device variation."""
        target = _floating(target)
        law = self.programming_noise
        noise = np.zeros_like(target) if law is None else law.sd_siemens(target)
        if not self.device_variation:
            return noise
        total: FloatArray = np.hypot(noise, target * self.device_variation)
        return total

    def read_sd_siemens(self, conductance: FloatArray, seconds: float = 0.0) -> FloatArray:
        """Return the standard deviation of a single read of devices programmed `seconds` ago."""
        conductance = _floating(conductance)
        if self.read_noise is None:
            return np.zeros_like(conductance)
        return self.read_noise.sd_siemens(conductance, seconds)

    def aged_siemens(
        self,
        programmed: FloatArray,
        deviates: FloatArray,
        seconds: float,
        *,
        target: FloatArray | None = None,
    ) -> FloatArray:
        """Return every healthy device's conductance, >= 0, `seconds` after programming.

        Args:
            programmed: conductances just after programming, siemens.
            deviates: N(0, 1) of each device, drawn once in its life, in the dtype of `programmed`.
            seconds: since programming, >= 0.
            target: what was meant to be programmed, which published laws depend on; without it `programmed`
                stands for it, which differs by the programming noise only.
        """
        check_seconds(seconds)
        programmed = _floating(programmed)
        if self.drift is None or seconds == 0:
            return np.maximum(programmed, 0)
        meant = np.maximum(programmed, 0) if target is None else _floating(target)
        return np.maximum(self.drift.aged_siemens(programmed, meant, deviates, seconds), 0)

    def programmed(
        self, target_siemens: FloatArray, rng: np.random.Generator, seconds: float = 0.0
    ) -> FloatArray:
        """Return sampled conductances of devices programmed to `target_siemens` once, `seconds` ago.

        Noise and variation, then drift, clipped at 0; devices that are stuck stay where they are. Read noise is
        not in it: `read_sd_siemens` is drawn with every read. The shape is kept, and float32 and float64 are.

        Raises:
            NetworkInvalid: a target is negative or not finite, or `seconds` is.
        """
        check_seconds(seconds)
        target = _floating(target_siemens)
        if not np.isfinite(target).all() or (target < 0).any():
            raise NetworkInvalid(
                "devices cannot be programmed", why="a target conductance is negative or not finite"
            )
        noisy = target + self.programming_sd_siemens(target) * _normals(rng, target)
        # Clipped once, at the end, so that the scatter of a later time is that time's alone.
        aged = self.aged_siemens(noisy, _normals(rng, target), seconds, target=target)
        if self.stuck_on_rate or self.stuck_off_rate:
            chance = rng.random(target.shape)
            stuck = chance < self.stuck_on_rate + self.stuck_off_rate
            aged = np.where(stuck, self.conductance_min_siemens, aged)
            aged = np.where(chance < self.stuck_on_rate, self.conductance_max_siemens, aged)
        return np.asarray(aged, target.dtype)

    def nonlinear_terms(self, conductance: FloatArray) -> tuple[FloatArray, FloatArray] | None:
        """Return (second, third) of I = G V + second |V| V + third V^3 in A/V^2 and A/V^3; None where I = G V."""
        if self.nonlinearity is None:
            return None
        return self.nonlinearity.terms(_floating(conductance))

    def nonlinear_current(self, conductance: FloatArray, volts: FloatArray) -> FloatArray:
        """Return the current of every device in amperes; the arguments broadcast."""
        current: FloatArray = conductance * volts
        terms = self.nonlinear_terms(conductance)
        if terms is None:
            return current
        second, third = terms
        return current + second * np.abs(volts) * volts + third * volts**3


def _floating(array: npt.ArrayLike) -> FloatArray:
    """Return an array of float32 or float64: the dtype it has, or float64."""
    given = np.asarray(array)
    return given if given.dtype in (np.float32, np.float64) else given.astype(np.float64)


def _normals(rng: np.random.Generator, like: FloatArray) -> FloatArray:
    if like.dtype == np.float32:
        return rng.standard_normal(like.shape, np.float32)
    return rng.standard_normal(like.shape)


def check_seconds(seconds: float) -> None:
    """Raise NetworkInvalid if devices cannot have been programmed that long ago."""
    if not 0 <= seconds < math.inf:
        raise NetworkInvalid(
            "devices have no such age", why=f"{seconds!r} is not a number of seconds from 0 on"
        )


def _faults(profile: DeviceProfile) -> Iterator[tuple[str, object, str]]:
    """Yield (key, value, what is allowed) for everything that a profile cannot have."""
    if not (isinstance(profile.name, str) and _NAME.match(profile.name)):
        yield "name", profile.name, "1 to 64 of a-z, 0-9, '_', '.' and '-', beginning with a letter or digit"
    for key in ("description", "source"):
        if not (isinstance(text := getattr(profile, key), str) and len(text) <= _TEXT_MAX):
            yield key, text, f"a text of at most {_TEXT_MAX} characters"
    for key, least, most in (
        ("conductance_min_siemens", 0.0, 1.0),
        ("conductance_max_siemens", 1e-12, 1.0),
        ("stuck_on_rate", 0.0, 1.0),
        ("stuck_off_rate", 0.0, 1.0),
        ("device_variation", 0.0, 1.0),
        ("word_line_ohm", 0.0, 1e6),
        ("bit_line_ohm", 0.0, 1e6),
        ("read_volts", 1e-6, 100.0),
    ):
        if not (is_number(value := getattr(profile, key)) and least <= value <= most):
            yield key, value, f"a number from {least:g} to {most:g}"
    for key, least_whole, most_whole in (
        ("rows", 1, LINES_MAX),
        ("columns", 1, LINES_MAX),
        ("levels", 0, LEVELS_MAX),
    ):
        if not _is_whole(value := getattr(profile, key), least_whole, most_whole):
            yield key, value, f"a whole number from {least_whole} to {most_whole}"
    for key in ("dac_bits", "adc_bits"):
        if (value := getattr(profile, key)) is not None and not _is_whole(value, BITS_MIN, BITS_MAX):
            yield key, value, f'a whole number from {BITS_MIN} to {BITS_MAX}, or "none" for no converter'
    yield from _contradictions(profile)


def _contradictions(profile: DeviceProfile) -> Iterator[tuple[str, object, str]]:
    least, most = profile.conductance_min_siemens, profile.conductance_max_siemens
    if least >= most:
        yield "conductance_min_siemens", least, f"less than conductance_max_siemens, {most:g}"
    if profile.levels == 1:
        yield "levels", 1, "0 for any conductance, or at least 2"
    if profile.stuck_on_rate + profile.stuck_off_rate > 1:
        yield (
            "stuck_off_rate",
            profile.stuck_off_rate,
            f"at most 1 - stuck_on_rate, {1 - profile.stuck_on_rate:g}",
        )
    if profile.adc_range not in get_args(AdcRange):
        yield "adc_range", profile.adc_range, "one of " + ", ".join(map(repr, get_args(AdcRange)))
    for key, kinds in (
        ("programming_noise", AnyNoise),
        ("read_noise", AnyNoise),
        ("drift", AnyDrift),
        ("nonlinearity", AnyCurrent),
    ):
        if (law := getattr(profile, key)) is not None:
            if not isinstance(law, kinds):
                yield key, law, "another kind of law"
            yield from law_faults(law, key)
    yield from _overflows(profile)


def _overflows(profile: DeviceProfile) -> Iterator[tuple[str, object, str]]:
    """Yield the laws that leave float32 somewhere in the window: extreme coefficients can, published ones do not."""
    window = np.linspace(
        profile.conductance_min_siemens, profile.conductance_max_siemens, 9, dtype=np.float32
    )
    with np.errstate(all="ignore"):
        for age in (0.0, _YEAR_S):
            for key, value in (
                ("programming_noise", profile.programming_sd_siemens(window)),
                ("read_noise", profile.read_sd_siemens(window, age)),
                ("drift", profile.aged_siemens(window, np.ones_like(window), age)),
                ("nonlinearity", profile.nonlinear_current(window, np.full_like(window, profile.read_volts))),
            ):
                if not np.isfinite(value).all():
                    yield key, getattr(profile, key), "finite over the conductance window"


def _is_whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
