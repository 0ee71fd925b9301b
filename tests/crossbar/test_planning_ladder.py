"""The partitioner meets targets, says so only where it is so, and takes cheap levers before dear ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossbar.devices import IDEAL, profile, profiles
from crossbar.errors import PlanInvalid, TargetUnreachable, WeightsInvalid
from crossbar.mapping.faults import fault_digest
from crossbar.partitioner import partition
from crossbar.planning.calibration import measured_error
from crossbar.planning.plan import Plan
from crossbar.planning.planned import Planned, cells_of
from crossbar.planning.replanning import needs_replanning
from crossbar.planning.rungs import ladder
from crossbar.programmed import program

NOISY = sorted(set(profiles()) - {"ideal"})
FAULTS = {"stuck_on_rate": 0.001, "stuck_off_rate": 0.003}
DAY = 86400.0


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((128, 128), np.float32)


@pytest.mark.parametrize(
    ("target", "seconds", "name"),
    [
        *((0.15, 0.0, name) for name in NOISY),
        *((0.08, DAY, name) for name in ("pcm_joshi2020", "sonos_agrawal2022")),
    ],
)
def test_a_target_that_is_met_is_met_by_other_vectors_too(
    target: float, seconds: float, name: str, weights: np.ndarray
) -> None:
    described = replace(profile(name), **FAULTS)
    planned = partition(weights, described, target, seconds=seconds, seed=7)
    assert planned.predicted.total <= target
    if planned.plan.digital:
        assert planned.cells.allocated == 0
        return
    assert planned.measured is not None
    assert planned.measured.value <= target
    crossbar = program(weights, described, seed=7, plan=planned.plan).aged(seconds)
    fresh = measured_error(
        crossbar.apply, weights, np.random.default_rng(9).standard_normal((128, 200), np.float32)
    )
    assert fresh.value <= target + 3 * fresh.standard_error
    report = crossbar.report()
    assert (planned.cells_used, planned.cells_allocated) == (report.cells_used, report.cells_allocated)


@settings(max_examples=15, deadline=None)
@given(
    target=st.floats(1e-4, 0.9),
    name=st.sampled_from(NOISY),
    allow_digital=st.booleans(),
    cells_max=st.none() | st.integers(0, 400_000),
)
def test_every_target_gets_a_plan_or_a_reason(
    target: float, name: str, allow_digital: bool, cells_max: int | None
) -> None:
    block = np.random.default_rng(2).standard_normal((40, 50))
    described = replace(profile(name), rows=32, columns=32, **FAULTS)
    planned = refused = None
    try:
        planned = partition(
            block, described, target, allow_digital=allow_digital, cells_max=cells_max, verify=False
        )
    except TargetUnreachable as error:
        refused = error
    if planned is None:
        assert refused is not None
        assert not allow_digital
        assert refused.lever
        assert refused.best_error > target
        return
    assert planned.predicted.total <= target
    assert cells_max is None or planned.cells_allocated <= cells_max
    assert allow_digital or not planned.digital_share
    assert planned.cells == cells_of(block.shape, planned.plan)


def test_a_stricter_target_never_takes_fewer_cells(weights: np.ndarray) -> None:
    plans = [
        partition(weights, profile("generic"), target, verify=False, allow_digital=False)
        for target in (0.3, 0.1, 0.06, 0.04, 0.03, 0.02)
    ]
    cells = [planned.cells_allocated for planned in plans]
    assert cells == sorted(cells)
    assert plans[0].rungs == ()
    assert cells[-1] > cells[0]


def test_rungs_are_in_the_order_of_memory(weights: np.ndarray) -> None:
    rungs = list(ladder(replace(profile("generic"), adc_range="max")))
    costs = [(rung.is_digital, rung.costs_cells) for rung in rungs]
    assert costs == sorted(costs)
    assert rungs[-1].name == "digital"
    for planned in (partition(weights, profile("generic"), target, verify=False) for target in (0.1, 0.03)):
        errors = [rung.error for rung in planned.rungs]
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] == planned.predicted.total
        assert planned.rungs[-1].cells_allocated == planned.cells_allocated


def test_levers_that_attack_nothing_are_left_alone(weights: np.ndarray) -> None:
    """Without faults nobody moves columns; without wires nobody makes arrays smaller because of them."""
    described = replace(profile("generic"), word_line_ohm=0.0, bit_line_ohm=0.0)
    names = {rung.name for rung in partition(weights, described, 0.03, verify=False).rungs}
    assert not any("assignment" in name or "spare" in name or "partner" in name for name in names)
    faulty = partition(weights, replace(described, **FAULTS), 0.08, verify=False)
    assert "partner compensation" in {rung.name for rung in faulty.rungs}


def test_what_stopped_is_named(weights: np.ndarray) -> None:
    with pytest.raises(TargetUnreachable, match="generic") as refused:
        partition(weights, profile("generic"), 1e-3, allow_digital=False, verify=False)
    assert refused.value.lever == "digital"
    assert 1e-3 < refused.value.best_error < 0.03
    assert "digital" in str(refused.value)
    few = cells_of(weights.shape, Plan.default(profile("generic"))).allocated
    with pytest.raises(TargetUnreachable) as refused:
        partition(weights, profile("generic"), 0.02, allow_digital=False, cells_max=few, verify=False)
    assert "replicas" in refused.value.lever
    with pytest.raises(TargetUnreachable) as refused:
        partition(weights, profile("generic"), 0.02, allow_digital=False, cells_max=few - 1, verify=False)
    assert refused.value.lever == "cells"
    assert partition(weights, profile("generic"), 0.02, cells_max=few - 1, verify=False).plan.digital


def test_exact_arithmetic_needs_no_cells(weights: np.ndarray) -> None:
    planned = partition(weights, IDEAL, 1e-9)
    assert planned.predicted.total == 0
    assert planned.cells_allocated == planned.cells_used == 0
    assert planned.rungs == ()
    assert needs_replanning(planned, seconds=1e9, load=1.0) == ()


def test_nodes_get_plans_cheapest_first(weights: np.ndarray) -> None:
    nodes = {
        "ash": profile("generic"),
        "elm": IDEAL,
        "oak": profile("pcm_nandakumar2019"),
        "yew": profile("generic"),
    }
    plans = partition(weights, nodes, 0.04, verify=False)
    assert set(plans) == set(nodes)
    assert next(iter(plans)) == "elm"
    assert plans["ash"] is plans["yew"]
    cells = [planned.cells_allocated for planned in plans.values() if not planned.plan.digital]
    assert cells == sorted(cells)
    some = partition(weights, nodes, 0.005, allow_digital=False, verify=False)
    assert list(some) == ["elm"]
    with pytest.raises(TargetUnreachable):
        partition(weights, {"oak": nodes["oak"]}, 1e-3, allow_digital=False, verify=False)
    assert partition(weights, {}, 0.1) == {}


def test_given_inputs_are_planned_for(weights: np.ndarray) -> None:
    inputs = np.maximum(np.random.default_rng(3).standard_normal((128, 300), np.float32), 0)
    planned = partition(weights, profile("generic"), 0.06, inputs=inputs, seed=1)
    crossbar = program(weights, profile("generic"), seed=1, plan=planned.plan, calibration=inputs)
    assert (
        crossbar.error(np.maximum(np.random.default_rng(4).standard_normal((128, 100), np.float32), 0))
        < 0.066
    )


def test_zeros_and_single_weights_have_plans() -> None:
    for block in (np.zeros((5, 7)), np.ones((1, 1)), np.ones((1, 300)), np.ones((300, 1))):
        planned = partition(block, profile("generic"), 0.2)
        assert planned.error <= 0.2


@pytest.mark.parametrize("target", [0.0, -0.1, 1.0, 7.0, float("nan"), float("inf")])
def test_targets_that_mean_nothing_are_refused(target: float, weights: np.ndarray) -> None:
    with pytest.raises(PlanInvalid, match="target_error"):
        partition(weights, profile("generic"), target)


@pytest.mark.parametrize("wrong", [{"seconds": -1.0}, {"seconds": float("nan")}, {"cells_max": -1}])
def test_other_arguments_out_of_range_are_refused(wrong: dict[str, Any], weights: np.ndarray) -> None:
    with pytest.raises(PlanInvalid, match=next(iter(wrong))):
        partition(weights, profile("generic"), 0.1, **wrong)


def test_weights_that_are_not_finite_are_refused() -> None:
    with pytest.raises(WeightsInvalid):
        partition(np.array([[1.0, np.nan]]), profile("generic"), 0.1)


@pytest.fixture(scope="module")
def planned(weights: np.ndarray) -> Planned:
    found = partition(weights, profile("pcm_nandakumar2019"), 0.2, seconds=DAY, verify=False)
    return replace(found, fault_map_digest=fault_digest(np.zeros((2, 2), np.int8)), load=0.2)


def test_a_plan_stands_while_nothing_changes(planned: Planned) -> None:
    same = {"fault_map_digest": planned.fault_map_digest, "load": 0.3}
    assert needs_replanning(planned, seconds=DAY, **same) == ()
    assert needs_replanning(planned, seconds=10.0) == ()


def test_reasons_to_plan_again(planned: Planned) -> None:
    same = {"fault_map_digest": planned.fault_map_digest, "load": 0.2}
    (reason,) = needs_replanning(planned, seconds=2 * DAY, **same)
    assert "ago" in reason
    (reason,) = needs_replanning(planned, seconds=0.0, **same | {"load": 0.9})
    assert "load" in reason
    other = fault_digest(np.ones((2, 2), np.int8))
    (reason,) = needs_replanning(planned, seconds=0.0, **same | {"fault_map_digest": other})
    assert "stuck" in reason
    assert needs_replanning(replace(planned, drifts=False), seconds=1e9, **same) == ()
