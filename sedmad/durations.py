"""Owns how spans of time are written and read: 24h, 500ms, 3 h 12 min. Any room may import it."""

from __future__ import annotations

import re

from sedmad.errors import UsageError

_UNITS_S = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_PATTERN = re.compile(r"(-?[0-9]{1,12}(?:\.[0-9]{1,9})?)\s*([a-z]{0,3})", re.ASCII | re.IGNORECASE)
# A century: more is a typing error, and every clock and counter has room for it.
_LONGEST_S = 100 * 365 * 86400.0


def parse_duration(text: str) -> float:
    """Return the seconds that `text` means: '24h', '5s', '500ms', '90' (seconds), '1.5 d', '-1s'.

    Raises:
        UsageError: not a span of time, or longer than a century.
    """
    what = f"{text[:40]!r} is not a span of time"
    match = _PATTERN.fullmatch(text.strip())
    if match is None or match[2].lower() not in _UNITS_S:
        raise UsageError(
            what, why="a number and a unit were expected", hint="Write it like 500ms, 5s, 10m, 24h or 7d."
        )
    duration_s = float(match[1]) * _UNITS_S[match[2].lower()]
    if abs(duration_s) > _LONGEST_S:
        raise UsageError(what, why="more than a century")
    return duration_s


def format_duration(duration_s: float) -> str:
    """Return a span of time as people read it, in its two largest units: '850 ms', '42 s', '3 h 12 min', '5 d 2 h'."""
    if duration_s < 1:
        return f"{duration_s * 1000:.0f} ms"
    seconds = int(duration_s)
    for unit_s, unit, smaller_s, smaller in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if seconds >= unit_s:
            rest = seconds % unit_s // smaller_s
            return f"{seconds // unit_s} {unit} {rest} {smaller}" if rest else f"{seconds // unit_s} {unit}"
    return f"{seconds} s"
