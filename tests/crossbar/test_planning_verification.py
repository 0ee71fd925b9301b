"""Write-verify by formula against write-verify by trying."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossbar.planning.verification import programmed

SAMPLES = 100_000


@pytest.mark.parametrize("tries", [1, 2, 5, 30])
@pytest.mark.parametrize("tolerance", [0.05, 0.5, 1.5, np.inf])
@pytest.mark.parametrize("distance", [0.0, 0.2, 1.0, 6.0])
def test_moments_and_pulses_are_those_of_devices(tries: int, tolerance: float, distance: float) -> None:
    rng = np.random.default_rng(int(100 * tries + 10 * min(tolerance, 9) + distance))
    errors = np.maximum(rng.standard_normal((tries, SAMPLES)), -distance)
    hit = np.abs(errors) <= tolerance
    decided = np.where(hit.any(axis=0), hit.argmax(axis=0), np.abs(errors).argmin(axis=0))
    kept = errors[decided, np.arange(SAMPLES)]
    pulses = np.where(hit.any(axis=0), decided + 1, tries)
    expected = programmed(np.array([tolerance]), np.array([distance]), tries)
    for samples, value in (
        (kept, expected.mean[0]),
        (np.square(kept), expected.second_moment[0]),
        (pulses, expected.pulses[0]),
    ):
        assert abs(samples.mean() - value) <= 5.5 * samples.std() / np.sqrt(SAMPLES) + 1e-4


@settings(deadline=None)
@given(
    tolerance=st.floats(0, 10),
    distance=st.floats(0, 50),
    tries=st.integers(1, 1000),
)
def test_trying_more_often_or_more_strictly_never_makes_it_worse(
    tolerance: float, distance: float, tries: int
) -> None:
    def second_moment(limit: float, most: int) -> float:
        return float(programmed(np.array([limit]), np.array([distance]), most).second_moment[0])

    once = second_moment(np.inf, 1)
    found = second_moment(tolerance, tries)
    assert 0 <= found <= once + 1e-4
    assert second_moment(tolerance, tries + 1) <= found + 1e-4
    pulses = programmed(np.array([tolerance]), np.array([distance]), tries).pulses[0]
    assert 1 <= pulses <= tries * (1 + 1e-9)
