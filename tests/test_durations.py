"""Spans of time as people write and read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sedmad.durations import format_duration, parse_duration
from sedmad.errors import UsageError


@pytest.mark.parametrize(
    ("text", "duration_s"),
    [
        ("24h", 86400),
        ("5s", 5),
        ("90", 90),
        ("500ms", 0.5),
        ("1.5 d", 129600),
        ("10m", 600),
        ("10min", 600),
        ("-1s", -1),
        ("0s", 0),
        (" 2H ", 7200),
    ],
)
def test_spans_that_mean_something(text: str, duration_s: float) -> None:
    assert parse_duration(text) == pytest.approx(duration_s)


@pytest.mark.parametrize(
    "text", ["", "s", "5 parsecs", "1e3s", "nan", "inf", "5s5s", "--5s", "99999999d", "\u0665s", "5\n5"]
)
def test_spans_that_mean_nothing(text: str) -> None:
    with pytest.raises(UsageError):
        parse_duration(text)


@given(st.text(max_size=20))
def test_any_text_is_a_span_or_a_typed_error(text: str) -> None:
    try:
        duration_s = parse_duration(text)
    except UsageError:
        return
    assert abs(duration_s) <= 100 * 365 * 86400


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [
        (0.85, "850 ms"),
        (42.9, "42 s"),
        (60, "1 min"),
        (61, "1 min 1 s"),
        (11520, "3 h 12 min"),
        (86400, "1 d"),
        (5 * 86400 + 7201, "5 d 2 h"),
    ],
)
def test_spans_as_people_read_them(duration_s: float, text: str) -> None:
    assert format_duration(duration_s) == text
