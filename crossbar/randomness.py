"""Owns random numbers that depend on nothing but a key and a position: the same on every machine, in any order.

Position i of the stream of a 64-bit key is a hash of both (the mixer of Chris Wellons' *hash-prospector*, fed the
two halves of the key at different points); a normal number is the sum of two draws from a table of 4096 quantiles.
This is the definition; the compiled kernels give the same bits.

Keys say what a number is for, so that no result depends on threads, on the order of tiles, or on the company in
which a vector travelled:

- programming: `key(seed, PROGRAMMING, slice, plane, tile row, input row in the tile)`, position = output column;
- reading: `key(seed, READ, request, vector)`, mixed with (tile row, slice), position = output column.
"""

from __future__ import annotations

from functools import cache
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

PROGRAMMING: Final = 1
READ: Final = 2
DRIFT: Final = 3
FAULTS: Final = 4
CALIBRATION: Final = 5

TABLE_SIZE: Final = 4096
"""Quantiles in the table of `normal_table`: two 12-bit draws use 24 of the 32 bits of a hash."""

_MASK_64 = (1 << 64) - 1
_GOLDEN_64 = 0x9E3779B97F4A7C15
_GOLDEN_32 = np.uint32(0x9E3779B9)


def key(*parts: int) -> int:
    """Return the 64-bit key of `parts`, whole numbers of which the low 64 bits count.

    A chain of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014): the
    state, first 0, becomes mix(state XOR part) for one part after the other. So `key(a, b) == extended(key(a), b)`.
    """
    state = 0
    for part in parts:
        state = extended(state, part)
    return state


def extended(state: int, part: int) -> int:
    """Return the key `state` with one more part."""
    mixed = ((state ^ part) + _GOLDEN_64) & _MASK_64
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK_64
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK_64
    return mixed ^ (mixed >> 31)


def hashes(stream: int, count: int, start: int = 0) -> npt.NDArray[np.uint32]:
    """Return positions `start` to `start + count - 1` of the stream of the 64-bit key `stream`."""
    low, high = np.uint32(stream & 0xFFFFFFFF), np.uint32(stream >> 32)
    mixed = np.arange(start, start + count, dtype=np.uint64).astype(np.uint32)
    mixed *= _GOLDEN_32
    mixed += low
    mixed ^= mixed >> np.uint32(16)
    mixed *= np.uint32(0x21F0AAAD)
    mixed ^= high
    mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(0x735A2D97)
    mixed ^= mixed >> np.uint32(15)
    return mixed


def normals(stream: int, count: int, start: int = 0) -> npt.NDArray[np.float32]:
    """Return `count` standard normal numbers of a stream: mean 0, variance 1, none beyond 5.2."""
    drawn, table = hashes(stream, count, start), normal_table()
    low = drawn & np.uint32(TABLE_SIZE - 1)
    high = (drawn >> np.uint32(12)) & np.uint32(TABLE_SIZE - 1)
    summed: npt.NDArray[np.float32] = table[low] + table[high]
    return summed


def uniforms(stream: int, count: int, start: int = 0) -> npt.NDArray[np.float32]:
    """Return `count` numbers of a stream, uniform on the multiples of 2^-24 in [0, 1)."""
    return (hashes(stream, count, start) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


@cache
def normal_table() -> npt.NDArray[np.float32]:
    """Return the normal quantiles at (i + 1/2) / 4096, scaled so that the sum of two has variance 1; read-only.

    The lower half mirrors the upper one, so that the mean is exactly 0.
    """
    standard = NormalDist()
    half = TABLE_SIZE // 2
    upper = np.array([standard.inv_cdf((half + index + 0.5) / TABLE_SIZE) for index in range(half)])
    quantiles = np.concatenate([-upper[::-1], upper])
    spread = np.sqrt(2.0 * np.mean(np.square(quantiles)))
    table: npt.NDArray[np.float32] = (quantiles / spread).astype(np.float32)
    table.flags.writeable = False
    return table
