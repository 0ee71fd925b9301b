"""The kernels against their definitions in numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import crossbar
from crossbar import randomness
from crossbar.kernels import programming, reading
from crossbar.kernels import randomness as compiled
from crossbar.mapping.encoding import Encoder, Window, column_scales
from crossbar.simulation.programming import Laws


@settings(max_examples=50, deadline=None)
@given(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 32) - 1), st.integers(1, 300))
def test_the_same_bits_as_the_definition(key: int, start: int, count: int) -> None:
    numbers = np.empty(count, np.float32)
    compiled.fill_normals(np.uint64(key), np.uint32(start), numbers)
    assert np.array_equal(numbers, randomness.normals(key, count, start))
    keys = np.empty(3, np.uint64)
    compiled.extend_keys(np.uint64(key), keys)
    assert [int(each) for each in keys] == [randomness.extended(key, part) for part in range(3)]
    compiled.extend_all(keys.copy(), np.uint64(start), keys)
    assert int(keys[2]) == randomness.extended(randomness.extended(key, 2), start)
    lines = np.empty((2, count), np.float32)
    compiled.fill_lines(np.uint64(key), lines)
    assert np.array_equal(lines[1], randomness.normals(randomness.extended(key, 1), count))


@pytest.mark.parametrize("levels", [0, 2, 16, 256])
def test_encoding_is_that_of_mapping(levels: int) -> None:
    weights = np.random.default_rng(0).standard_normal((17, 30)).astype(np.float32)
    weights[:, 4] = 0
    scale = column_scales(weights)
    per_scale = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
    steps = np.float32(max(levels - 1, 0))
    pairs, cells = np.empty((2, 17, 30), np.float32), np.empty((17, 30), np.float32)
    programming.encode_pairs(weights, per_scale, steps, pairs[0], pairs[1])
    programming.encode_offset(weights, per_scale, steps, cells)
    window = Window(0.0, 1.0, levels)
    assert pairs == pytest.approx(Encoder(window).encode(weights, scale)[0], abs=1e-6)
    assert cells == pytest.approx(Encoder(window, "offset").encode(weights, scale)[0, 0], abs=1e-6)


def test_transposed_blocks() -> None:
    weights = np.random.default_rng(0).standard_normal((37, 50)).astype(np.float32)
    lines = np.empty((9, 37), np.float32)
    programming.take_lines(weights, 30, np.float32(2), lines)
    assert np.array_equal(lines, 2 * weights[:, 30:39].T)


@pytest.mark.parametrize("name", [name for name in crossbar.profiles() if name != "ideal"])
def test_tables_follow_the_laws(name: str) -> None:
    profile = crossbar.profile(name)
    laws = Laws.of(profile, 3600.0)
    span, most = profile.window_siemens, profile.conductance_max_siemens
    targets = np.linspace(profile.conductance_min_siemens, most, 99_991)
    looked_up = np.interp(np.linspace(0, len(laws.programming) - 1, len(targets)),
                          np.arange(len(laws.programming)), laws.programming) * span  # fmt: skip
    assert np.abs(looked_up - profile.programming_sd_siemens(targets)).max() < 2e-5 * most
    conductances = np.linspace(0.0, 1.5 * most, 99_991)
    looked_up = np.interp(np.linspace(0, len(laws.read) - 1, len(conductances)),
                          np.arange(len(laws.read)), laws.read) * span  # fmt: skip
    assert np.abs(looked_up - profile.read_sd_siemens(conductances, 3600.0)).max() < 1e-4 * most


def test_programming_draws_what_randomness_defines() -> None:
    law = np.linspace(0.01, 0.05, 1024).astype(np.float32)
    targets = np.random.default_rng(0).uniform(0, 1, (5, 40)).astype(np.float32)
    floor = np.float32(-0.02)
    deviations = np.interp(targets * 1023, np.arange(1024), law)
    draws = np.array([randomness.normals(randomness.key(9, k), 40) for k in range(5)])
    expected = np.maximum(targets + deviations * draws, floor)
    once = targets.copy()
    programming.program_once(once, np.uint64(randomness.key(9)), law, False, floor)
    assert once == pytest.approx(expected, abs=1e-6)
    verified = targets.copy()
    pulses = programming.program_verified(
        verified, np.uint64(randomness.key(9)), law, np.float32(0.01), 8, floor
    )
    tried = np.array(
        [
            [
                randomness.normals(randomness.key(9, k), 40, pulse << programming.PULSE_STRIDE_BITS)
                for pulse in range(8)
            ]
            for k in range(5)
        ]
    )
    errors = np.maximum(targets[:, None] + deviations[:, None] * tried, floor) - targets[:, None]
    hits = np.abs(errors) <= 0.01
    needed = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, 8)
    assert pulses == needed.sum()
    best = np.where(
        np.arange(8)[:, None] < needed[:, None], np.abs(errors), np.inf
    ).argmin(axis=1)  # fmt: skip
    chosen = np.take_along_axis(errors, best[:, None], axis=1)[:, 0]
    assert verified - targets == pytest.approx(chosen, abs=1e-6)


@pytest.mark.parametrize("kind", [reading.NO_NOISE, reading.CONSTANT_NOISE, reading.GIVEN_NOISE])
@pytest.mark.parametrize("levels", [0, 127])
def test_finish_is_its_formula(kind: int, levels: int) -> None:
    rng = np.random.default_rng(0)
    partial = rng.standard_normal((6, 4, 700)).astype(np.float32)  # two slices of three rows of tiles
    norms = rng.uniform(0.5, 1, (3, 4)).astype(np.float32)
    noise = rng.uniform(0.1, 0.2, (6, 900)).astype(np.float32)
    variances = rng.uniform(0.01, 0.02, partial.shape).astype(np.float32)
    steps = rng.uniform(0.01, 0.02, (6, 900)).astype(np.float32)
    steps[2, 130] = 0
    per_step = np.divide(1, steps, out=np.zeros_like(steps), where=steps > 0)
    scales = rng.uniform(1, 2, 4).astype(np.float32)
    keys = np.array([randomness.key(5, b) for b in range(4)], np.uint64)
    product = np.full((4, 900), -1, np.float32)
    reading.finish(partial.copy(), 100, kind, norms, noise, variances, np.float32(levels), steps, per_step, keys,
                   scales, product)  # fmt: skip
    draws = np.array(
        [[randomness.normals(randomness.key(5, b, r), 700, 100) for b in range(4)] for r in range(6)]
    )
    here = slice(100, 800)
    deviations = {
        reading.NO_NOISE: 0,
        reading.CONSTANT_NOISE: np.concatenate([norms, norms])[:, :, None] * noise[:, None, here],
        reading.GIVEN_NOISE: np.sqrt(variances),
    }[kind]
    sums = partial + deviations * draws
    if levels:
        sums = np.clip(np.rint(sums * per_step[:, None, here]), -levels, levels) * steps[:, None, here]
    expected = sums.sum(axis=0) * scales[:, None]
    assert (np.abs(product[:, here] - expected) > 1e-4).mean() < 0.002  # rounding at the edge of a code
    assert (product[:, :100] == -1).all()
    assert (product[:, 800:] == -1).all()


@pytest.mark.parametrize("levels", [0, 7, 127])
def test_inputs_are_converted_vector_by_vector(levels: int) -> None:
    panel = np.random.default_rng(0).standard_normal((6, 21)).astype(np.float32)
    panel[1] = 0
    panel[2] *= np.float32(1e-42)
    panel[3, 5], panel[4, 6] = np.nan, -np.inf
    scales, norms = np.empty(6, np.float32), np.empty((3, 6), np.float32)
    lines = np.full((3, 6, 8), -1, np.float32)
    reading.convert_inputs(panel, np.float32(levels), scales, lines, norms)
    assert np.array_equal(scales[:3], np.abs(panel[:3]).max(axis=1))
    assert np.isnan(scales[3:5]).all()
    whole = np.array([0, 1, 2, 5])
    shares = panel[whole] / np.where(scales[whole] > 0, scales[whole], 1)[:, None]
    if levels:
        shares = np.rint(shares * levels) / levels
    found = lines.transpose(1, 0, 2).reshape(6, 24)
    assert found[whole, :21] == pytest.approx(shares, abs=1e-6)
    assert not found[:, 21:].any()
    assert norms[:, whole] == pytest.approx(np.linalg.norm(lines[:, whole], axis=2), rel=1e-5)
