"""Which methods carry bulk: their frames leave after everybody else's."""

from __future__ import annotations

from sedmad.wire.frame import Priority

BULK_METHODS = frozenset(
    {
        "sedma.v1.HoldingService/FetchPartition",
        "sedma.v1.MatrixService/PutMatrix",
        "sedma.v1.MatrixService/GetMatrix",
    }
)


def priority_of(method: str) -> Priority:
    """Return the priority of a method's requests, payloads and responses."""
    return Priority.BULK if method in BULK_METHODS else Priority.PRODUCT
