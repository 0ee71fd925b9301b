from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossbar.mapping.residual import ResidualSelection


@given(
    seed=st.integers(0, 10_000),
    share=st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]),
    step=st.integers(1, 40),
    weighed=st.booleans(),
)
def test_the_largest_errors_are_kept_whatever_the_blocks(
    seed: int, share: float, step: int, weighed: bool
) -> None:
    rng = np.random.default_rng(seed)
    corrections = rng.standard_normal((30, 20)).astype(np.float32)
    power = rng.uniform(0.1, 10, 30) if weighed else np.ones(30)
    selection = ResidualSelection(outputs=20, inputs=30, share=share)
    for start in range(0, 30, step):
        here = slice(start, start + step)
        for first, outputs in ((0, slice(0, 7)), (7, slice(7, 20))):
            selection.add(
                corrections[here, outputs], first_input=start, first_output=first, input_power=power[here]
            )
    residual = selection.finish()
    rank = np.square(corrections) * power.astype(np.float32)[:, np.newaxis]
    kept = round(share * 600)
    assert residual.weights == kept
    assert residual.share == pytest.approx(kept / 600)
    least = np.sort(rank, axis=None)[600 - kept] if kept else np.inf
    np.testing.assert_array_equal(residual.dense().T, np.where(rank >= least, corrections, 0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_panels_get_what_the_arrays_lack(dtype: type) -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((30, 20)).astype(np.float32)
    held = weights + rng.standard_normal((30, 20)).astype(np.float32) * (rng.random((30, 20)) < 0.1)
    selection = ResidualSelection(outputs=20, inputs=30, share=0.2)
    selection.add(weights - held)
    residual = selection.finish()
    assert residual.shape == (20, 30)
    assert residual.weights == np.count_nonzero(weights - held)  # what is right needs no correction
    panel = rng.standard_normal((3, 30)).astype(dtype)
    product = panel @ held + residual.apply(panel)
    np.testing.assert_allclose(product, panel @ weights, atol=1e-5)
    assert residual.apply(panel).dtype == dtype
    assert residual.apply(panel).flags.c_contiguous
    other_way = rng.standard_normal((4, 20)).astype(dtype)
    np.testing.assert_allclose(
        other_way @ held.T + residual.apply_transposed(other_way), other_way @ weights.T, atol=1e-5
    )
    assert residual.memory_bytes < 2 * (8 * residual.weights + 4 * (30 + 20 + 2))


def test_nothing_kept_adds_nothing() -> None:
    selection = ResidualSelection(outputs=2, inputs=3, share=0.0)
    selection.add(np.ones((3, 2)))
    assert (selection.finish().apply(np.ones((1, 3))) == 0).all()
    with pytest.raises(ValueError, match="share"):
        ResidualSelection(outputs=2, inputs=3, share=1.5)
