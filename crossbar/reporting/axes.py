"""Owns axes: which values they span, where values lie on them, and their ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

_TICKS = 5  # on a linear axis, about: more do not fit on a telephone


@dataclass(frozen=True, slots=True)
class Axis:
    """A labelled axis from `least` to `most`; ticks are values and what is written at them."""

    label: str
    least: float
    most: float
    ticks: tuple[tuple[float, str], ...]
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Return where a value lies, 0 to 1; values outside are moved to the nearer end."""
        low, high, at = self.least, self.most, min(max(value, self.least), self.most)
        if self.logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return (at - low) / (high - low)


def linear_axis(label: str, most: float, *, least: float = 0.0, unit: float = 1.0) -> Axis:
    """Return an axis from `least` to a round number not below `most`; figures are written in units of `unit`."""
    span = max(most - least, 1e-12 * max(abs(most), 1e-300))
    step = _round_up(span / unit / _TICKS) * unit
    first, last = math.floor(least / step + 1e-9), math.ceil(most / step - 1e-9)
    last = max(last, first + 1)
    ticks = tuple((step * index, _written(step * index / unit)) for index in range(first, last + 1))
    return Axis(label, ticks[0][0], ticks[-1][0], ticks)


def error_axis(values: Iterable[float], label: str = "relative error, %") -> Axis:
    """Return a logarithmic axis of relative errors, written in per cent, that holds all positive `values`."""
    positive = [value for value in values if 0 < value < math.inf] or [0.01, 0.1]
    least, most = min(positive) / 1.1, max(positive) * 1.1
    decades = range(math.floor(math.log10(least)) - 1, math.ceil(math.log10(most)) + 1)
    rounds = [factor * 10.0**decade for decade in decades for factor in (1, 2, 5)]
    low = max(value for value in rounds if value <= least)
    high = min(value for value in rounds if value >= most)
    kept = [value for value in rounds if low <= value <= high]
    if len(kept) > 2 * _TICKS:
        kept = [value for value in kept if math.isclose(math.log10(value), round(math.log10(value)))]
    return Axis(label, low, high, tuple((value, _written(100 * value)) for value in kept), logarithmic=True)


def stepped_axis(label: str, names: Sequence[str]) -> Axis:
    """Return an axis of values 0, 1, 2, ... with a name each: what lies between has no meaning."""
    most = max(len(names) - 1, 1)
    return Axis(label, -0.3, most + 0.3, tuple((float(index), name) for index, name in enumerate(names)))


def age_axis(label: str, ages: Mapping[str, float]) -> Axis:
    """Return an axis of log10(seconds) with a tick for every named age; 0 s is a step before the first other one."""
    first = math.log10(min(seconds for seconds in ages.values() if seconds > 0)) - 1
    ticks = tuple((math.log10(seconds) if seconds > 0 else first, name) for name, seconds in ages.items())
    most = max(value for value, _ in ticks)
    return Axis(label, first - 0.3, most + 0.3, ticks)


def _round_up(value: float) -> float:
    """Return the next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value * (1 - 1e-9))


def _written(value: float) -> str:
    return f"{value:.6g}"
