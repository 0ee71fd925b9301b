"""Matrices to store, and what makes a product of them right."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from crossbar.error_bound import arithmetic_dtype, product_error_bound

Array = npt.NDArray[Any]


def normal(*shape: int, dtype: npt.DTypeLike = np.float32, seed: int = 0) -> Array:
    """Return normally distributed numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def is_right(y: Array, w: Array, x: Array, *, transposed: bool = False, scale: Array | None = None) -> bool:
    """Whether y is w x (transposed: w^T x) within the stated bound; x is a vector or columns, `scale` of w's rows."""
    values = w.astype(np.float64) if scale is None else w * scale[:, None].astype(np.float64)
    panel = np.atleast_2d(x.T)
    exact = panel.astype(np.float64) @ (values if transposed else values.T)
    bound = product_error_bound(w, panel, transposed=transposed, scale=scale)
    got = np.atleast_2d(y.T)
    return (
        y.dtype == arithmetic_dtype(w.dtype)
        and got.shape == exact.shape
        and bool((np.abs(got - exact) <= bound).all())
    )
