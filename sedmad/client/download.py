"""A matrix on its way from the daemon, in order, byte for byte."""

from __future__ import annotations

from collections.abc import Callable

from sedmad.client.connection import Connection, decoded
from sedmad.errors import BytesCorrupt, ProtocolViolation
from sedmad.wire.calls import ResponseData, ResponseReceived
from sedmad.wire.frame import Buffer
from sedmad.wire.messages import GetMatrixRequest, GetMatrixResponse, MatrixSummary

# Told the bytes that have arrived, on the caller's thread.
Progress = Callable[[int], None]


def download(
    connection: Connection,
    matrix: MatrixSummary,
    write: Callable[[Buffer], object],
    progress: Progress | None = None,
) -> None:
    """Hand the bytes of one version to `write`, chunk by chunk: little-endian values, C order.

    Raises:
        MatrixNotFound: there is no such version any more.
        HoldersUnreachable: a part of it cannot be had from anybody.
        BytesCorrupt: a chunk is not what its digest says.
        SessionLost: the daemon went away or fell silent.
    """
    request = GetMatrixRequest(name=matrix.name, version=matrix.version)
    received_bytes = 0
    with connection.open("MatrixService/GetMatrix", request, matrix=matrix.name) as call:
        event: ResponseData | ResponseReceived | None = None
        while not isinstance(event, ResponseReceived):
            event = call.receive()
            if event.message and not received_bytes:
                _check_matrix(decoded(event.message, GetMatrixResponse).matrix, matrix)
            if not len(event.payload):
                continue
            received_bytes += _check_chunk(event, received_bytes, matrix)
            write(event.payload)
            call.consume(len(event.payload))
            if progress is not None:
                progress(received_bytes)
    if received_bytes != matrix.size_bytes:
        raise ProtocolViolation(
            f"the daemon sent {received_bytes} bytes of {matrix.name} instead of {matrix.size_bytes}",
            matrix=matrix.name,
        )


def _check_matrix(got: MatrixSummary, wanted: MatrixSummary) -> None:
    if (got.rows, got.columns, got.data_type) != (wanted.rows, wanted.columns, wanted.data_type):
        raise ProtocolViolation(
            f"the daemon sent another matrix than {wanted.name}",
            why=f"{got.rows} x {got.columns} instead of {wanted.rows} x {wanted.columns}",
            matrix=wanted.name,
        )


def _check_chunk(event: ResponseData | ResponseReceived, offset: int, matrix: MatrixSummary) -> int:
    """Return the chunk's length."""
    length = len(event.payload)
    if event.offset != offset or offset + length > matrix.size_bytes:
        raise ProtocolViolation(
            f"the daemon sent a chunk of {matrix.name} that is not the next one",
            why=f"bytes {event.offset}-{event.offset + length} instead of {offset}-",
            matrix=matrix.name,
        )
    if event.payload_digest:
        import hashlib

        if hashlib.sha256(event.payload).digest() != event.payload_digest:
            raise BytesCorrupt(
                f"a chunk of {matrix.name} was damaged on its way",
                why=f"byte {offset} on",
                matrix=matrix.name,
            )
    return length
