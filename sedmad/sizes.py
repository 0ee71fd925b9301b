"""Owns how amounts of bytes are written and read: 2GiB, 80%, 8.0 MiB. Any room may import it."""

from __future__ import annotations

import re
from fractions import Fraction

from sedmad.errors import UsageError

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40

_UNITS = {
    "": 1,
    "b": 1,
    "kib": KIB,
    "mib": MIB,
    "gib": GIB,
    "tib": TIB,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
}
# Twenty digits are enough for any size in bytes, and keep the arithmetic small whatever somebody types.
_PATTERN = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,12})?)\s*([a-z]{0,3}|%)", re.ASCII | re.IGNORECASE)
_LARGEST_BYTES = 1 << 60  # an EiB: more is a typing error, and 64-bit counters stay far from their end


def parse_size(text: str, *, total_bytes: int | None = None) -> int:
    """Return the bytes that `text` means, rounded down: '2GiB', '1.5 GB', '4096', '80%'.

    IEC units (KiB to TiB) are powers of 1024, SI units (kB to TB) powers of 1000; case does not matter.

    Args:
        total_bytes: what a percentage is taken of; None refuses percentages.

    Raises:
        UsageError: not a size, too large, or a percentage that is above 100 or not of anything.
    """
    what = f"{text[:40]!r} is not a size"
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            what, why="a number and a unit were expected", hint="Write it like 2GiB, 512MiB or 80%."
        )
    number, unit = Fraction(match[1]), match[2].lower()
    if unit == "%":
        if total_bytes is None:
            raise UsageError(what, why="a percentage of nothing known", hint="Write it like 2GiB or 512MiB.")
        if number > 100:
            raise UsageError(what, why="more than 100 %", hint="Write at most 100%.")
        return int(total_bytes * number / 100)
    if unit not in _UNITS:
        hint = (
            f"Write {match[1]}{unit.upper()}iB."
            if unit in ("k", "m", "g", "t")
            else "Use KiB, MiB, GiB or TiB."
        )
        raise UsageError(what, why=f"the unit {match[2]!r} is not known", hint=hint)
    size_bytes = int(number * _UNITS[unit])
    if size_bytes > _LARGEST_BYTES:
        raise UsageError(what, why="more than 1024 PiB")
    return size_bytes


def format_bytes(size_bytes: float) -> str:
    """Return an amount of bytes as people read it, in IEC units: '512 B', '8.0 MiB'."""
    if abs(size_bytes) < KIB:
        return f"{size_bytes:.0f} B"
    amount = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if abs(amount) < 1023.95:  # what rounds to 1024.0 is 1.0 of the next unit
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:.1f} TiB"
