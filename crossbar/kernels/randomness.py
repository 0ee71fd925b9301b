"""Owns the compiled twin of `crossbar.randomness`: the same bits, drawn where they are used.

The definition, its sources and the meaning of keys are there.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from crossbar.randomness import normal_table

compiled = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
"""How all kernels of products and programming are compiled. `contract` lets a multiplication and an addition be one
instruction; nothing is reordered."""

NORMAL_TABLE = normal_table().copy()  # writable: a read-only array is another type, and another compilation

_LOW_32 = np.uint64(0xFFFFFFFF)
_GOLDEN_64 = np.uint64(0x9E3779B97F4A7C15)
_GOLDEN_32 = np.uint32(0x9E3779B9)
_TABLE_MASK = np.uint32(len(NORMAL_TABLE) - 1)


@njit(inline="always")
def extended(state, part):  # type: ignore[no-untyped-def]
    """Return the key `state` with one more part."""
    mixed = (np.uint64(state) ^ np.uint64(part)) + _GOLDEN_64
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


@njit(inline="always")
def stream_at(key, start):  # type: ignore[no-untyped-def]
    """Return what `hashed` and `normal` need of a key to draw from position `start` on."""
    low = np.uint32(key & _LOW_32)
    return np.uint32(low + np.uint32(start) * _GOLDEN_32), np.uint32(key >> np.uint64(32))


@njit(inline="always")
def hashed(low, high, position):  # type: ignore[no-untyped-def]
    """Return 32 random bits. All arithmetic stays at 32 bits: a wider literal would end vectorisation."""
    mixed = np.uint32(low + np.uint32(position) * _GOLDEN_32)
    mixed ^= mixed >> np.uint32(16)
    mixed = np.uint32(mixed * np.uint32(0x21F0AAAD))
    mixed ^= high
    mixed ^= mixed >> np.uint32(15)
    mixed = np.uint32(mixed * np.uint32(0x735A2D97))
    mixed ^= mixed >> np.uint32(15)
    return mixed


@njit(inline="always")
def normal(low, high, position, table):  # type: ignore[no-untyped-def]
    """Return a standard normal number."""
    drawn = hashed(low, high, position)
    return table[drawn & _TABLE_MASK] + table[(drawn >> np.uint32(12)) & _TABLE_MASK]


@compiled
def fill_normals(key, start, table, numbers):  # type: ignore[no-untyped-def]
    """Draw `numbers` from position `start` on: `crossbar.randomness.normals`."""
    low, high = stream_at(key, start)
    for index in range(len(numbers)):
        numbers[index] = normal(low, high, np.uint32(index), table)


@compiled
def extend_keys(state, keys):  # type: ignore[no-untyped-def]
    """Write the keys `extended(state, 0)`, `extended(state, 1)` and so on."""
    for index in range(len(keys)):
        keys[index] = extended(state, np.uint64(index))


@compiled
def fill_lines(key, table, numbers):  # type: ignore[no-untyped-def]
    """Draw `numbers` (K, N): line k from the key extended by k, at the place of the column."""
    lines, columns = numbers.shape
    for line in range(lines):
        low, high = stream_at(extended(key, line), 0)
        for column in range(columns):
            numbers[line, column] = normal(low, high, np.uint32(column), table)


@compiled
def extend_all(keys, part, extended_keys):  # type: ignore[no-untyped-def]
    """Write every one of `keys` with one more part."""
    for index in range(len(keys)):
        extended_keys[index] = extended(keys[index], part)
