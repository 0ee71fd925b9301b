"""A matrix on its way to the daemon: the question first, the bytes when it says that there is room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sedmad.client.call import Call
from sedmad.client.connection import Connection, decoded
from sedmad.client.source import MatrixSource
from sedmad.errors import ProtocolViolation
from sedmad.wire.calls import ResponseReceived
from sedmad.wire.messages import PutMatrixRequest, PutMatrixResponse


@dataclass(frozen=True, slots=True)
class PutProgress:
    """How far a put is.

    Args:
        size_bytes: the matrix.
        received_bytes: what the daemon has of it.
        total_copy_bytes: all copies together; 0 where nothing is copied because it is there already.
        safe_bytes: what of them is on disk.
        phase: what takes long just now, for people; empty while bytes move.
    """

    size_bytes: int
    received_bytes: int
    total_copy_bytes: int
    safe_bytes: int
    phase: str = ""


# Told how far a put is, on the caller's thread.
Progress = Callable[[PutProgress], None]


class Upload:
    """One put.

    Args:
        source: the matrix.
        request: its name and what is wanted of it; shape and dtype are filled in.
        progress: told how far it is, on this thread.
    """

    def __init__(self, source: MatrixSource, request: PutMatrixRequest, progress: Progress | None) -> None:
        request.rows, request.columns = source.shape
        request.data_type = source.data_type
        self._source = source
        self._request = request
        self._progress = progress
        self._planning = False

    def run(self, connection: Connection) -> PutMatrixResponse:
        """Send it, and return the answer that says it is safe.

        Raises:
            NameTaken: another matrix has the name.
            InsufficientCapacity, NotEnoughPeers: the mesh cannot hold it; no byte was sent.
            NonFiniteValues: it holds NaN or infinities; nothing is kept.
            SessionLost: the daemon went away or fell silent; nothing is kept.
        """
        name = self._request.name
        with connection.open("MatrixService/PutMatrix", self._request, payload=None, matrix=name) as call:
            response = self._receive(call)
            while self._planning:
                response = self._receive(call)
            sent_bytes = 0
            for chunk in self._source.chunks():
                sent_bytes += len(chunk)
                while response is None and not call.send(chunk, end=sent_bytes == self._source.nbytes):
                    response = self._receive(call)
                if response is not None:
                    break
            while response is None:
                response = self._receive(call)
        if not response.HasField("matrix"):
            raise ProtocolViolation(f"the daemon did not say what became of {name}", matrix=name)
        return response

    def _receive(self, call: Call) -> PutMatrixResponse | None:
        """Take a report; return it if it is the last."""
        event = call.receive()
        report = decoded(event.message, PutMatrixResponse)
        self._planning = report.planning
        if self._progress is not None:
            self._progress(
                PutProgress(
                    size_bytes=self._source.nbytes,
                    received_bytes=report.received_bytes,
                    total_copy_bytes=report.total_copy_bytes,
                    safe_bytes=report.safe_bytes,
                    phase=report.phase,
                )
            )
        return report if isinstance(event, ResponseReceived) else None
