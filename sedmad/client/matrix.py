"""A matrix of the mesh as an operand: `w @ x` runs where its partitions lie."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from sedmad.client.connection import TIMEOUT_S, Connection
from sedmad.client.source import DTYPE_NAMES
from sedmad.errors import (
    MatrixNotFound,
    MatrixTooLarge,
    ShapeMismatch,
    StaleManifest,
    UnsupportedDtype,
    UsageError,
)
from sedmad.sizes import format_bytes
from sedmad.wire.messages import (
    ApplyMatrixRequest,
    ApplyMatrixResponse,
    InspectMatrixRequest,
    InspectMatrixResponse,
    MatrixSummary,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from sedmad.client.download import Progress
    from sedmad.client.explanation import Explanation

# numpy.asarray(w) and w.get() refuse more than this, so that a slip does not fetch a model. Set it to another number
# for the whole program, or ask for w.get(max_bytes=None).
ARRAY_BYTES_MAX = 1 << 30
DEADLINE_S = 30.0
# A product that was overtaken by a new version is done again with that one, this many times at the most.
REPLACEMENTS_MAX = 3

Result = TypeVar("Result")


class Matrix:
    """A name of the mesh, at the version it has: made by `mesh.put(...)` and `mesh[name]`.

    When the name is given a new version of the same shape and dtype, products go on with that one. Any number of
    threads may use one.
    """

    # Lets `x @ w` reach __rmatmul__, instead of NumPy fetching the whole of w.
    __array_ufunc__ = None

    def __init__(self, connection: Connection, summary: MatrixSummary, *, transposed: bool = False) -> None:
        self._connection = connection
        self._summary = summary
        self._transposed = transposed

    @property
    def name(self) -> str:
        return self._summary.name

    @property
    def version(self) -> int:
        return self._summary.version

    @property
    def shape(self) -> tuple[int, int]:
        shape = (self._summary.rows, self._summary.columns)
        return shape[::-1] if self._transposed else shape

    @property
    def ndim(self) -> int:
        return 2

    @property
    def dtype(self) -> np.dtype[Any]:
        import numpy as np

        return np.dtype(self._dtype_name()).newbyteorder("<")

    @property
    def nbytes(self) -> int:
        return self._summary.size_bytes

    @property
    def T(self) -> Matrix:  # noqa: N802 - NumPy's name
        """The same matrix transposed; nothing moves."""
        return Matrix(self._connection, self._summary, transposed=not self._transposed)

    def __repr__(self) -> str:
        return f"<Matrix {self._form()}, version {self.version}>"

    def __matmul__(self, x: npt.ArrayLike) -> npt.NDArray[Any]:
        return self.apply(x)

    def __rmatmul__(self, x: npt.ArrayLike) -> npt.NDArray[Any]:
        import numpy as np

        return self.T.apply(np.asarray(x).T).T

    @overload
    def apply(
        self,
        x: npt.ArrayLike,
        *,
        deadline_s: float = ...,
        explain: Literal[False] = ...,
        transpose: bool = ...,
    ) -> npt.NDArray[Any]: ...

    @overload
    def apply(
        self, x: npt.ArrayLike, *, deadline_s: float = ..., explain: Literal[True], transpose: bool = ...
    ) -> tuple[npt.NDArray[Any], Explanation]: ...

    def apply(
        self,
        x: npt.ArrayLike,
        *,
        deadline_s: float = DEADLINE_S,
        explain: bool = False,
        transpose: bool = False,
    ) -> npt.NDArray[Any] | tuple[npt.NDArray[Any], Explanation]:
        """Return W x, or W^T x.

        Args:
            x: (n,) or (n, columns), real numbers, converted to float64 for a matrix of float64, else to float32. NaN
                and infinities go through. Integers stay integers for a matrix of int8.
            deadline_s: seconds until it must be done.
            explain: also tell how it came about.
            transpose: multiply with the transposed matrix.

        Returns:
            (m,) or (m, columns), float64 for a matrix of float64, else float32; with `explain` also an Explanation. The
            product of int8 with integers is exact, in int32; where the matrix has a scale it is scaled, in float32.

        Raises:
            ShapeMismatch: x does not fit; nothing was sent.
            UnsupportedDtype: x does not hold real numbers.
            UsageError: the product of int8 with these integers might not fit int32: 128 max|x| n must be below 2^31.
            DeadlineExceeded: it was not done in time; nothing was sent where the deadline had passed already.
            HoldersUnreachable: a partition has no holder that answers.
            StaleManifest: the name was given a version of another shape or dtype.
        """
        import numpy as np

        from sedmad.client.explanation import explain as explained
        from sedmad.client.product import panel_dtype

        operand = self.T if transpose else self
        columns = operand._columns_of(np.asarray(x))
        dtype = panel_dtype(columns, self._summary)
        if math.isnan(deadline_s):
            raise UsageError("a deadline is a number of seconds", matrix=self.name)
        began = time.monotonic()
        deadline = began + deadline_s
        y, widths, responses = operand._follow_versions(
            lambda summary: operand._multiply(summary, columns, dtype, deadline, explain), deadline
        )
        elapsed_ms = (time.monotonic() - began) * 1000
        result = y[0] if np.ndim(x) == 1 else y.T
        if not explain:
            return result
        return result, explained(widths, responses, elapsed_ms)

    def get(self, *, max_bytes: int | None = -1, progress: Progress | None = None) -> npt.NDArray[Any]:
        """Return the whole matrix, bit for bit.

        Args:
            max_bytes: refuse more than this; ARRAY_BYTES_MAX by default, None for no bound.
            progress: told the bytes that have arrived, on this thread.

        Raises:
            MatrixTooLarge: it has more bytes than that.
            HoldersUnreachable: a part of it cannot be had from anybody.
        """
        bound = ARRAY_BYTES_MAX if max_bytes == -1 else max_bytes
        return self._follow_versions(lambda summary: self._fetch(summary, bound, progress))

    def save(self, path: str | os.PathLike[str], *, progress: Progress | None = None) -> None:
        """Write the matrix into a `.npy` file, bit for bit, whole or not at all; never whole in memory.

        Raises:
            DiskFull, UsageError: it cannot be written there.
            HoldersUnreachable: a part of it cannot be had from anybody.
        """
        from sedmad.client.download import download
        from sedmad.client.npy import header_bytes, new_file

        def write(summary: MatrixSummary) -> None:
            with new_file(path) as file:
                # Values of W in C order are those of its transpose in Fortran order.
                file.write(header_bytes(self.shape, self.dtype, fortran_order=self._transposed))
                download(self._connection, summary, file.write, progress)

        self._follow_versions(write)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("a matrix of the mesh cannot become an array without a copy")
        array = self.get()
        return array if dtype is None else array.astype(dtype, copy=False)

    def _columns_of(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return x as (columns, n), uncopied."""
        if x.dtype.kind not in "biuf":
            raise UnsupportedDtype(
                f"x holds {x.dtype}, which are not real numbers",
                why=f"{self.name} is {self._dtype_name()}",
                matrix=self.name,
            )
        if x.ndim not in (1, 2) or x.shape[0] != self.shape[1]:
            raise ShapeMismatch(
                f"{self._form()} cannot be multiplied with x of shape {x.shape}",
                why=f"x must have shape ({self.shape[1]},) or ({self.shape[1]}, columns)",
                hint="Did you mean the transposed matrix, w.T or --transpose?"
                if x.ndim and x.shape[0] == self.shape[0]
                else None,
                matrix=self.name,
            )
        return x.reshape(1, -1) if x.ndim == 1 else x.T

    def _multiply(
        self,
        summary: MatrixSummary,
        x: npt.NDArray[Any],
        dtype: np.dtype[Any],
        deadline: float,
        explain: bool,
    ) -> tuple[npt.NDArray[Any], list[int], list[ApplyMatrixResponse]]:
        import numpy as np

        from sedmad.client.product import Product, panel_columns

        def ask(
            x: npt.NDArray[Any], deadline: float, explain: bool
        ) -> tuple[npt.NDArray[Any], list[int], list[ApplyMatrixResponse]]:
            request = ApplyMatrixRequest(
                name=summary.name,
                version=summary.version,
                transposed=self._transposed,
                explain=explain,
                integers=dtype.kind == "i",
            )
            return Product(self._connection, request, dtype, deadline).run(x, self.shape[0])

        def ask_for_panel(
            x: npt.NDArray[Any], deadline: float, explain: bool
        ) -> tuple[npt.NDArray[Any], ApplyMatrixResponse]:
            y, _, [response] = ask(x, deadline, explain)
            return y, response

        columns_max = panel_columns(*self.shape[::-1], dtype.itemsize, transposed=self._transposed)
        if not 0 < len(x) <= columns_max:
            return ask(x, deadline, explain)
        y, response = self._connection.products.run(
            # A child that was forked shares none of its parent's threads.
            (os.getpid(), summary.name, summary.version, self._transposed, dtype.kind),
            np.ascontiguousarray(x, dtype),
            columns_max,
            deadline,
            explain,
            ask_for_panel,
        )
        return y, [len(x)], [response]

    def _fetch(
        self, summary: MatrixSummary, max_bytes: int | None, progress: Progress | None
    ) -> npt.NDArray[Any]:
        import numpy as np

        from sedmad.client.download import download
        from sedmad.wire.frame import Buffer

        if max_bytes is not None and summary.size_bytes > max_bytes:
            raise MatrixTooLarge(
                f"{self.name} has {format_bytes(summary.size_bytes)}, more than {format_bytes(max_bytes)}",
                why="it would all be copied into this process's memory",
                hint="Multiply with it where it is (w @ x), write it into a file with w.save(path), "
                "or insist with w.get(max_bytes=None).",
                matrix=self.name,
            )
        array = np.empty((summary.rows, summary.columns), self.dtype)
        target = array.data.cast("B")
        filled_bytes = 0

        def fill(payload: Buffer) -> None:
            nonlocal filled_bytes
            target[filled_bytes : filled_bytes + len(payload)] = payload
            filled_bytes += len(payload)

        download(self._connection, summary, fill, progress)
        return array.T if self._transposed else array

    def _follow_versions(
        self, action: Callable[[MatrixSummary], Result], deadline: float = math.inf
    ) -> Result:
        """Do something with the version that this is; where it has been replaced, with the one that replaced it."""
        for _ in range(REPLACEMENTS_MAX):
            summary = self._summary
            try:
                return action(summary)
            except MatrixNotFound:
                self._summary = self._replacement(summary, deadline - time.monotonic())
        return action(self._summary)

    def _replacement(self, old: MatrixSummary, remaining_s: float) -> MatrixSummary:
        new = self._connection.call(
            "MatrixService/InspectMatrix",
            InspectMatrixRequest(name=old.name),
            InspectMatrixResponse,
            timeout_s=max(0.0, min(remaining_s, TIMEOUT_S)),
            matrix=old.name,
        ).matrix
        if (new.rows, new.columns, new.data_type) != (old.rows, old.columns, old.data_type):
            raise StaleManifest(
                f"{old.name} was replaced by a matrix of another form",
                why=f"version {old.version} was {_form(old)}, version {new.version} is {_form(new)}",
                hint="Take it anew: mesh[name]",
                matrix=old.name,
            )
        return new

    def _form(self) -> str:
        rows, columns = self.shape
        turned = " transposed" if self._transposed else ""
        return f"{self.name}{turned} ({rows} x {columns} {self._dtype_name()})"

    def _dtype_name(self) -> str:
        return DTYPE_NAMES[self._summary.data_type]


def _form(summary: MatrixSummary) -> str:
    return f"{summary.rows} x {summary.columns} {DTYPE_NAMES[summary.data_type]}"
