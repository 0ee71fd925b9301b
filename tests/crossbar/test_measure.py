from __future__ import annotations

import itertools

import pytest

from crossbar.measure import measure_compute


def test_figures_follow_the_clock() -> None:
    ticks = itertools.count(0.0, 0.001)  # every look at the clock is a millisecond after the last one
    measured = measure_compute(0.01, lambda: next(ticks))
    assert measured.gflops == pytest.approx(2 * 3072 * 1024 * 64 / 0.001 / 1e9)
    assert measured.memory_bandwidth_bytes_per_s == pytest.approx(3072 * 1024 * 4 / 0.001)
    assert measured.profile == "ideal"


def test_a_clock_that_stands_still_ends_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossbar.measure._RUNS_MAX", 2)
    with pytest.raises(RuntimeError, match="clock"):
        measure_compute(0.01, lambda: 5.0)
