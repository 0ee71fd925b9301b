"""Owns the assignment: which word and bit lines of an array take which inputs and outputs, chosen around faults.

What an input k and an output j cost on word line r and bit line c is the expected squared error of the output,
E[x_k^2] e^2, with e the error of w_kj on the devices at (r, c), after partner compensation if there is any. With all
inputs in place, the best bit lines for the outputs are a linear assignment problem; with all outputs in place the
word lines are another one. They are solved in turn by the Hungarian method (Crouse, On implementing 2D rectangular
assignment algorithms, IEEE Trans. Aerospace and Electronic Systems 52, 2016, as in SciPy), and none makes the cost
rise.

A problem has one pair of arrays (or one array if the encoding is offset): slices and replicas are apart from each
other and each has an assignment of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from crossbar.engine import FloatArray
from crossbar.mapping.encoding import Window
from crossbar.mapping.faults import HEALTHY, STUCK_OFF, STUCK_ON, FaultMap

ROUNDS_MAX = 3
"""Alternations of rows and columns: a fourth lowers the error by 1 % more (128 x 128, one device in nine stuck)."""

_CONDITIONS = (HEALTHY, STUCK_ON, STUCK_OFF)

_NO_ERROR = 1e-12  # in windows squared: what rounding leaves of a weight that was restored

_GATHERED_MAX = 1 << 22  # float32 errors that are gathered at once, if all devices were stuck: 16 MiB


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where the inputs and outputs of a tile are on its array.

    Attributes:
        rows: (inputs,), the word line of each input.
        columns: (outputs,), the bit line of each output.
        cost: the expected squared error of all outputs together; 0 without faults.
        cost_before: what it would be with every input and output on the line of its own number.
    """

    rows: npt.NDArray[np.intp]
    columns: npt.NDArray[np.intp]
    cost: float
    cost_before: float

    def logical(self, physical: FaultMap) -> FaultMap:
        """Return the faults (..., inputs, outputs) that the weights meet on an array of faults `physical`."""
        return physical[..., self.rows[:, np.newaxis], self.columns]

    def physical(self, logical: FloatArray, rows: int, columns: int, idle_siemens: float) -> FloatArray:
        """Return conductances (..., rows, columns) in the places of the array; unused cells conduct `idle_siemens`."""
        array = np.full((*logical.shape[:-2], rows, columns), idle_siemens, logical.dtype)
        array[..., self.rows[:, np.newaxis], self.columns] = logical
        return array


def assign(
    targets: FloatArray,
    faults: FaultMap,
    window: Window,
    *,
    weight_per_siemens: npt.NDArray[np.float64] | None = None,
    input_power: npt.NDArray[np.float64] | None = None,
    partner_compensation: bool = False,
    rows_too: bool = False,
) -> Assignment:
    """Return the cheapest places that were found for a tile on an array with faults.

    Args:
        targets: (polarities, inputs, outputs), the conductances that encode the tile.
        faults: (polarities, rows, columns) of the whole array; lines beyond the tile's are spares.
        weight_per_siemens: (outputs,), what a difference of conductance means in each output; alike by default.
        input_power: (inputs,), E[x^2] of each input; alike by default.
        partner_compensation: costs are those after `compensated`.
        rows_too: word lines are chosen as well, not bit lines alone.

    Raises:
        ValueError: the tile is larger than the array.
    """
    polarities, inputs, outputs = targets.shape
    if len(faults) != polarities or faults.shape[1] < inputs or faults.shape[2] < outputs:
        raise ValueError(f"a tile {targets.shape} does not fit an array {faults.shape}")
    rows, columns = np.arange(inputs), np.arange(outputs)
    if not faults.any():
        return Assignment(rows, columns, 0.0, 0.0)
    errors = _squared_errors(targets, window, partner_compensation)
    unit = _weighted(errors, window.span_siemens, weight_per_siemens, input_power)
    condition = _condition_numbers(faults)
    cost = cost_before = _cost(errors, condition[:inputs, :outputs])
    if not cost_before:
        return Assignment(rows, columns, 0.0, 0.0)
    errors_of_rows = np.ascontiguousarray(errors.transpose(0, 2, 1)) if rows_too else errors
    for _ in range(ROUNDS_MAX):
        earlier = cost
        columns, cost = _solved(_costs_of_lines(errors, condition[rows]).T)
        if not rows_too or not cost:
            break
        rows, cost = _solved(_costs_of_lines(errors_of_rows, condition[:, columns].T).T)
        if cost >= earlier:
            break
    return Assignment(rows, columns, cost * unit, cost_before * unit)


def _condition_numbers(faults: FaultMap) -> npt.NDArray[np.int8]:
    """Return (rows, columns): which entry of the product of conditions each pair or cell is in; 0 is healthy."""
    number = np.zeros(faults.shape[1:], np.int8)
    for plane in faults:
        number *= np.int8(len(_CONDITIONS))
        number += plane
    return number


def _squared_errors(
    targets: FloatArray, window: Window, partner_compensation: bool
) -> npt.NDArray[np.float32]:
    """Return (conditions - 1, inputs, outputs): the error of every weight in every condition, in windows squared.

    Conditions are numbered as in `_condition_numbers`; the first, all healthy, has no error and is left out.
    """
    filled = ((targets - window.minimum_siemens) / window.span_siemens).astype(np.float32)
    wanted = _held(filled, (HEALTHY,) * len(filled), partner_compensation)
    conditions = list(product(_CONDITIONS, repeat=len(filled)))[1:]
    errors = np.empty((len(conditions), *wanted.shape), np.float32)
    for error, condition in zip(errors, conditions, strict=True):
        np.subtract(_held(filled, condition, partner_compensation), wanted, out=error)
    np.square(errors, out=errors)
    errors[errors < _NO_ERROR] = 0
    return errors


def _held(
    filled: npt.NDArray[np.float32], condition: tuple[int, ...], partner_compensation: bool
) -> npt.NDArray[np.float32]:
    """Return what pairs (or single cells) hold in one condition if they were filled so far, in windows.

    The same as `compensated` and `with_faults` together, for all weights in the same condition.
    """
    cells = [
        cell if state == HEALTHY else np.float32(state == STUCK_ON)
        for cell, state in zip(filled, condition, strict=True)
    ]
    if len(cells) == 1:
        return np.asarray(cells[0])
    positive, negative = cells
    if partner_compensation and condition.count(HEALTHY) == 1:
        difference = filled[0] - filled[1]
        if condition[0] == HEALTHY:
            positive = np.clip(negative + difference, 0, 1)
        else:
            negative = np.clip(positive - difference, 0, 1)
    return np.asarray(positive - negative)


def _weighted(
    errors: npt.NDArray[np.float32],
    span_siemens: float,
    weight_per_siemens: npt.NDArray[np.float64] | None,
    input_power: npt.NDArray[np.float64] | None,
) -> float:
    """Weigh errors by output and input, in place. Return the unit they are in then, so chosen that none underflows."""
    unit = span_siemens**2
    if weight_per_siemens is not None:
        largest = float(weight_per_siemens.max()) or 1.0
        errors *= np.square(weight_per_siemens / largest).astype(np.float32)
        unit *= largest**2
    if input_power is not None:
        strongest = float(input_power.max()) or 1.0
        errors *= (input_power / strongest).astype(np.float32)[:, np.newaxis]
        unit *= strongest
    return unit


def _cost(errors: npt.NDArray[np.float32], condition: npt.NDArray[np.int8]) -> float:
    return float(sum(error[condition == number].sum() for number, error in enumerate(errors, start=1)))


def _costs_of_lines(
    errors: npt.NDArray[np.float32], condition: npt.NDArray[np.int8]
) -> npt.NDArray[np.float32]:
    """Return (columns, outputs): what every output would cost on every bit line.

    For word lines both arguments are transposed.

    Args:
        errors: (conditions - 1, inputs, outputs).
        condition: (inputs, columns).
    """
    inputs, lines = condition.shape
    costs = np.zeros((lines, errors.shape[2]), np.float32)
    at_once = max(1, _GATHERED_MAX // (inputs * errors.shape[2]))
    for start in range(0, lines, at_once):
        line, weight = np.nonzero(condition[:, start : start + at_once].T)
        if not len(line):
            continue
        met = errors[condition[weight, line + start] - 1, weight]
        first = np.flatnonzero(np.diff(line, prepend=-1))
        costs[line[first] + start] = np.add.reduceat(met, first, axis=0)
    return costs


def _solved(costs: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.intp], float]:
    """Return the cheapest column of each row, all different, and what they cost together."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(costs)
    return np.asarray(columns), float(costs[rows, columns].sum())
