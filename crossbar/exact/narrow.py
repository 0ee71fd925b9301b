"""Owns when products of few columns go to compiled kernels (`crossbar.kernels.narrow`): from the moment they are ready.

Numba takes 0.5 s to import and 55 MiB, and seconds to compile a kernel: nobody pays that who multiplies little, and no
product waits for it. A child process compiles into a cache; a thread then loads what it finds there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from crossbar.error_bound import arithmetic_dtype, product_error_bound

COLUMNS_MAX = 16
"""The widest panel for which the kernels are faster than BLAS."""

WORTH_BYTES = 1 << 30
"""A child compiles for some five seconds; whoever has multiplied with this much, 0.1 to 0.3 s of BLAS, is likely to go
on. Small matrices, and a few products with large ones, never get there."""

COMPILE_TIMEOUT_S = 300.0
"""A compilation takes five seconds on an idle core; on one that is busier than this no kernel is worth it."""

_NICE = 10  # products go first
# No multiples of what kernels work on at once, and more than one block each way.
_CHECKED_ROWS, _CHECKED_COLUMNS = 263, 4109


class Kernels(Protocol):
    """`crossbar.kernels.narrow`, as far as engines use it."""

    def multiply(self, weights: npt.NDArray[Any], panel: npt.NDArray[Any], product: npt.NDArray[Any]) -> None:
        """Write W X into `product`."""

    def multiply_transposed(
        self, weights: npt.NDArray[Any], panel: npt.NDArray[Any], product: npt.NDArray[np.float64]
    ) -> None:
        """Add W^T X to `product`."""


class NarrowKernels:
    """Compiled kernels, one pair for each dtype of weights, made when they are first asked for.

    Args:
        cache_directory: where compiled code is kept, made if need be; nobody but the user may write to it.
        on_failure: told why there will be none, once for each dtype, on a thread of its own.
        worth_bytes: of weights of one dtype that narrow products have to read before kernels are made for it.
    """

    def __init__(
        self,
        cache_directory: Path,
        on_failure: Callable[[str], None] = lambda reason: None,
        *,
        worth_bytes: int = WORTH_BYTES,
    ) -> None:
        self._cache_directory = cache_directory
        self._on_failure = on_failure
        self._worth_bytes = worth_bytes
        # By dtype, of narrow products. Threads may lose a count, which delays and no more.
        self._read_bytes: dict[str, int] = {}
        self._kernels: dict[str, Kernels | None] = {}  # by dtype; None while, and where, there are none
        self._threads: dict[str, threading.Thread] = {}
        self._asking = threading.Lock()
        self._making = threading.Lock()  # one dtype at a time: it is background work

    def get(self, dtype: np.dtype[Any], weight_bytes: int) -> Kernels | None:
        """Return the kernels for a product that reads `weight_bytes` of `dtype`, if they are ready.

        Otherwise see to it that they will be, once there is enough for them to do.
        """
        if dtype.name not in self._kernels:
            self._read_bytes[dtype.name] = self._read_bytes.get(dtype.name, 0) + weight_bytes
            if self._read_bytes[dtype.name] < self._worth_bytes:
                return None
            with self._asking:
                if dtype.name not in self._kernels:
                    self._kernels[dtype.name] = None
                    thread = threading.Thread(target=self._make, args=(dtype,), daemon=True)
                    self._threads[dtype.name] = thread
                    thread.start()
        return self._kernels[dtype.name]

    def wait(self, timeout_s: float) -> bool:
        """Wait until all kernels that were asked for are ready or have failed; return whether they are ready."""
        deadline = time.monotonic() + timeout_s
        for thread in list(self._threads.values()):
            thread.join(max(0.0, deadline - time.monotonic()))
        return None not in self._kernels.values()

    def _make(self, dtype: np.dtype[Any]) -> None:
        with self._making:
            try:
                self._kernels[dtype.name] = _made(self._cache_directory, dtype)
            except Exception as error:  # products go on without: whatever it is, somebody is told
                self._on_failure(f"{type(error).__name__}: {error}")


def _made(cache_directory: Path, dtype: np.dtype[Any]) -> Kernels:
    """Have a child compile for `dtype`, unless it is compiled already, and load it.

    Raises:
        KernelsUnavailable: it cannot.
        RuntimeError: the kernels compute wrong numbers.
    """
    from crossbar.kernels import compiling, groups

    group = groups.narrow(dtype.name)
    compiling.compile_in_child(cache_directory, group, niceness=_NICE, timeout_s=COMPILE_TIMEOUT_S)
    compiling.load(cache_directory, group)
    from crossbar.kernels import narrow

    _check(narrow, dtype)
    return narrow


def _check(kernels: Kernels, dtype: np.dtype[Any]) -> None:
    """Compare products of random numbers with plain float64 arithmetic, all ways through the kernels among them.

    Raises:
        RuntimeError: a result is further off than rounding explains.
    """
    rng = np.random.default_rng(0)
    drawn = 50 * rng.standard_normal((_CHECKED_ROWS, _CHECKED_COLUMNS))
    weights = drawn.astype(dtype)
    stored = weights.view(np.uint16) if dtype == np.float16 else weights
    for transposed, length in ((False, _CHECKED_COLUMNS), (True, _CHECKED_ROWS)):
        for panel_columns in (1, 2, 3, COLUMNS_MAX):
            panel = rng.standard_normal((panel_columns, length)).astype(arithmetic_dtype(dtype))
            exact = panel.astype(np.float64) @ (weights if transposed else weights.T).astype(np.float64)
            product = np.zeros(exact.shape, np.float64 if transposed else panel.dtype)
            multiply = kernels.multiply_transposed if transposed else kernels.multiply
            multiply(read_only(stored), read_only(panel), product)
            if not (abs(product - exact) <= product_error_bound(weights, panel, transposed=transposed)).all():
                raise RuntimeError(f"the compiled kernels for {dtype.name} compute wrong numbers")


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a view that cannot be written through: what kernels are compiled for."""
    view = array.view()
    view.flags.writeable = False
    return view
