"""Owns the compiled twin of `crossbar.randomness`: the same bits, drawn where they are used.

The definition, its sources and the meaning of keys are there. Hashes and normal numbers are written for LLVM directly:
Numba would compute every hash in 64 bits, and half as many of them at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from crossbar.randomness import COEFFICIENTS, EVEN_WEIGHTS, ODD_WEIGHTS

compiled = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})
"""How all kernels of products and programming are compiled. `contract` lets a multiplication and an addition be one
instruction; nothing is reordered."""

_LOW_32 = np.uint64(0xFFFFFFFF)
_GOLDEN_64 = np.uint64(0x9E3779B97F4A7C15)
_GOLDEN_32 = 0x9E3779B9

# Numba adds `contract` to floating operations without flags, and fused they would round otherwise than the definition
# does. This flag, which keeps it from that, frees only the sign of a zero.
_AS_DEFINED = ("nsz",)
_UINT32, _FLOAT = ir.IntType(32), ir.FloatType()

Value = Any  # of llvmlite, which has no types


@njit(inline="always")
def extended(state, part):  # type: ignore[no-untyped-def]
    """Return the key `state` with one more part."""
    mixed = (np.uint64(state) ^ np.uint64(part)) + _GOLDEN_64
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


@njit(inline="always")
def stream_at(key, start):  # type: ignore[no-untyped-def]
    """Return what `normal` needs of a key to draw from position `start` on."""
    low = np.uint32(key & _LOW_32)
    return np.uint32(low + np.uint32(start) * np.uint32(_GOLDEN_32)), np.uint32(key >> np.uint64(32))


def _normal(typing, low, high, position):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        return _normal_of(builder, _hashed(builder, *values))

    return types.float32(types.uint32, types.uint32, types.uint32), generate


normal: Callable[..., Any] = intrinsic(_normal)
"""(low, high, position), all uint32: the standard normal number at a position of the stream from `stream_at`."""


def _hashed(builder: Any, low: Value, high: Value, position: Value) -> Value:
    """Emit `randomness.hashes`."""
    mixed = builder.add(low, builder.mul(position, _UINT32(_GOLDEN_32)))
    mixed = builder.xor(mixed, builder.lshr(mixed, _UINT32(16)))
    mixed = builder.mul(mixed, _UINT32(0x21F0AAAD))
    mixed = builder.xor(mixed, high)
    mixed = builder.xor(mixed, builder.lshr(mixed, _UINT32(15)))
    mixed = builder.mul(mixed, _UINT32(0x735A2D97))
    return builder.xor(mixed, builder.lshr(mixed, _UINT32(15)))


def _normal_of(builder: Any, drawn: Value) -> Value:
    """Emit `randomness.normals_of(byte_sums(drawn))`."""
    bytes_kept = _UINT32(0x00FF00FF)
    even = builder.mul(builder.and_(drawn, bytes_kept), _UINT32(EVEN_WEIGHTS))
    odd = builder.mul(builder.and_(builder.lshr(drawn, _UINT32(8)), bytes_kept), _UINT32(ODD_WEIGHTS))
    summed = builder.lshr(builder.add(even, odd), _UINT32(16))
    centred = _plus(builder, builder.sitofp(summed, _FLOAT), _float(-32767.5))
    centred = _times(builder, centred, _float(2.0**-15))
    square = _times(builder, centred, centred)
    factor = _float(COEFFICIENTS[-1])
    for coefficient in COEFFICIENTS[-2::-1]:
        factor = _plus(builder, _times(builder, factor, square), _float(coefficient))
    return _times(builder, centred, factor)


def _times(builder: Any, left: Value, right: Value) -> Value:
    return builder.fmul(left, right, flags=_AS_DEFINED)


def _plus(builder: Any, left: Value, right: Value) -> Value:
    return builder.fadd(left, right, flags=_AS_DEFINED)


def _float(number: float) -> Value:
    return _FLOAT(float(np.float32(number)))  # LLVM takes no digits that float32 has not


@compiled
def fill_normals(key, start, numbers):  # type: ignore[no-untyped-def]
    """Draw `numbers` from position `start` on: `crossbar.randomness.normals`."""
    low, high = stream_at(key, start)
    for index in range(len(numbers)):
        numbers[index] = normal(low, high, np.uint32(index))


@compiled
def extend_keys(state, keys):  # type: ignore[no-untyped-def]
    """Write the keys `extended(state, 0)`, `extended(state, 1)` and so on."""
    for index in range(len(keys)):
        keys[index] = extended(state, np.uint64(index))


@compiled
def fill_lines(key, numbers):  # type: ignore[no-untyped-def]
    """Draw `numbers` (K, N): line k from the key extended by k, at the place of the column."""
    lines, columns = numbers.shape
    for line in range(lines):
        low, high = stream_at(extended(key, line), 0)
        for column in range(columns):
            numbers[line, column] = normal(low, high, np.uint32(column))


@compiled
def extend_all(keys, part, extended_keys):  # type: ignore[no-untyped-def]
    """Write every one of `keys` with one more part."""
    for index in range(len(keys)):
        extended_keys[index] = extended(keys[index], part)
