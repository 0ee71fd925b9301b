"""A plan refuses what contradicts itself, and says which field."""

from __future__ import annotations

from typing import Any

import pytest

import crossbar
from crossbar.errors import PlanInvalid
from crossbar.planning.plan import Plan


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"rows": 0}, "rows"),
        ({"columns": 4097}, "columns"),
        ({"rows": 2.5}, "rows"),
        ({"rows": True}, "rows"),
        ({"slices": 9}, "slices"),
        ({"replicas": 0}, "replicas"),
        ({"encoding": "triple"}, "encoding"),
        ({"scale": "row"}, "scale"),
        ({"adc_range": ""}, "adc_range"),
        ({"assignment": "rows"}, "assignment"),
        ({"write_verify_tolerance": float("nan")}, "write_verify_tolerance"),
        ({"write_verify_tries": 1001}, "write_verify_tries"),
        ({"residual_share": 1.5}, "residual_share"),
        ({"spare_columns": 128, "assignment": "columns"}, "spare_columns"),
        ({"spare_columns": 4}, "spare_columns"),
        ({"encoding": "offset", "partner_compensation": True}, "partner_compensation"),
    ],
)
def test_what_a_plan_cannot_be(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(PlanInvalid, match=field):
        Plan(**{"rows": 128, "columns": 128, **changes})


@pytest.mark.parametrize("name", list(crossbar.profiles()))
def test_plans_of_a_profile(name: str) -> None:
    profile = crossbar.profile(name)
    default, static = Plan.default(profile), Plan.static(profile)
    assert (default.rows, default.columns, default.adc_range) == (
        profile.rows, profile.columns, profile.adc_range,
    )  # fmt: skip
    assert default.scale == "column"
    assert static.scale == "matrix"
    assert default.fold_ir_drop == static.fold_ir_drop == (profile.word_line_ohm > 0)
    assert set(static.levers) <= {"adc_range"}


def test_what_a_weight_takes() -> None:
    assert Plan(rows=8, columns=8, slices=2, replicas=3).cells_per_weight == 12
    assert Plan(rows=8, columns=8, encoding="offset").cells_per_weight == 1
    assert Plan(rows=8, columns=8, digital=True).cells_per_weight == 0
    offset = Plan(rows=8, columns=8, encoding="offset", spare_columns=2, assignment="columns")
    assert offset.data_columns == 5
    assert offset.levers == ("encoding", "scale", "adc_range", "assignment", "spare_columns")
