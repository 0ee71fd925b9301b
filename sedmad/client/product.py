"""A product as panels: columns of X go out while columns of Y come in, several panels under way at once."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sedmad.client.call import Call
from sedmad.client.connection import Connection, decoded
from sedmad.errors import DeadlineExceeded, ProtocolViolation, SessionLost, UsageError
from sedmad.wire.calls import ResponseData, ResponseReceived
from sedmad.wire.messages import ApplyMatrixRequest, ApplyMatrixResponse, DataType, MatrixSummary

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Bounds of the contract: what a daemon joins into one kernel call, and what is sent without waiting for credit.
PANEL_COLUMNS_MAX = 64
PANEL_BYTES_MAX = 8 << 20
# One is computed, one travels each way, one waits: more would only take memory.
PANELS_IN_FLIGHT = 4

# Partial results of transposed products are float64 whatever the matrix is.
PARTIAL_ITEMSIZE = 8
# What the answer to a panel of X may be. One version of a matrix has a scale or has none.
_RESULT_TYPES = {
    "float32": (DataType.DATA_TYPE_FLOAT32,),
    "float64": (DataType.DATA_TYPE_FLOAT64,),
    "int32": (DataType.DATA_TYPE_INT32, DataType.DATA_TYPE_FLOAT32),
}
# Partitions are whole blocks of rows, so the daemon counts a length as the next multiple.
BLOCK_ROWS = 64


def panel_columns(x_length: int, y_length: int, itemsize: int, *, transposed: bool) -> int:
    """Return how many columns go into a panel: one always fits."""
    x_bytes = -(-x_length // BLOCK_ROWS) * BLOCK_ROWS * itemsize
    y_bytes = -(-y_length // BLOCK_ROWS) * BLOCK_ROWS * (PARTIAL_ITEMSIZE if transposed else itemsize)
    return max(1, min(PANEL_COLUMNS_MAX, PANEL_BYTES_MAX // max(x_bytes, y_bytes)))


def panel_dtype(x: npt.NDArray[Any], matrix: MatrixSummary) -> np.dtype[Any]:
    """Return the dtype in which x travels to a matrix: float32, float64, or int32.

    Raises:
        UsageError: the product of int8 with x could not fit int32.
    """
    import numpy as np

    if matrix.data_type != DataType.DATA_TYPE_INT8 or x.dtype.kind not in "biu":
        return np.dtype("<f8" if matrix.data_type == DataType.DATA_TYPE_FLOAT64 else "<f4")
    limits = np.iinfo(np.int32)
    if x.size and not (limits.min <= x.min() and x.max() <= limits.max):
        raise UsageError(
            f"the product with {matrix.name} may not fit int32",
            why=f"x holds integers from {x.min()} to {x.max()}",
            hint="Give x as float32: the product is rounded then.",
            matrix=matrix.name,
        )
    return np.dtype("<i4")


@dataclass(slots=True)
class _Panel:
    """Rows are columns of X and Y. `y` is where the answer belongs."""

    x: npt.NDArray[Any]
    y: npt.NDArray[Any]
    call: Call


class Product:
    """Multiplies with one version of one matrix, by one deadline.

    Args:
        connection: the way to the daemon.
        request: name, version, direction; `columns` is filled in for every panel.
        dtype: in which X travels: float32, float64, or int32.
        deadline: when it must be done, on the clock of time.monotonic.

    Raises:
        DeadlineExceeded: the deadline has passed already; nothing was sent.
    """

    def __init__(
        self, connection: Connection, request: ApplyMatrixRequest, dtype: np.dtype[Any], deadline: float
    ) -> None:
        self._connection = connection
        self._request = request
        self._dtype = dtype
        self._deadline = deadline
        self._remaining_s()

    def run(
        self, x: npt.NDArray[Any], length: int
    ) -> tuple[npt.NDArray[Any], list[int], list[ApplyMatrixResponse]]:
        """Return the product.

        Args:
            x: (columns, n): the columns of X, one after the other; converted panel by panel.
            length: m, of a column of Y.

        Returns:
            Y, (columns, m), C order; the columns of each panel; and what the daemon told of it. Y has X's dtype, or is
            float32 where X is int32 and the matrix has a scale.

        Raises:
            DeadlineExceeded: it was not done in time.
            SessionLost: the daemon went away twice.
            SedmadError: what the daemon answered with.
        """
        import numpy as np

        y = np.empty((len(x), length), self._dtype)
        width = panel_columns(x.shape[1], y.shape[1], y.itemsize, transposed=self._request.transposed)
        under_way: deque[_Panel] = deque()
        widths, responses = [], []
        try:
            for start in range(0, len(x), width):
                if len(under_way) == PANELS_IN_FLIGHT:
                    responses.append(self._finish(under_way))
                panel_x = np.ascontiguousarray(x[start : start + width], self._dtype)
                under_way.append(_Panel(panel_x, y[start : start + width], self._begin(panel_x)))
                widths.append(len(panel_x))
            while under_way:
                responses.append(self._finish(under_way))
        finally:
            for panel in under_way:
                panel.call.close()
        # Both take four bytes: only the answer says which it is.
        scaled = self._dtype.kind == "i" and any(
            response.data_type == DataType.DATA_TYPE_FLOAT32 for response in responses
        )
        return y.view("<f4") if scaled else y, widths, responses

    def _begin(self, x: npt.NDArray[Any]) -> Call:
        """Send a panel; over a new connection where the last one breaks under it."""
        try:
            return self._send(x)
        except SessionLost:
            return self._send(x)

    def _send(self, x: npt.NDArray[Any]) -> Call:
        self._request.columns = len(x)
        return self._connection.open(
            "MatrixService/ApplyMatrix",
            self._request,
            payload=x.data,
            timeout_s=self._remaining_s(),
            matrix=self._request.name,
        )

    def _finish(self, under_way: deque[_Panel]) -> ApplyMatrixResponse:
        """Wait for the oldest panel; ask once more where the daemon went away meanwhile."""
        panel = under_way[0]
        try:
            response = self._receive(panel)
        except SessionLost:
            panel.call.close()
            panel.call = self._begin(panel.x)
            response = self._receive(panel)
        panel.call.close()
        under_way.popleft()
        return response

    def _receive(self, panel: _Panel) -> ApplyMatrixResponse:
        target = panel.y.data.cast("B")
        received_bytes = 0
        event: ResponseData | ResponseReceived | None = None
        while not isinstance(event, ResponseReceived):
            event = panel.call.receive()
            stop = received_bytes + len(event.payload)
            if len(event.payload) and (event.offset != received_bytes or stop > len(target)):
                raise self._violation(f"bytes {event.offset}-{event.offset + len(event.payload)}")
            target[received_bytes:stop] = event.payload
            received_bytes = stop
            panel.call.consume(len(event.payload))
        response = decoded(event.message, ApplyMatrixResponse)
        if (
            received_bytes != len(target)
            or response.length != panel.y.shape[1]
            or response.data_type not in _RESULT_TYPES[self._dtype.name]
        ):
            dtype = DataType.Name(response.data_type)
            raise self._violation(f"{received_bytes} bytes, columns of {response.length} {dtype}")
        return response

    def _violation(self, got: str) -> ProtocolViolation:
        return ProtocolViolation(
            f"the daemon's product with {self._request.name} has not the form that was asked for",
            why=f"got {got}",
            matrix=self._request.name,
        )

    def _remaining_s(self) -> float:
        remaining_s = self._deadline - time.monotonic()
        if remaining_s <= 0:
            sent = "some of its columns" if self._request.columns else "anything"
            raise DeadlineExceeded(
                f"the product with {self._request.name} was not done by its deadline",
                why=f"the deadline passed before {sent} could be sent",
                matrix=self._request.name,
            )
        return remaining_s
