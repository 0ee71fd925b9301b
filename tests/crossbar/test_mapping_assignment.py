from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossbar.mapping.assignment import Assignment, assign
from crossbar.mapping.encoding import Encoder, Window, column_scales
from crossbar.mapping.faults import FaultMap, compensated, fault_map, with_faults

WINDOW = Window(1e-6, 1e-4)


def pair_faults(seed: int, rows: int, columns: int, on: float, off: float, polarities: int = 2) -> FaultMap:
    return np.stack(
        [
            fault_map(seed, polarity, rows=rows, columns=columns, stuck_on_rate=on, stuck_off_rate=off)
            for polarity in range(polarities)
        ]
    )


def held(
    weights: np.ndarray, encoder: Encoder, faults: FaultMap, assignment: Assignment | None, partner: bool
) -> np.ndarray:
    """Return the weights that devices hold, by the plain path: encode, place, compensate, stick, decode."""
    scale = column_scales(weights)
    targets = encoder.encode(weights, scale)[0]
    inputs, outputs = weights.shape
    met = assignment.logical(faults) if assignment else faults[:, :inputs, :outputs]
    written = compensated(targets, met, WINDOW) if partner else targets
    return np.asarray(encoder.decode(with_faults(written, met, WINDOW)[np.newaxis], scale))


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    inputs=st.integers(1, 12),
    outputs=st.integers(1, 12),
    spare_rows=st.integers(0, 3),
    spare_columns=st.integers(0, 3),
    partner=st.booleans(),
    rows_too=st.booleans(),
    encoding=st.sampled_from(["differential", "offset"]),
)
def test_the_cost_is_the_expected_squared_error_and_never_rises(
    seed: int,
    inputs: int,
    outputs: int,
    spare_rows: int,
    spare_columns: int,
    partner: bool,
    rows_too: bool,
    encoding: str,
) -> None:
    partner = partner and encoding == "differential"
    rng = np.random.default_rng(seed)
    encoder = Encoder(WINDOW, encoding)  # type: ignore[arg-type]
    weights = rng.standard_normal((inputs, outputs))
    power = rng.uniform(0.1, 2, inputs)
    faults = pair_faults(seed, inputs + spare_rows, outputs + spare_columns, 0.1, 0.2, encoder.polarities)
    scale = column_scales(weights)
    found = assign(
        encoder.encode(weights, scale)[0],
        faults,
        WINDOW,
        weight_per_siemens=encoder.weight_per_siemens(scale)[0],
        input_power=power,
        partner_compensation=partner,
        rows_too=rows_too,
    )
    assert len(set(found.rows)) == inputs
    assert len(set(found.columns)) == outputs
    assert found.rows.max() < inputs + spare_rows
    assert found.columns.max() < outputs + spare_columns
    if not rows_too:
        np.testing.assert_array_equal(found.rows, np.arange(inputs))
    for cost, assignment in ((found.cost_before, None), (found.cost, found)):
        error = held(weights, encoder, faults, assignment, partner) - weights
        assert cost == pytest.approx(power @ np.square(error).sum(axis=1), rel=1e-4, abs=1e-9)
    assert found.cost <= found.cost_before * (1 + 1e-5)


def test_an_array_without_faults_is_taken_as_it_is() -> None:
    targets = Encoder(WINDOW).encode(np.eye(4), np.ones(4))[0]
    found = assign(targets, np.zeros((2, 4, 6), np.int8), WINDOW, rows_too=True)
    np.testing.assert_array_equal(found.columns, np.arange(4))
    assert found.cost == found.cost_before == 0


def test_weights_of_any_size_are_placed_alike_and_zeros_anywhere() -> None:
    weights = np.random.default_rng(4).standard_normal((16, 16))
    faults = pair_faults(3, 16, 16, 0.02, 0.08)
    encoder = Encoder(WINDOW)
    places = []
    for size in (1.0, 1e-30, 1e30):
        scale = column_scales(weights * size)
        per_siemens = encoder.weight_per_siemens(scale)[0]
        targets = encoder.encode(weights * size, scale)[0]
        found = assign(targets, faults, WINDOW, weight_per_siemens=per_siemens)
        assert found.cost < found.cost_before
        places.append(found.columns)
    np.testing.assert_array_equal(places[0], places[1])
    np.testing.assert_array_equal(places[0], places[2])
    nothing = np.zeros((16, 16))
    targets = encoder.encode(nothing, column_scales(nothing))[0]
    assert assign(targets, faults, WINDOW, weight_per_siemens=np.zeros(16)).cost == 0


def test_what_is_placed_can_be_read_back() -> None:
    weights = np.random.default_rng(1).standard_normal((6, 5))
    faults = pair_faults(8, 8, 9, 0.05, 0.1)
    targets = Encoder(WINDOW).encode(weights, column_scales(weights))[0]
    found = assign(targets, faults, WINDOW, rows_too=True)
    array = found.physical(targets, 8, 9, WINDOW.minimum_siemens)
    assert array.shape == faults.shape
    np.testing.assert_array_equal(array[:, found.rows[:, None], found.columns], targets)
    assert np.isclose(array, WINDOW.minimum_siemens).sum() >= 2 * (8 * 9 - 6 * 5)


def test_a_tile_larger_than_its_array_is_refused() -> None:
    targets = np.full((2, 4, 4), 1e-6)
    with pytest.raises(ValueError, match="does not fit"):
        assign(targets, np.zeros((2, 4, 3), np.int8), WINDOW)


def test_every_lever_lowers_the_error_of_faults() -> None:
    """256 x 256 normal weights on arrays of 128 x 128, 1 % of the devices stuck, 13 spare columns where there are
    any: the relative error of the weights, which is that of products with white inputs."""
    size, spare = 128, 13
    encoder = Encoder(WINDOW)
    rng = np.random.default_rng(11)
    squared: dict[str, float] = dict.fromkeys(("naive", "partner", "columns", "rows", "spares"), 0.0)
    total = 0.0
    for tile in range(4):
        weights = rng.standard_normal((size, size))
        scale = column_scales(weights)
        targets, per_siemens = encoder.encode(weights, scale)[0], encoder.weight_per_siemens(scale)[0]
        wide = pair_faults(tile, size, size + spare, 0.002, 0.008)
        total += np.square(weights).sum()

        def measured(
            faults: FaultMap,
            partner: bool,
            assigned: bool = False,
            rows_too: bool = False,
            weights: np.ndarray = weights,
            targets: np.ndarray = targets,
            per_siemens: np.ndarray = per_siemens,
        ) -> float:
            found = None
            if assigned:
                found = assign(
                    targets,
                    faults,
                    WINDOW,
                    weight_per_siemens=per_siemens,
                    partner_compensation=partner,
                    rows_too=rows_too,
                )
            return float(np.square(held(weights, encoder, faults, found, partner) - weights).sum())

        narrow = wide[:, :, :size]
        squared["naive"] += measured(narrow, False)
        squared["partner"] += measured(narrow, True)
        squared["columns"] += measured(narrow, True, assigned=True)
        squared["rows"] += measured(narrow, True, assigned=True, rows_too=True)
        squared["spares"] += measured(wide, True, assigned=True)
    error = {lever: np.sqrt(square / total) for lever, square in squared.items()}
    assert 0.1 < error["naive"] < 0.3
    assert error["partner"] < 0.7 * error["naive"]
    assert error["columns"] < 0.1 * error["partner"]
    assert error["rows"] < 0.5 * error["columns"]
    assert error["spares"] < 0.1 * error["columns"]
