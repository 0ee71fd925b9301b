"""The axes of charts: they hold what they must, and their ticks are round."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossbar.reporting import svg
from crossbar.reporting.axes import age_axis, error_axis, linear_axis, stepped_axis

POSITIVE = st.floats(1e-9, 1e9)


@given(most=POSITIVE, unit=st.sampled_from([1.0, 0.01, 1e-6]))
def test_a_linear_axis_holds_its_values_between_its_ticks(most: float, unit: float) -> None:
    axis = linear_axis("", most, unit=unit)
    assert axis.share(0) == 0
    assert 0 < axis.share(most) <= 1
    assert axis.most >= most * (1 - 1e-9)
    assert 2 <= len(axis.ticks) <= 12
    shares = [axis.share(value) for value, _ in axis.ticks]
    np.testing.assert_allclose(np.diff(shares), np.diff(shares)[0], rtol=1e-6)


@given(values=st.lists(POSITIVE, min_size=1, max_size=20))
def test_an_error_axis_is_logarithmic_and_holds_all(values: list[float]) -> None:
    axis = error_axis(values)
    assert axis.least <= min(values)
    assert axis.most >= max(values)
    assert axis.ticks
    middle = math.sqrt(axis.least * axis.most)
    assert axis.share(middle) == pytest.approx(0.5)


def test_an_error_axis_without_errors_is_drawn_all_the_same() -> None:
    assert error_axis([0.0, math.inf]).ticks


def test_values_outside_are_moved_to_the_nearer_end() -> None:
    axis = linear_axis("", 10)
    assert (axis.share(-5), axis.share(50)) == (0, 1)


def test_ages_are_logarithmic_and_fresh_devices_come_first() -> None:
    axis = age_axis("", {"0 s": 0.0, "1 h": 3600.0, "100 h": 360000.0})
    (fresh, _), (hour, name), (hundred, _) = axis.ticks
    assert name == "1 h"
    assert fresh < hour
    assert hundred - hour == pytest.approx(2)


def test_a_stepped_axis_names_every_place() -> None:
    axis = stepped_axis("", ["a", "b", "c"])
    assert [name for _, name in axis.ticks] == ["a", "b", "c"]
    assert axis.share(1) == pytest.approx(0.5)


def test_text_and_tips_are_escaped() -> None:
    drawn = svg.text((0, 0), "<&>") + svg.rectangle((0, 0), (1, 1), "", tip='"<"')
    assert "<&>" not in drawn
    assert "&lt;&amp;&gt;" in drawn
