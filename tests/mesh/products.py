"""Matrices to store, and what makes a product of them right."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from crossbar.error_bound import product_error_bound

Array = npt.NDArray[Any]


def normal(*shape: int, dtype: npt.DTypeLike = np.float32, seed: int = 0) -> Array:
    """Return normally distributed numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def is_right(y: Array, w: Array, x: Array, *, transposed: bool = False) -> bool:
    """Whether y, of w's dtype, is w x (transposed: w^T x) within the stated bound; x is a vector or columns."""
    operand = w.T if transposed else w
    panel = np.atleast_2d(x.T)
    exact = panel.astype(np.float64) @ operand.astype(np.float64).T
    bound = product_error_bound(w, panel, transposed=transposed)
    got = np.atleast_2d(y.T)
    return y.dtype == w.dtype and got.shape == exact.shape and bool((np.abs(got - exact) <= bound).all())
