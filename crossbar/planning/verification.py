"""Owns what write-verify does to the error of a device, and how many pulses it takes.

A device is programmed with an error e ~ N(0, 1), in units of the standard deviation of programming. It cannot conduct
less than nothing, so e is cut off at -a, where a is the distance of its target from 0 S. It is programmed again while
|e| > t, at most n times, and the best try is kept. With T(y) = P(z > y), the chance that one try is beyond y >= t,

    Q(y)  =  2 T(y) for y < a,  T(y) for y >= a,      q = Q(t),

the first try that hits decides with probability 1 - q^n, else the least of n misses, which is beyond y with
probability Q(y)^n. Hence

    pulses  =  1 + q + ... + q^(n-1)  =  (1 - q^n) / (1 - q)
    E[e^2]  =  pulses E[e^2; |e| <= t]  +  q^n t^2  +  integral from t to infinity of 2 y Q(y)^n dy
    E[e]    =  pulses E[e; |e| <= t]  +  what misses add: those above a are positive, those at a negative

and E[e^2; |e| <= t] is that of a normal between -t and t, or between -a and t with the mass T(a) at -a.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_GRID_STEP = 1 / 256  # of sd; the trapezoidal rule is then right to 1e-5
_GRID_END = 8.0  # P(|z| > 8) = 1e-15
_SMALL = (
    0.02  # below it the exact expression of E[e^2; |e| <= t] cancels, and its first term is right to 1e-4
)


@dataclass(frozen=True, slots=True)
class Programmed:
    """What becomes of devices, in units of the standard deviation of one pulse."""

    mean: Array
    second_moment: Array
    pulses: Array


def programmed(tolerance: Array, distance: Array, tries: int) -> Programmed:
    """Return the error of devices after write-verify, element by element.

    Args:
        tolerance: t >= 0; infinity programs once.
        distance: a >= 0, of targets from 0 S.
        tries: n >= 1.
    """
    t, a = np.broadcast_arrays(np.minimum(tolerance, _GRID_END), np.minimum(distance, _GRID_END))
    near_zero = t >= a  # whatever is cut off then hits
    tail_t, tail_a = _tail(t), _tail(a)
    missed = np.where(near_zero, tail_t, 2 * tail_t)
    pulses = (1 - missed**tries) / (1 - missed).clip(min=1e-300)
    pulses = np.where(missed < 1, pulses, float(tries))

    first = np.where(near_zero, _density(a) - _density(t) - a * tail_a, 0.0)
    full = np.where(t < _SMALL, 2 / 3 * t**3 * _density(t), 1 - 2 * tail_t - 2 * t * _density(t))
    cut_off = a * a * tail_a + (1 - tail_t - t * _density(t)) - (tail_a + a * _density(a))
    second = np.where(near_zero, cut_off, full)

    misses = _misses(tries)
    start = np.maximum(a, t)
    above = missed**tries * t * t + misses.single_square(start)
    above += np.where(near_zero, 0.0, misses.double_square(t) - misses.double_square(start))
    mean_above = tail_a**tries * a + misses.single(start)
    mean_above -= a * ((2 * tail_a) ** tries - tail_a**tries)
    mean_above = np.where(near_zero, tail_t**tries * t + misses.single(start), mean_above)
    return Programmed(
        mean=pulses * first + mean_above,
        second_moment=np.maximum(pulses * second + above, 0.0),
        pulses=pulses,
    )


@dataclass(frozen=True, slots=True)
class _Misses:
    """Integrals from y to infinity over a grid of y, for n tries: T^n, 2 y T^n and 2 y (2 T)^n."""

    grid: Array
    tables: tuple[Array, Array, Array]

    def single(self, at: Array) -> Array:
        return np.interp(at, self.grid, self.tables[0])

    def single_square(self, at: Array) -> Array:
        return np.interp(at, self.grid, self.tables[1])

    def double_square(self, at: Array) -> Array:
        return np.interp(at, self.grid, self.tables[2])


@lru_cache(maxsize=64)  # plans try few numbers of tries; an entry has 50 KB
def _misses(tries: int) -> _Misses:
    grid = np.arange(0.0, _GRID_END + _GRID_STEP, _GRID_STEP)
    beyond = _tail(grid)
    integrands = (beyond**tries, 2 * grid * beyond**tries, 2 * grid * (2 * beyond) ** tries)
    single, square, double = (_integral_from(integrand) for integrand in integrands)
    return _Misses(grid, (single, square, double))


def _integral_from(integrand: Array) -> Array:
    strips = (integrand[1:] + integrand[:-1]) / 2 * _GRID_STEP
    return np.append(np.cumsum(strips[::-1])[::-1], 0.0)


def _tail(level: Array) -> Array:
    return np.array([math.erfc(y / math.sqrt(2)) / 2 for y in level.ravel()]).reshape(level.shape)


def _density(level: Array) -> Array:
    return np.exp(-np.square(level) / 2) / math.sqrt(2 * math.pi)
