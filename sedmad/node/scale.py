"""The scale of a matrix of int8: a float32 for each row, kept in its manifest. Products are those of diag(scale) W.

Only the node that is asked for a product knows of it: it multiplies what comes out, or for W^T X what goes in.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sedmad.errors import NonFiniteValues, ShapeMismatch
from sedmad.node.panels import Panel, empty_panel
from sedmad.wire import messages as wire

ITEMSIZE = 4
# Half of what a message holds: a manifest's partitions, copies and successions need room as well.
ROWS_MAX = 1 << 17


def fits(scale: bytes, dtype: str, rows: int) -> bool:
    """Return whether a matrix can have that scale: none, or for int8 a factor for each of not too many rows."""
    return not scale or (dtype == "int8" and rows <= ROWS_MAX and len(scale) == rows * ITEMSIZE)


def check(request: wire.PutMatrixRequest, dtype: str) -> None:
    """Refuse a scale that the matrix cannot have.

    Raises:
        ShapeMismatch: it is not of int8, has too many rows, or another number of them.
        NonFiniteValues: a factor is NaN or Inf, and that was not asked for.
    """
    if not fits(request.scale, dtype, request.rows):
        raise ShapeMismatch(
            f"the scale of {request.name} does not fit it",
            why=f"{len(request.scale) // ITEMSIZE} factors for {request.rows} rows of {dtype}; "
            f"a scale is for int8, with a factor for each of at most {ROWS_MAX:,} rows",
            hint="",
            matrix=request.name,
        )
    if not request.allow_nonfinite and not np.isfinite(factors(request.scale)).all():
        raise NonFiniteValues(f"the scale of {request.name} holds NaN or Inf", matrix=request.name)


def factors(scale: bytes) -> npt.NDArray[np.float32]:
    """Return a scale as an array (rows,)."""
    return np.frombuffer(scale, "<f4")


def scaled(panel: Panel, scale: bytes) -> Panel:
    """Return a panel (columns, rows) times the factor of each row, rounded to float32 once."""
    columns, rows = panel.shape
    result = empty_panel(columns, rows, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        np.multiply(panel, factors(scale), out=result, dtype=np.float64, casting="unsafe")
    return result
