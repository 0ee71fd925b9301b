"""Random numbers: their definition, their quality, and that nothing but key and position decides them."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossbar.randomness import (
    EVEN_WEIGHTS,
    ODD_WEIGHTS,
    byte_sums,
    extended,
    hashes,
    key,
    normals,
    normals_of,
    uniforms,
)

KEYS = st.integers(0, (1 << 64) - 1)
DRAWS = 1 << 20
WEIGHTS = [EVEN_WEIGHTS >> 16, ODD_WEIGHTS >> 16, EVEN_WEIGHTS & 0xFFFF, ODD_WEIGHTS & 0xFFFF]
"""Of the bytes of a hash, the lowest first."""


def hashed(stream: int, position: int) -> int:
    """The definition, in plain whole numbers."""
    mask = (1 << 32) - 1
    mixed = ((stream & mask) + position * 0x9E3779B9) & mask
    mixed ^= mixed >> 16
    mixed = (mixed * 0x21F0AAAD) & mask
    mixed ^= stream >> 32
    mixed ^= mixed >> 15
    mixed = (mixed * 0x735A2D97) & mask
    return mixed ^ (mixed >> 15)


@given(KEYS, st.integers(0, 1 << 33), st.integers(0, 50))
def test_a_hash_is_that_of_the_definition(stream: int, start: int, count: int) -> None:
    expected = [hashed(stream, start + index) for index in range(count)]
    assert hashes(stream, count, start).tolist() == expected


@given(KEYS, st.integers(0, 1000), st.integers(1, 100))
def test_a_number_depends_on_its_position_and_not_on_where_reading_began(
    stream: int, start: int, count: int
) -> None:
    whole = normals(stream, start + count)
    assert np.array_equal(normals(stream, count, start), whole[start:])
    assert np.array_equal(uniforms(stream, count, start), uniforms(stream, start + count)[start:])


def test_these_numbers_never_change() -> None:
    assert key(1, 2) == 0xBCD9DBB49673066B
    assert key() == 0
    assert hashes(key(7), 3).tolist() == [hashed(key(7), position) for position in range(3)]


@given(st.lists(st.integers(-(1 << 70), 1 << 70), max_size=5), st.integers(0, 1 << 64))
def test_a_key_is_a_chain(parts: list[int], last: int) -> None:
    assert key(*parts, last) == extended(key(*parts), last)
    assert 0 <= key(*parts, last) < 1 << 64


def test_keys_of_neighbouring_parts_differ() -> None:
    made = {key(seed, purpose, tile) for seed in range(20) for purpose in range(5) for tile in range(100)}
    assert len(made) == 10_000
    assert key(1, 2) != key(2, 1)


@pytest.mark.parametrize("stream", [0, 1, key(3, 1, 4), (1 << 64) - 1])
def test_normals_have_the_moments_of_a_normal_distribution(stream: int) -> None:
    drawn = normals(stream, DRAWS).astype(np.float64)
    # Five standard errors of each: 1, sqrt(2), sqrt(15), sqrt(96) over sqrt(n).
    error = 5 / np.sqrt(DRAWS)
    assert abs(drawn.mean()) < error
    assert abs(drawn.var() - 1) < np.sqrt(2) * error
    assert abs((drawn**3).mean()) < np.sqrt(15) * error
    # The law that is drawn from has a kurtosis of 2.997.
    assert abs((drawn**4).mean() - 3) < np.sqrt(96) * error + 0.003
    assert np.abs(drawn).max() < 5.2


def test_the_distribution_is_normal_everywhere() -> None:
    drawn = np.sort(normals(key(11), DRAWS))
    levels = np.array([0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999])
    expected = np.array([-3.0902, -2.3263, -1.2816, -0.6745, 0.0, 0.6745, 1.2816, 2.3263, 3.0902])
    density = np.exp(-np.square(expected) / 2) / np.sqrt(2 * np.pi)
    error = 5 * np.sqrt(levels * (1 - levels) / DRAWS) / density
    # The polynomial is right to 0.01 in the tails.
    assert (np.abs(drawn[(levels * DRAWS).astype(int)] - expected) < error + 0.01).all()


@pytest.mark.parametrize("lag", [1, 2, 64, 127, 128])
def test_neighbours_in_a_stream_and_in_adjacent_streams_are_uncorrelated(lag: int) -> None:
    drawn = normals(key(5), DRAWS).astype(np.float64)
    assert abs(np.mean(drawn[:-lag] * drawn[lag:])) < 5 / np.sqrt(DRAWS - lag)
    streams = np.array([normals(key(5, row), 256) for row in range(2048)]).astype(np.float64)
    products = streams[:-lag] * streams[lag:]
    assert abs(products.mean()) < 5 / np.sqrt(products.size)


def test_uniforms_are_uniform_and_below_one() -> None:
    drawn = uniforms(key(13), DRAWS).astype(np.float64)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert abs(drawn.mean() - 0.5) < 5 / np.sqrt(12 * DRAWS)
    counts = np.histogram(drawn, bins=64, range=(0, 1))[0]
    assert np.abs(counts - DRAWS / 64).max() < 6 * np.sqrt(DRAWS / 64)


@given(st.integers(0, (1 << 32) - 1))
def test_a_sum_weighs_every_byte(drawn: int) -> None:
    parts = [drawn >> shift & 255 for shift in (0, 8, 16, 24)]
    expected = sum(part * weight for part, weight in zip(parts, WEIGHTS, strict=True))
    assert byte_sums(np.array([drawn], np.uint32)).tolist() == [expected]


def test_the_law_that_is_drawn_from_is_normal() -> None:
    """Not drawn but computed: how likely each of all sums is, if bytes are uniform."""
    likely = np.zeros(1 << 16)
    likely[0] = 1.0
    for weight in WEIGHTS:
        before, likely = likely / 256, np.zeros_like(likely)
        for shift in range(0, 256 * weight, weight):
            likely[shift:] += before[: len(before) - shift]
    numbers = normals_of(np.arange(1 << 16, dtype=np.uint32)).astype(np.float64)
    assert (np.diff(numbers) > 0).all()
    assert np.array_equal(numbers, -numbers[::-1])
    assert abs(likely @ numbers**2 - 1) < 1e-6
    assert abs(likely @ numbers**4 - 3) < 0.004

    below = np.cumsum(likely)
    exact = np.array([NormalDist().cdf(number) for number in numbers[::16]])
    assert (
        np.abs(below[::16] - likely[::16] / 2 - exact).max() < 1.5e-4
    )  # what 40 million draws begin to show
    assert likely.max() < 5e-5  # no number is frequent
    tail = np.arange(1 << 15, 1 << 16, 16)
    beyond = np.cumsum(likely[::-1])[::-1][tail] - likely[tail] / 2
    tail, beyond = tail[beyond > NormalDist().cdf(-4.0)], beyond[beyond > NormalDist().cdf(-4.0)]
    quantiles = np.array([-NormalDist().inv_cdf(share) for share in beyond])
    assert np.abs(numbers[tail] - quantiles).max() < 0.01
