"""Owns the plan: what is decided for one block of weights on one device profile.

A plan is a value. What it costs and which error it leads to is predicted elsewhere in this room; `crossbar.program`
carries it out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal, Protocol, get_args

from crossbar.errors import PlanInvalid

Encoding = Literal["differential", "offset"]
Scale = Literal["matrix", "column"]
AdcRange = Literal["max", "calibrated", "column"]
Assignment = Literal["none", "columns", "rows_and_columns"]

ARRAY_LINES_MAX = 4096
"""Word or bit lines of one array. No array of devices that size has been read at once; a larger figure is a slip."""

SLICES_MAX = 8
"""Cells that share one weight: eight slices of two levels already hold eight bits."""

REPLICAS_MAX = 64
"""Copies of a weight that are averaged: 64 divide the error by 8, further ones buy next to nothing."""

WRITE_VERIFY_TRIES_MAX = 1000
"""Pulses spent on one device at most, so that programming always ends."""

_CHOICES = {
    "encoding": get_args(Encoding),
    "scale": get_args(Scale),
    "adc_range": get_args(AdcRange),
    "assignment": get_args(Assignment),
}


class ArrayDescription(Protocol):
    """What a plan takes from a `crossbar.devices.DeviceProfile`."""

    @property
    def rows(self) -> int: ...
    @property
    def columns(self) -> int: ...
    @property
    def adc_range(self) -> str: ...
    @property
    def word_line_ohm(self) -> float: ...
    @property
    def bit_line_ohm(self) -> float: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How one block of weights (outputs, inputs) is held by arrays.

    Attributes:
        rows, columns: word lines (inputs) and bit lines (outputs) of one array, spare columns included.
        encoding: "differential", two cells a weight, one of them at the least conductance; or "offset", one cell
            a weight around the middle of the window and one reference column an array.
        slices: cells that share one weight as digits of it.
        replicas: copies of every array, averaged digitally.
        scale: the largest weight that the window holds is the largest of the "matrix" or of each tile "column".
        adc_range: "max", what a tile can give at most; "calibrated", one range a matrix; "column", one range for
            every bit line of every tile.
        partner_compensation: the healthy cell of a pair makes up for a stuck one.
        assignment: which "columns" (and rows) of a tile take which bit (and word) lines, chosen around faults.
        write_verify_tolerance: a cell is programmed again while it is further from its target than this share
            of the largest conductance; 0 programs once.
        write_verify_tries: pulses on one cell at most; the best one is kept.
        spare_columns: bit lines of an array that hold nothing unless assignment moves a column there.
        column_gain: every column's digital result is multiplied with a calibrated gain.
        residual_share: the share of weights, those with the largest error, whose error is added digitally.
        digital: nothing is on arrays; products are exact.
        fold_ir_drop: the resistance of the wires is computed and is part of what the arrays do. Without it the
            wires are taken to be perfect.
    """

    rows: int
    columns: int
    encoding: Encoding = "differential"
    slices: int = 1
    replicas: int = 1
    scale: Scale = "column"
    adc_range: AdcRange = "calibrated"
    partner_compensation: bool = False
    assignment: Assignment = "none"
    write_verify_tolerance: float = 0.0
    write_verify_tries: int = 1
    spare_columns: int = 0
    column_gain: bool = False
    residual_share: float = 0.0
    digital: bool = False
    fold_ir_drop: bool = False

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise _invalid(name, getattr(self, name), "one of " + ", ".join(map(repr, choices)))
        for name, least, most in (
            ("rows", 1, ARRAY_LINES_MAX),
            ("columns", 1, ARRAY_LINES_MAX),
            ("slices", 1, SLICES_MAX),
            ("replicas", 1, REPLICAS_MAX),
            ("write_verify_tries", 1, WRITE_VERIFY_TRIES_MAX),
            ("spare_columns", 0, self.columns - 1),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise _invalid(name, value, f"a whole number from {least} to {most}")
        for name in ("write_verify_tolerance", "residual_share"):
            value = getattr(self, name)
            if not math.isfinite(value) or not 0 <= value <= 1:
                raise _invalid(name, value, "a share from 0 to 1")
        if self.encoding == "offset" and self.partner_compensation:
            raise _invalid("partner_compensation", True, "False, since an offset cell has no partner")
        if self.spare_columns and self.assignment == "none":
            raise _invalid("spare_columns", self.spare_columns, "0 without assignment, which alone uses them")

    @classmethod
    def default(cls, profile: ArrayDescription) -> Plan:
        """Return the plan without levers, except for a scale per tile column, which costs nothing."""
        return cls(
            rows=profile.rows,
            columns=profile.columns,
            adc_range=_adc_range(profile.adc_range),
            fold_ir_drop=profile.word_line_ohm > 0 or profile.bit_line_ohm > 0,
        )

    @classmethod
    def static(cls, profile: ArrayDescription) -> Plan:
        """Return the plan of *static partitioning*: fixed tiling, one scale a matrix, no levers at all.

        The ADC range is the profile's: a baseline that the converters spoil would prove nothing.
        """
        return cls(
            rows=profile.rows,
            columns=profile.columns,
            scale="matrix",
            adc_range=_adc_range(profile.adc_range),
            fold_ir_drop=profile.word_line_ohm > 0 or profile.bit_line_ohm > 0,
        )

    @property
    def data_columns(self) -> int:
        """Bit lines of an array that hold weights: all but the spares and an offset reference."""
        return max(1, self.columns - self.spare_columns - (self.encoding == "offset"))

    @property
    def cells_per_weight(self) -> int:
        """Cells that one weight takes, its copies included and reference columns not."""
        if self.digital:
            return 0
        return (2 if self.encoding == "differential" else 1) * self.slices * self.replicas

    @property
    def levers(self) -> tuple[str, ...]:
        """The names of the fields that differ from a plan without levers, in the order of the fields."""
        plain = Plan(rows=self.rows, columns=self.columns, scale="matrix", adc_range="max")
        return tuple(
            field.name
            for field in fields(self)
            if field.name != "fold_ir_drop" and getattr(self, field.name) != getattr(plain, field.name)
        )


def _adc_range(value: str) -> AdcRange:
    for choice in get_args(AdcRange):
        if value == choice:
            return choice  # type: ignore[no-any-return]
    raise _invalid("adc_range", value, "one of " + ", ".join(map(repr, get_args(AdcRange))))


def _invalid(name: str, value: object, allowed: str) -> PlanInvalid:
    return PlanInvalid(
        f"a plan cannot have {name} = {value!r}", why=f"{name} must be {allowed}", hint="Change that field."
    )
