"""Owns random numbers that depend on nothing but a key and a position: the same on every machine, in any order.

Position i of the stream of a 64-bit key is a hash of both (the mixer of Chris Wellons' *hash-prospector*, fed the
two halves of the key at different points). The four bytes of a hash, weighted so that nearly all sums differ, add up
to a number that is almost normal; a polynomial makes it so (an expansion in the manner of Cornish and Fisher). That
takes no table, no branch and no wide integers: a processor draws as many at once as its registers hold.

This is the definition; the compiled kernels give the same bits. Every step is one IEEE operation on float32.

Keys say what a number is for, so that no result depends on threads, on the order of tiles, or on the company in
which a vector travelled:

- programming: `key(seed, PROGRAMMING, slice, plane, tile row, input row in the tile)`, position = output column;
- reading: `key(seed, READ, request, vector)`, mixed with (tile row, slice), position = output column.
"""

from __future__ import annotations

from operator import index
from typing import Final

import numpy as np
import numpy.typing as npt

PROGRAMMING: Final = 1
READ: Final = 2
DRIFT: Final = 3
FAULTS: Final = 4
CALIBRATION: Final = 5

EVEN_WEIGHTS: Final = 61 | 63 << 16
ODD_WEIGHTS: Final = 66 | 67 << 16
"""Of bytes 2 and 0, and of bytes 3 and 1. Nearly equal, and without a common factor, they leave no gaps between sums;
together they are 257, so that sums fit 16 bits."""

COEFFICIENTS: Final = (3.320295, 0.3131278, 1.351306, -3.15212, 3.321559)
"""Of x, x^3 ... x^9 for a sum scaled to +-1: the minimax fit to the quantiles of exactly this law, with variance 1. The
distribution function is nowhere off by more than 1.4e-4, nor a quantile up to 4 standard deviations by 0.01."""

_MASK_64 = (1 << 64) - 1
_GOLDEN_64 = 0x9E3779B97F4A7C15
_GOLDEN_32 = np.uint32(0x9E3779B9)
_EVEN_BYTES = np.uint32(0x00FF00FF)


def key(*parts: int) -> int:
    """Return the 64-bit key of `parts`, whole numbers (NumPy's too) of which the low 64 bits count.

    A chain of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014): the
    state, first 0, becomes mix(state XOR part) for one part after the other. So `key(a, b) == extended(key(a), b)`.
    """
    state = 0
    for part in parts:
        state = extended(state, index(part))
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
    return normals_of(byte_sums(hashes(stream, count, start)))


def byte_sums(drawn: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Return the weighted sum, 0 to 65535, of the bytes of each hash."""
    even = (drawn & _EVEN_BYTES) * np.uint32(EVEN_WEIGHTS)
    odd = ((drawn >> np.uint32(8)) & _EVEN_BYTES) * np.uint32(ODD_WEIGHTS)
    return (even + odd) >> np.uint32(16)  # the upper half of a product is one weight times each of two bytes


def normals_of(sums: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
    """Return the normal number that each sum of bytes stands for."""
    centred = (sums.astype(np.float32) - np.float32(32767.5)) * np.float32(2.0**-15)
    square = centred * centred
    factor = np.full_like(square, COEFFICIENTS[-1])
    for coefficient in COEFFICIENTS[-2::-1]:
        factor = factor * square + np.float32(coefficient)
    normal: npt.NDArray[np.float32] = centred * factor
    return normal


def uniforms(stream: int, count: int, start: int = 0) -> npt.NDArray[np.float32]:
    """Return `count` numbers of a stream, uniform on the multiples of 2^-24 in [0, 1)."""
    return (hashes(stream, count, start) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
