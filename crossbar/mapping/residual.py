"""Owns the sparse digital residual: the weights with the largest errors, made right by digital arithmetic.

What is kept is not the weight but what arrays lack of it, w - w', so that arrays stay as they are and the product is
the sum of both. It is a matrix in compressed sparse rows (one row an output), float32.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from crossbar.engine import FloatArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class SparseResidual:
    """Corrections of single weights of a matrix (outputs, inputs)."""

    def __init__(
        self,
        shape: tuple[int, int],
        outputs: npt.NDArray[np.integer],
        inputs: npt.NDArray[np.integer],
        values: FloatArray,
    ) -> None:
        """Take the corrections `values` of the weights at (`outputs`, `inputs`), in any order, each place once."""
        from scipy.sparse import csr_matrix

        self._matrix: csr_matrix = csr_matrix((values.astype(np.float32), (outputs, inputs)), shape=shape)
        self._transposed: csr_matrix = self._matrix.T.tocsr()

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs)"""
        outputs, inputs = self._matrix.shape
        return outputs, inputs

    @property
    def weights(self) -> int:
        """How many weights are corrected."""
        return int(self._matrix.nnz)

    @property
    def share(self) -> float:
        """The share of all weights that is corrected."""
        return self.weights / math.prod(self.shape)

    @property
    def memory_bytes(self) -> int:
        """Bytes held, in both orders together."""
        return sum(
            array.nbytes
            for matrix in (self._matrix, self._transposed)
            for array in (matrix.data, matrix.indices, matrix.indptr)
        )

    def apply(self, panel: FloatArray) -> FloatArray:
        """Return (k, outputs) to be added to the product of a panel (k, inputs), in the panel's dtype."""
        return self._product(self._matrix, panel)

    def apply_transposed(self, panel: FloatArray) -> FloatArray:
        """Return (k, inputs) to be added to the transposed product of a panel (k, outputs)."""
        return self._product(self._transposed, panel)

    def dense(self) -> npt.NDArray[np.float32]:
        """Return all corrections (outputs, inputs), zeros included."""
        return np.asarray(self._matrix.toarray())

    @staticmethod
    def _product(matrix: csr_matrix, panel: FloatArray) -> FloatArray:
        return np.ascontiguousarray((matrix @ panel.T).T, panel.dtype)


class ResidualSelection:
    """Finds the largest errors of a matrix while it is programmed block by block.

    Holds no more than the corrections that are kept and those of one block, and finds the same ones whatever the
    blocks, but for errors that are exactly alike.
    """

    def __init__(self, outputs: int, inputs: int, share: float) -> None:
        """Keep the given share of all weights, rounded to whole weights."""
        if not 0 <= share <= 1:
            raise ValueError(f"a share from 0 to 1 was expected, not {share}")
        self._shape = (outputs, inputs)
        self._kept_max = round(share * outputs * inputs)
        self._outputs = np.empty(0, np.int32)
        self._inputs = np.empty(0, np.int32)
        self._values = np.empty(0, np.float32)
        self._ranks = np.empty(0, np.float32)

    def add(
        self,
        corrections: FloatArray,
        *,
        first_input: int = 0,
        first_output: int = 0,
        input_power: npt.NDArray[np.floating] | None = None,
    ) -> None:
        """Consider one block.

        Args:
            corrections: (inputs, outputs), w - w' of each weight of the block.
            first_input, first_output: where the block begins.
            input_power: (inputs,), E[x^2] of the block's inputs: what an error weighs. Alike by default.
        """
        if not self._kept_max:
            return
        ranks = np.square(corrections, dtype=np.float32)
        if input_power is not None:
            ranks *= input_power.astype(np.float32)[:, np.newaxis]
        least = self._ranks.min() if len(self._ranks) == self._kept_max else np.float32(0)
        inputs, outputs = np.nonzero(ranks > least)
        self._inputs = np.concatenate((self._inputs, (inputs + first_input).astype(np.int32)))
        self._outputs = np.concatenate((self._outputs, (outputs + first_output).astype(np.int32)))
        self._values = np.concatenate((self._values, corrections[inputs, outputs].astype(np.float32)))
        self._ranks = np.concatenate((self._ranks, ranks[inputs, outputs]))
        if len(self._ranks) > self._kept_max:
            kept = np.argpartition(-self._ranks, self._kept_max - 1)[: self._kept_max]
            self._inputs, self._outputs = self._inputs[kept], self._outputs[kept]
            self._values, self._ranks = self._values[kept], self._ranks[kept]

    def finish(self) -> SparseResidual:
        """Return the corrections that are kept."""
        return SparseResidual(self._shape, self._outputs, self._inputs, self._values)
