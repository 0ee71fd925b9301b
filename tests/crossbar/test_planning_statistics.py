"""Samples of a block stand for the whole of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from crossbar.planning.statistics import SAMPLE_WEIGHTS, BlockStatistics


@pytest.mark.parametrize("scale", ["matrix", "column"])
def test_a_sample_stands_for_a_block_with_unequal_columns(scale: Any) -> None:
    """A thousandth of the tile columns holds most of the power; all weights are summed for comparison."""
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((512, 1024)) * np.exp(rng.normal(0, 1.5, (512, 1)))
    assert weights.size > SAMPLE_WEIGHTS
    block = BlockStatistics(weights)
    sample = block.sample(128, scale)
    scales = np.repeat(block.scales(128, scale).T, 128, axis=1)

    def cost(shares: np.ndarray) -> np.ndarray:
        return (0.1 + np.abs(shares)) ** 2

    exact = float((np.square(scales) * cost(weights / scales)).sum())
    assert sample.weighted(cost(sample.shares)) == pytest.approx(exact, rel=0.1)


def test_a_small_block_is_its_own_sample() -> None:
    rng = np.random.default_rng(2)
    weights, inputs = (
        rng.standard_normal((20, 50)),
        rng.standard_normal((50, 30)) * np.arange(1, 51)[:, np.newaxis],
    )
    block = BlockStatistics(weights, inputs)
    sample = block.sample(16, "column")
    power = float((np.square(weights) @ np.square(inputs).mean(axis=1)).sum())
    assert sample.weighted(np.square(sample.shares)) == pytest.approx(power)
    assert np.abs(sample.shares).max() == 1


def test_powers_are_those_of_products() -> None:
    rng = np.random.default_rng(3)
    weights, inputs = rng.standard_normal((20, 50)), np.maximum(rng.standard_normal((50, 400)), 0)
    block = BlockStatistics(weights, inputs)
    assert block.signal_power == pytest.approx(np.square(weights @ inputs).sum(axis=0).mean())
    assert block.partial_powers(16).sum() == pytest.approx(block.signal_power)
    assert block.partial_powers(16).shape == (4, 20)
    white = BlockStatistics(weights)
    assert white.partial_powers(16) == pytest.approx(
        np.array([np.square(weights[:, at : at + 16]).sum(axis=1) for at in range(0, 50, 16)])
    )


def test_moments_of_normal_inputs_are_those_of_samples() -> None:
    samples = np.random.default_rng(4).standard_normal((128, 20_000))
    drawn, white = BlockStatistics(np.ones((1, 128)), samples), BlockStatistics(np.ones((1, 128)))
    assert white.peak_power == pytest.approx(drawn.peak_power, rel=0.02)
    assert white.bent_moments == pytest.approx(drawn.bent_moments, rel=0.12)


def test_columns_of_zeros_cost_nothing() -> None:
    weights = np.zeros((4, 6))
    weights[1] = 2.0
    block = BlockStatistics(weights)
    assert block.sample(4, "matrix").shares.shape[1] == 2
    assert BlockStatistics(np.zeros((4, 6))).sample(4, "column").weighted(np.ones((4, 1))) == 0
