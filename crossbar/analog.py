"""Owns a block of weights on simulated crossbars as a node multiplies with it: panels whose columns have noise keys.

Panels hold one column of X per row, as in `crossbar.engine`. Importing this loads no kernels; a `Crossbar` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from crossbar import randomness

if TYPE_CHECKING:
    from crossbar.programmed import Crossbar

Keys = npt.NDArray[np.uint64]

_STRAIGHT, _TRANSPOSED = 0, 1


class AnalogPartition:
    """A block of rows W of a matrix on devices, multiplied with by several threads at once.

    A key stands for one column of one product. What noise a column meets depends on that key, on the block's devices
    and on the direction, never on the columns that travel along.

    Args:
        crossbar: made by `crossbar.program`, and perhaps aged.
    """

    def __init__(self, crossbar: Crossbar) -> None:
        self._crossbar = crossbar
        # Blocks that are asked with the same keys meet different noise.
        self._streams = tuple(
            np.uint64(randomness.key(crossbar.seed, randomness.READ, direction))
            for direction in (_STRAIGHT, _TRANSPOSED)
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of W."""
        return self._crossbar.shape

    @property
    def memory_bytes(self) -> int:
        """Bytes held beyond the weights themselves."""
        return self._crossbar.memory_bytes

    def multiply(self, panel: npt.NDArray[Any], keys: Keys) -> npt.NDArray[Any]:
        """Return Y (k, rows), in the dtype of `panel` (k, columns), float32 or float64, with `keys` (k,)."""
        product = self._crossbar.multiply(np.ascontiguousarray(panel), self._mixed(keys, _STRAIGHT))
        return np.ascontiguousarray(product, panel.dtype)

    def multiply_transposed(self, panel: npt.NDArray[Any], keys: Keys) -> npt.NDArray[np.float64]:
        """Return this block's share (k, columns), float64, of W^T X for its slice `panel` (k, rows) of X."""
        product = self._crossbar.multiply_transposed(
            np.ascontiguousarray(panel), self._mixed(keys, _TRANSPOSED)
        )
        return np.ascontiguousarray(product, np.float64)

    def _mixed(self, keys: Keys, direction: int) -> Keys:
        return keys ^ self._streams[direction]
