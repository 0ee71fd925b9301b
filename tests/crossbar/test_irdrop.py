"""Currents of arrays with resistive wires against a network of resistors solved densely, and against physics."""

from __future__ import annotations

import logging
import warnings
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from crossbar.errors import NetworkInvalid
from crossbar.irdrop import Method, fold, fold_stack, is_worth_folding, solve

Array = npt.NDArray[np.float64]

METHODS = get_args(Method)
SHAPES = ((1, 1), (1, 6), (6, 1), (3, 4), (9, 14), (14, 9))
WIRES = ((1.0, 1.0), (30.0, 2.0), (1e-3, 500.0), (2e4, 1e5), (0.0, 5.0), (5.0, 0.0), (0.0, 0.0))


def dense_currents(conductance: Array, voltages: Array, r_word: float, r_bit: float) -> Array:
    """Nodal analysis from a list of resistors; nodes joined by a wire without resistance are one node.

    Currents are summed where they leave the devices, because a wire without resistance shows no drop.
    """
    rows, columns = conductance.shape
    sources = [("source", i) for i in range(rows)]

    def word(i: int, j: int) -> tuple[object, ...]:
        return sources[i] if j < 0 or r_word == 0 else ("word", i, j)

    def bit(i: int, j: int) -> tuple[object, ...]:
        return ("ground",) if i == rows or r_bit == 0 else ("bit", i, j)

    resistors = []
    for i in range(rows):
        for j in range(columns):
            resistors.append((word(i, j), bit(i, j), conductance[i, j]))
            if r_word:
                resistors.append((word(i, j - 1), word(i, j), 1 / r_word))
            if r_bit:
                resistors.append((bit(i, j), bit(i + 1, j), 1 / r_bit))
    known = {source: voltages[i] for i, source in enumerate(sources)}
    known[("ground",)] = np.zeros(voltages.shape[1])
    nodes = {node for a, b, _ in resistors for node in (a, b)} - set(known)
    index = {node: k for k, node in enumerate(sorted(nodes, key=repr))}
    matrix = np.zeros((len(index), len(index)))
    injected = np.zeros((len(index), voltages.shape[1]))
    for a, b, siemens in resistors:
        for here, there in ((a, b), (b, a)):
            if here in index:
                matrix[index[here], index[here]] += siemens
                if there in index:
                    matrix[index[here], index[there]] -= siemens
                else:
                    injected[index[here]] += siemens * known[there]
    solved = np.linalg.solve(matrix, injected) if index else injected
    at = known | {node: solved[k] for node, k in index.items()}
    return np.array(
        [
            sum(conductance[i, j] * (at[word(i, j)] - at[bit(i, j)]) for i in range(rows))
            for j in range(columns)
        ]
    )


def example(rows: int, columns: int, vectors: int = 3) -> tuple[Array, Array]:
    rng = np.random.default_rng(rows * 1000 + columns)
    conductance = rng.uniform(0.0, 1e-4, (rows, columns))
    conductance[rng.random((rows, columns)) < 0.1] = 0.0
    conductance[0, 0] = 5e-5
    return conductance, rng.uniform(-0.3, 0.3, (rows, vectors))


def scale_of(conductance: Array, voltages: Array) -> float:
    """The largest current that wires without losses could carry."""
    return float(np.abs(voltages).max() * conductance.sum(axis=0).max())


@st.composite
def networks(draw: st.DrawFn) -> tuple[Array, Array, float, float]:
    rows, columns = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    siemens = st.one_of(st.just(0.0), st.floats(-7, -3).map(lambda exponent: 10.0**exponent))
    ohm = st.one_of(st.just(0.0), st.floats(-3, 4).map(lambda exponent: 10.0**exponent))
    conductance = draw(hnp.arrays(np.float64, (rows, columns), elements=siemens))
    voltages = draw(hnp.arrays(np.float64, (rows, 2), elements=st.floats(-1, 1, width=32)))
    return conductance, voltages, draw(ohm), draw(ohm)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("r_word", "r_bit"), WIRES)
@pytest.mark.parametrize("shape", SHAPES)
def test_currents_are_those_of_a_dense_solution(
    shape: tuple[int, int], r_word: float, r_bit: float, method: Method
) -> None:
    conductance, voltages = example(*shape)
    expected = dense_currents(conductance, voltages, r_word, r_bit)
    currents = solve(conductance, voltages, r_word, r_bit, method=method, tolerance=1e-12)
    assert currents.dtype == np.float64
    assert np.abs(currents - expected).max() <= 1e-9 * np.abs(expected).max()


@settings(max_examples=40)
@given(networks())
def test_any_small_network_is_solved_alike_by_every_method(
    network: tuple[Array, Array, float, float],
) -> None:
    conductance, voltages, r_word, r_bit = network
    expected = dense_currents(conductance, voltages, r_word, r_bit)
    allowed = 1e-9 * scale_of(conductance, voltages)
    for method in METHODS:
        found = solve(conductance, voltages, r_word, r_bit, method=method)
        assert np.abs(found - expected).max() <= allowed, method


@settings(max_examples=40)
@given(networks(), st.sampled_from(METHODS), st.floats(-3, 3), st.floats(-3, 3))
def test_currents_are_linear_in_voltages(
    network: tuple[Array, Array, float, float], method: Method, first: float, second: float
) -> None:
    conductance, voltages, r_word, r_bit = network
    one, other = solve(conductance, voltages, r_word, r_bit, method=method).T
    mixed = voltages @ np.array([[first], [second]])
    found = solve(conductance, mixed, r_word, r_bit, method=method)[:, 0]
    assert np.abs(found - (first * one + second * other)).max() <= 1e-8 * scale_of(conductance, voltages)


@settings(max_examples=40)
@given(networks())
def test_exchanging_word_and_bit_lines_transposes_the_effective_conductances(
    network: tuple[Array, Array, float, float],
) -> None:
    conductance, _, r_word, r_bit = network
    turned = conductance[::-1, ::-1].T  # bit lines driven from the bottom, word lines grounded at the left
    effective = fold(conductance, r_word, r_bit)
    assert effective == pytest.approx(fold(turned, r_bit, r_word).T[::-1, ::-1], rel=1e-9, abs=1e-20)


@settings(max_examples=40)
@given(networks(), st.sampled_from(METHODS))
def test_wires_take_current_away_and_never_add_any(
    network: tuple[Array, Array, float, float], method: Method
) -> None:
    conductance, voltages, r_word, r_bit = network
    driven = np.abs(voltages)
    currents = solve(conductance, driven, r_word, r_bit, method=method)
    slack = 1e-9 * scale_of(conductance, driven)
    assert (currents >= -slack).all()
    # Of all bit lines together: a single one may get a little by detours over others' devices.
    assert (currents.sum(axis=0) <= (conductance.T @ driven).sum(axis=0) + slack).all()


@settings(max_examples=40)
@given(networks(), st.sampled_from(METHODS))
def test_each_vector_is_solved_as_if_alone(
    network: tuple[Array, Array, float, float], method: Method
) -> None:
    conductance, voltages, r_word, r_bit = network
    together = solve(conductance, voltages, r_word, r_bit, method=method)
    swapped = solve(conductance, voltages[:, ::-1], r_word, r_bit, method=method)[:, ::-1]
    alone = solve(conductance, voltages[:, :1], r_word, r_bit, method=method)
    if method == "relaxation":
        assert np.array_equal(together, swapped)
        assert np.array_equal(together[:, :1], alone)
    else:  # BLAS may sum in another order
        allowed = 1e-13 * scale_of(conductance, voltages)
        assert np.abs(together - swapped).max() <= allowed
        assert np.abs(together[:, :1] - alone).max() <= allowed


@pytest.mark.parametrize("method", METHODS)
def test_vanishing_resistances_lead_to_the_ideal_product(method: Method) -> None:
    conductance, voltages = example(12, 10)
    ideal = conductance.T @ voltages
    assert solve(conductance, voltages, 0.0, 0.0, method=method) == pytest.approx(ideal, rel=1e-12)
    losses = [
        np.abs(solve(conductance, voltages, ohm, ohm, method=method, tolerance=1e-12) - ideal).max()
        for ohm in (1.0, 1e-2, 1e-4)
    ]
    assert losses[1] == pytest.approx(losses[0] / 100, rel=0.1)
    assert losses[2] == pytest.approx(losses[1] / 100, rel=0.01)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("zero", ["word", "bit"])
def test_a_wire_without_resistance_is_the_limit_of_small_ones(zero: str, method: Method) -> None:
    conductance, voltages = example(8, 11)

    def currents(ohm: float) -> Array:
        wires = (ohm, 20.0) if zero == "word" else (20.0, ohm)
        return solve(conductance, voltages, *wires, method=method, tolerance=1e-12)

    at_zero = currents(0.0)
    for ohm in (1e-4, 1e-6, 1e-8):
        # To first order the loss is at most ohm x segments x the current of a line, of all that flows.
        allowed = ohm * 11 * conductance.sum() * np.abs(at_zero).sum() + 1e-12 * np.abs(at_zero).max()
        assert np.abs(currents(ohm) - at_zero).max() <= allowed


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-6, 1e-9])
@pytest.mark.parametrize("ohm", [0.1, 1.0, 10.0, 1000.0])
def test_relaxation_keeps_its_tolerance(ohm: float, tolerance: float) -> None:
    conductance, voltages = example(64, 48)
    exact = solve(conductance, voltages, ohm, 2 * ohm, method="exact")
    found = solve(conductance, voltages, ohm, 2 * ohm, method="relaxation", tolerance=tolerance)
    allowed = tolerance * conductance.sum(axis=0)[:, None] * np.abs(voltages).max(axis=0)
    assert (np.abs(found - exact) <= allowed).all()


def test_what_relaxation_cannot_reach_is_solved_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    conductance, voltages = example(20, 20)
    voltages[:, 1] = 0.0  # reached at once: the others must not spoil it
    monkeypatch.setattr("crossbar.irdrop.relaxation.STEPS_MAX", 1)
    found = solve(conductance, voltages, 1e3, 1e3, method="relaxation", tolerance=1e-9)
    assert found == pytest.approx(solve(conductance, voltages, 1e3, 1e3, method="auto"), rel=1e-12)
    assert not found[:, 1].any()


def test_a_tolerance_below_rounding_still_ends() -> None:
    conductance, voltages = example(30, 30)
    found = solve(conductance, voltages, 50.0, 50.0, method="relaxation", tolerance=1e-30)
    exact = solve(conductance, voltages, 50.0, 50.0)
    assert np.abs(found - exact).max() <= 1e-12 * np.abs(exact).max()


@pytest.mark.parametrize("shape", [(40, 300), (300, 40)])
def test_lines_that_lose_everything_are_folded_without_overflow(shape: tuple[int, int]) -> None:
    """Along 300 segments as resistive as the devices, voltages fall by more than float64 can tell."""
    conductance, voltages = example(*shape)
    exact = solve(conductance, voltages, 1e6, 1e6, method="exact")
    assert solve(conductance, voltages, 1e6, 1e6, method="folded") == pytest.approx(
        exact, rel=1e-9, abs=1e-30
    )


def test_an_array_of_the_usual_size() -> None:
    conductance, voltages = example(128, 128, vectors=2)
    exact = solve(conductance, voltages, 1.0, 1.0, method="exact")
    for method in ("auto", "folded", "relaxation"):
        found = solve(conductance, voltages, 1.0, 1.0, method=method)
        assert np.abs(found - exact).max() <= 1e-10 * np.abs(exact).max(), method


def test_badcrossbar_agrees() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns when it cannot draw
        badcrossbar = pytest.importorskip("badcrossbar", reason="badcrossbar, the oracle, is not installed")
    logging.disable(logging.INFO)
    for rows, columns in ((5, 9), (32, 24), (64, 64)):
        for r_word, r_bit in ((0.5, 0.5), (10.0, 3.0), (0.0, 2.0), (2.0, 0.0)):
            conductance, voltages = example(rows, columns)
            with np.errstate(divide="ignore"):
                oracle = badcrossbar.compute(
                    voltages, 1 / conductance, r_i_word_line=r_word, r_i_bit_line=r_bit,
                    node_voltages=False, all_currents=False,
                ).currents.output.T  # fmt: skip
            for method in METHODS:
                found = solve(conductance, voltages, r_word, r_bit, method=method)
                assert np.abs(found - oracle).max() <= 1e-9 * np.abs(oracle).max()


def test_folding_keeps_float32_and_computes_in_float64() -> None:
    conductance = example(20, 30)[0].astype(np.float32)
    effective = fold(conductance, 1.0, 2.0)
    assert effective.dtype == np.float32
    assert np.array_equal(effective, fold(conductance.astype(np.float64), 1.0, 2.0).astype(np.float32))
    assert fold(np.ones((2, 2), np.int64), 1.0, 1.0).dtype == np.float64


def test_the_effective_conductances_give_the_currents() -> None:
    conductance, voltages = example(25, 17)
    effective = fold(conductance, 3.0, 4.0)
    assert effective.T @ voltages == pytest.approx(
        solve(conductance, voltages, 3.0, 4.0, method="exact"), rel=1e-10
    )


def test_a_stack_is_folded_array_by_array() -> None:
    stack = np.stack([example(6, 9)[0] * scale for scale in (1.0, 0.0, 2.0)]).astype(np.float32)
    effective = fold_stack(stack[:, :, 2:], 1.0, 2.0)
    assert effective.shape == (3, 6, 7)
    assert effective.dtype == np.float32
    for array, folded in zip(stack, effective, strict=True):
        assert np.array_equal(folded, fold(array[:, 2:], 1.0, 2.0))


@settings(max_examples=40)
@given(networks())
def test_kernels_fold_any_small_array_alike(network: tuple[Array, Array, float, float]) -> None:
    conductance, voltages, r_word, r_bit = network
    expected = dense_currents(conductance, voltages, r_word, r_bit)
    effective = fold_stack(conductance[np.newaxis], r_word, r_bit, compiled=True)[0]
    assert np.abs(effective.T @ voltages - expected).max() <= 1e-9 * scale_of(conductance, voltages)


@pytest.mark.parametrize(("r_word", "r_bit"), WIRES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 70), (13, 13), (64, 65), (65, 64), (128, 128), (150, 20)])
def test_kernels_fold_a_stack_alike(shape: tuple[int, int], r_word: float, r_bit: float) -> None:
    stack = np.stack([example(*shape)[0] * scale for scale in (1.0, 0.0, 2.0)])
    expected = fold_stack(stack, r_word, r_bit)
    found = fold_stack(stack, r_word, r_bit, compiled=True)
    assert found == pytest.approx(expected, rel=1e-10, abs=1e-30)
    assert np.array_equal(found[2:], fold_stack(stack[2:], r_word, r_bit, compiled=True))


@pytest.mark.parametrize("shape", [(40, 300), (300, 40)])
def test_kernels_fold_lines_that_lose_everything(shape: tuple[int, int]) -> None:
    conductance = example(*shape)[0]
    found = fold_stack(conductance[np.newaxis], 1e6, 1e6, compiled=True)[0]
    assert found == pytest.approx(fold(conductance, 1e6, 1e6), rel=1e-9, abs=1e-30)


def test_many_small_arrays_are_folded_in_turns() -> None:
    stack = np.random.default_rng(5).uniform(0, 1e-4, (2100, 8, 8)).astype(np.float32)
    found = fold_stack(stack, 1.0, 2.0, compiled=True)
    assert found.dtype == np.float32
    for at in (0, 2047, 2048, 2099):
        assert found[at] == pytest.approx(fold(stack[at], 1.0, 2.0), rel=1e-6)


def test_folding_pays_for_many_vectors_only() -> None:
    assert not is_worth_folding(1, 128, 128)
    assert is_worth_folding(256, 128, 128)
    assert not is_worth_folding(256, 512, 512)
    assert is_worth_folding(256, 2048, 64)
    assert is_worth_folding(256, 64, 2048)


def test_inputs_are_left_as_they_are() -> None:
    conductance, voltages = example(7, 5)
    before = conductance.copy(), voltages.copy()
    for method in METHODS:
        solve(conductance, voltages, 10.0, 10.0, method=method)
    fold(conductance, 10.0, 10.0)
    assert np.array_equal(conductance, before[0])
    assert np.array_equal(voltages, before[1])


@pytest.mark.parametrize("method", METHODS)
def test_nothing_driven_and_nothing_conducting(method: Method) -> None:
    conductance, voltages = example(4, 3)
    assert solve(conductance, voltages[:, :0], 1.0, 1.0, method=method).shape == (3, 0)
    assert not solve(conductance, np.zeros((4, 2)), 1.0, 1.0, method=method).any()
    assert not solve(np.zeros((4, 3)), voltages, 1.0, 1.0, method=method).any()


GOOD = np.full((2, 3), 1e-5)
VOLTS = np.ones((2, 1))


@pytest.mark.parametrize(
    ("conductance", "voltages", "r_word", "r_bit", "says"),
    [
        (GOOD[0], VOLTS, 1.0, 1.0, r"\(rows, columns\)"),
        (np.ones((0, 3)), VOLTS, 1.0, 1.0, r"\(rows, columns\)"),
        (GOOD, VOLTS[:, 0], 1.0, 1.0, r"voltages\[:, None\]"),
        (GOOD, np.ones((3, 1)), 1.0, 1.0, "do not drive 2 word lines"),
        (-GOOD, VOLTS, 1.0, 1.0, r"at \(0, 0\) is negative"),
        (GOOD * np.nan, VOLTS, 1.0, 1.0, "must be finite"),
        (GOOD, VOLTS * np.inf, 1.0, 1.0, "must be finite"),
        (GOOD * 1j, VOLTS, 1.0, 1.0, "real numbers"),
        (GOOD, VOLTS, -1.0, 1.0, "word lines cannot have -1 ohm"),
        (GOOD, VOLTS, 1.0, float("nan"), "bit lines cannot have nan ohm"),
        (GOOD, VOLTS, float("inf"), 1.0, "word lines cannot have inf ohm"),
        (GOOD, VOLTS, 1.0, 1e300, "isolate devices"),
    ],
)
def test_what_is_no_network_is_refused(
    conductance: Array, voltages: Array, r_word: float, r_bit: float, says: str
) -> None:
    with pytest.raises(NetworkInvalid, match=says):
        solve(conductance, voltages, r_word, r_bit)


def test_unknown_methods_and_tolerances_are_refused() -> None:
    with pytest.raises(NetworkInvalid, match="Choose one of: auto, exact"):
        solve(GOOD, VOLTS, 1.0, 1.0, method="guess")  # type: ignore[arg-type]
    for tolerance in (0.0, -1.0, float("nan")):
        with pytest.raises(NetworkInvalid, match="tolerance"):
            solve(GOOD, VOLTS, 1.0, 1.0, method="relaxation", tolerance=tolerance)


def test_stacks_are_checked_too() -> None:
    with pytest.raises(NetworkInvalid, match=r"\(arrays, rows, columns\)"):
        fold_stack(GOOD, 1.0, 1.0)
    with pytest.raises(NetworkInvalid, match=r"at \(1, 0, 2\) is negative"):
        fold_stack(np.array([GOOD, [[1, 1, -1], [1, 1, 1]]]), 1.0, 1.0)
