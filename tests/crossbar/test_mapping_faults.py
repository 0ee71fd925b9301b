from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossbar.mapping.encoding import Encoder, Window, column_scales
from crossbar.mapping.faults import (
    HEALTHY,
    STUCK_OFF,
    STUCK_ON,
    compensated,
    fault_digest,
    fault_map,
    with_faults,
)

WINDOW = Window(1e-6, 1e-4)


def test_faults_have_their_rates_and_depend_on_the_array_alone() -> None:
    rates = {"stuck_on_rate": 0.0175, "stuck_off_rate": 0.0904}
    faults = fault_map(7, 0, 3, rows=512, columns=512, **rates)
    for state, rate in ((STUCK_ON, 0.0175), (STUCK_OFF, 0.0904)):
        standard_error = np.sqrt(rate * (1 - rate) / faults.size)
        assert abs(np.mean(faults == state) - rate) < 5 * standard_error
    assert (fault_map(7, 0, 3, rows=512, columns=512, **rates) == faults).all()
    other = fault_map(7, 0, 4, rows=512, columns=512, **rates)
    both = np.mean((faults != HEALTHY) & (other != HEALTHY))
    assert abs(both - 0.1079**2) < 5 * np.sqrt(0.1079**2 / faults.size)
    assert fault_digest(faults) != fault_digest(other)
    assert not fault_map(7, rows=9, columns=4, stuck_on_rate=0, stuck_off_rate=0).any()
    assert (fault_map(7, rows=9, columns=4, stuck_on_rate=1, stuck_off_rate=0) == STUCK_ON).all()


def test_stuck_devices_conduct_what_they_must() -> None:
    faults = np.array([[HEALTHY, STUCK_ON, STUCK_OFF]], np.int8)
    written = np.array([[5e-5, 5e-5, 5e-5]])
    np.testing.assert_array_equal(with_faults(written, faults, WINDOW), [[5e-5, 1e-4, 1e-6]])


@given(seed=st.integers(0, 10_000), slices=st.sampled_from([1, 2]), levels=st.sampled_from([0, 16]))
def test_the_healthy_partner_restores_a_weight_or_comes_as_close_as_the_window_lets_it(
    seed: int, slices: int, levels: int
) -> None:
    rng = np.random.default_rng(seed)
    encoder = Encoder(Window(1e-6, 1e-4, levels), slices=slices)
    weights = rng.standard_normal((8, 6))
    targets = encoder.encode(weights, column_scales(weights))
    faults = rng.choice(np.array([HEALTHY, STUCK_ON, STUCK_OFF], np.int8), targets.shape, p=[0.6, 0.2, 0.2])
    written = compensated(targets, faults, WINDOW)
    assert written.min() >= WINDOW.minimum_siemens
    assert written.max() <= WINDOW.maximum_siemens
    if levels:
        steps = (written - WINDOW.minimum_siemens) * ((levels - 1) / WINDOW.span_siemens)
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-9)

    def differences(conductance: np.ndarray) -> np.ndarray:
        held = with_faults(conductance, faults, WINDOW)
        return np.asarray(held[:, 0] - held[:, 1])

    wanted = targets[:, 0] - targets[:, 1]
    error = np.abs(differences(written) - wanted)
    assert (error <= np.abs(differences(targets) - wanted) + 1e-18).all()
    positive, negative = faults[:, 0], faults[:, 1]
    helpful = ((positive == STUCK_ON) & (negative == HEALTHY) & (wanted >= 0)) | (
        (negative == STUCK_ON) & (positive == HEALTHY) & (wanted <= 0)
    )
    idle_off = ((positive == STUCK_OFF) & (wanted <= 0)) | ((negative == STUCK_OFF) & (wanted >= 0))
    restored = helpful | (idle_off & ((positive == HEALTHY) | (negative == HEALTHY)))
    assert error[restored].max(initial=0) < 1e-18
    np.testing.assert_array_equal(written[faults != HEALTHY], targets[faults != HEALTHY])


def test_compensation_needs_pairs() -> None:
    single = np.zeros((1, 4, 4))
    with pytest.raises(ValueError, match="pairs"):
        compensated(single, single.astype(np.int8), WINDOW)
