"""Owns what the numbers of a device profile and of its laws may be."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from itertools import pairwise

from crossbar.devices.ageing import ClippedLogarithm, TabulatedDrift, TabulatedState
from crossbar.devices.laws import CubicCurrent

COEFFICIENTS_MAX = 16
"""Terms of a polynomial. The longest published one has 11; past 16, float64 has no digit left."""

ROWS_MAX = 64
"""Rows of a table over time, or parts of a sum: measured tables have three to six."""

MAGNITUDE_MAX = 1e9
"""Of any coefficient, so that no law overflows within a conductance window."""

_POSITIVE = {
    "unit_siemens",
    "reference_siemens",
    "reference_seconds",
    "read_seconds",
    "least_siemens",
    "most_siemens",
}
_POSITIVE_IN_UNITS = {"SaturatingNoise": {"scale"}, "TabulatedState": {"shift_valid_to"}}
_NOT_NEGATIVE = {"sd", "limit", "exponent", "most", "scale", "seconds"}
_SIGNED_IN = {"ClippedLogarithm": {"most"}}
_POSITIVE_RANGE = (1e-15, 1e12)


def law_faults(law: object, key: str) -> Iterator[tuple[str, object, str]]:
    """Yield (key, value, what is allowed) for everything in a law that cannot be."""
    if not is_dataclass(law):
        yield key, law, "one of the laws of crossbar.devices"
        return
    for field in fields(law):
        value, name = getattr(law, field.name), f"{key}.{field.name}"
        if is_dataclass(value):
            yield from law_faults(value, name)
        elif isinstance(value, tuple):
            yield from _tuple_faults(value, name)
        else:
            yield from _number_faults(type(law).__name__, field.name, value, name)
    yield from _relation_faults(law, key)


def is_number(value: object) -> bool:
    """Return whether a value is a finite whole or floating-point number; True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -math.inf < value < math.inf


def _tuple_faults(values: tuple[object, ...], key: str) -> Iterator[tuple[str, object, str]]:
    if values and is_dataclass(values[0]):
        if len(values) > ROWS_MAX:
            yield key, f"{len(values)} rows", f"at most {ROWS_MAX} rows"
            return
        for index, value in enumerate(values):
            yield from law_faults(value, f"{key}[{index}]")
        return
    optional = key.endswith((".shift", ".states", ".parts"))
    if len(values) > COEFFICIENTS_MAX or (not values and not optional):
        yield key, list(values[:COEFFICIENTS_MAX]), f"1 to {COEFFICIENTS_MAX} numbers"
    for value in values[:COEFFICIENTS_MAX]:
        if not (is_number(value) and abs(value) <= MAGNITUDE_MAX):  # type: ignore[arg-type]
            yield key, value, f"finite numbers up to {MAGNITUDE_MAX:g}"


def _number_faults(owner: str, field: str, value: object, key: str) -> Iterator[tuple[str, object, str]]:
    if field == "shift_valid_to" and value == math.inf:
        return
    least, most = -MAGNITUDE_MAX, MAGNITUDE_MAX
    if field in _POSITIVE or field in _POSITIVE_IN_UNITS.get(owner, ()):
        least, most = _POSITIVE_RANGE
    elif field in _NOT_NEGATIVE and field not in _SIGNED_IN.get(owner, ()):
        least = 0.0
    if not (is_number(value) and least <= value <= most):  # type: ignore[operator]
        yield key, value, f"a number from {least:g} to {most:g}"


def _relation_faults(law: object, key: str) -> Iterator[tuple[str, object, str]]:
    """Yield what single numbers do not show: order among them."""
    if isinstance(law, ClippedLogarithm) and law.least > law.most:
        yield f"{key}.least", law.least, f"at most {key}.most, {law.most}"
    elif isinstance(law, CubicCurrent) and law.least_siemens >= law.most_siemens:
        yield f"{key}.least_siemens", law.least_siemens, f"less than {key}.most_siemens, {law.most_siemens}"
    elif isinstance(law, TabulatedDrift):
        if not law.states:
            yield f"{key}.states", [], "at least one row"
        times = [state.seconds for state in law.states if isinstance(state, TabulatedState)]
        if not all(max(a, 1.0) < b for a, b in pairwise(times)):
            yield f"{key}.states", times, "rows in order of seconds, those after the first beyond 1 s"
