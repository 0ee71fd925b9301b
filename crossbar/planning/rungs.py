"""Owns the rungs of the ladder: the levers a plan can pull, in the order of the memory that they cost.

A rung is a change of a plan and the terms of the error budget that it attacks. Whether it is worth taking is decided
by `crossbar.planning.ladder`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from crossbar.planning.plan import Plan

if TYPE_CHECKING:
    from crossbar.devices.profile import DeviceProfile

ROWS_MIN = 16
"""Word lines of the smallest arrays tried: below it converters outnumber what is saved by shorter wires."""

STATIC_TERMS = frozenset({"quantization", "programming", "faults", "ir_drop"})
SCATTERED_TERMS = frozenset({"programming", "read", "adc", "faults", "drift"})
ALL_TERMS = STATIC_TERMS | SCATTERED_TERMS | {"dac", "nonlinearity"}


@dataclass(frozen=True, slots=True)
class Rung:
    """One lever.

    Attributes:
        name: what people read.
        terms: fields of `ErrorBudget` that it can make smaller.
        changed: returns the plan with the lever pulled, or None if that changes nothing or is not possible.
        costs_cells: whether it takes more cells.
        is_digital: whether it computes some or all of the product digitally.
    """

    name: str
    terms: frozenset[str]
    changed: Callable[[Plan], Plan | None]
    costs_cells: bool = False
    is_digital: bool = False


def ladder(profile: DeviceProfile) -> Iterator[Rung]:
    """Yield the rungs for a profile, those that cost no memory first, "digital" last.

    Each rung goes further than the one of the same kind before it, and may be skipped.
    """
    yield Rung("column scale", frozenset({"quantization", "programming", "read"}), _set(scale="column"))
    if profile.adc_range == "max":
        yield Rung("calibrated ADC range", frozenset({"adc"}), _set(adc_range="calibrated"))
    yield Rung("ADC range per column", frozenset({"adc"}), _set(adc_range="column"))
    gained = frozenset({"ir_drop", "nonlinearity", "programming"})
    yield Rung("column gain", gained, _set(column_gain=True))
    faults = frozenset({"faults"})
    yield Rung("partner compensation", faults, _compensated)
    yield Rung("assignment of columns", faults, _set(assignment="columns"))
    yield Rung("assignment of rows and columns", faults, _set(assignment="rows_and_columns"))
    for tolerance, tries in ((0.02, 20), (0.01, 40), (0.005, 80)):
        change = _set(write_verify_tolerance=tolerance, write_verify_tries=tries)
        yield Rung(f"write-verify to {tolerance:.1%}", frozenset({"programming"}), change)
    for halvings in (1, 2, 3):
        rows, columns = max(1, profile.rows >> halvings), max(1, profile.columns >> halvings)
        if min(rows, columns) < ROWS_MIN:
            break
        shorter = frozenset({"ir_drop", "programming", "read", "quantization", "adc"})
        yield Rung(f"arrays of {rows} x {columns}", shorter, _resized(rows, columns), costs_cells=True)
    for every in (16, 8):
        yield Rung(f"one spare column in {every}", faults, _spared(every), costs_cells=True)
    for replicas in (2, 4, 8, 16):
        yield Rung(f"{replicas} replicas", SCATTERED_TERMS, _set(replicas=replicas), costs_cells=True)
    for slices in (2, 4):
        yield Rung(f"{slices} slices", frozenset({"quantization"}), _set(slices=slices), costs_cells=True)
    for share in (0.005, 0.02, 0.05):
        name = f"digital residual of {share:.1%}"
        yield Rung(name, STATIC_TERMS, _set(residual_share=share), is_digital=True)
    yield Rung("digital", ALL_TERMS, _digital, is_digital=True)


def _set(**fields: object) -> Callable[[Plan], Plan | None]:
    def changed(plan: Plan) -> Plan | None:
        different = replace(plan, **fields)  # type: ignore[arg-type]  # the names are checked where it runs
        return None if different == plan else different

    return changed


def _compensated(plan: Plan) -> Plan | None:
    if plan.partner_compensation or plan.encoding != "differential":
        return None
    return replace(plan, partner_compensation=True)


def _resized(rows: int, columns: int) -> Callable[[Plan], Plan | None]:
    def changed(plan: Plan) -> Plan | None:
        spares = plan.spare_columns * columns // plan.columns
        return replace(plan, rows=rows, columns=columns, spare_columns=spares)

    return changed


def _spared(every: int) -> Callable[[Plan], Plan | None]:
    def changed(plan: Plan) -> Plan | None:
        spares = max(1, plan.columns // every)
        if plan.assignment == "none" or spares <= plan.spare_columns or spares >= plan.columns - 1:
            return None
        return replace(plan, spare_columns=spares)

    return changed


def _digital(plan: Plan) -> Plan | None:
    """Return a plan that says nothing about arrays but their size."""
    return Plan(rows=plan.rows, columns=plan.columns, digital=True)
