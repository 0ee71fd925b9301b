"""Errors as they travel: a typed error becomes a Status, and a Status the same typed error again."""

from __future__ import annotations

from sedmad.errors import SedmadError, by_reason
from sedmad.wire.messages import Status

# A why may hold a table of nodes; a peer must not make us keep a novel.
TEXT_CHARACTERS_MAX = 4096


def to_status(error: SedmadError) -> Status:
    """Return what the other side is told of an error."""
    return Status(
        code=error.code,
        reason=error.reason,
        message=error.what[:TEXT_CHARACTERS_MAX],
        why=error.why[:TEXT_CHARACTERS_MAX],
        hint=error.hint[:TEXT_CHARACTERS_MAX],
        node=error.node[:256],
        matrix=error.matrix[:256],
        retry_after_ms=0 if error.retry_after_s is None else min(int(error.retry_after_s * 1000), 2**32 - 1),
    )


def to_error(status: Status) -> SedmadError:
    """Return the error that a Status tells of; a reason unknown here becomes a plain SedmadError."""
    error_class = by_reason().get(status.reason, SedmadError)
    return error_class(
        status.message or status.reason or status.code,
        why=status.why,
        hint=status.hint,
        node=status.node,
        matrix=status.matrix,
        retry_after_s=status.retry_after_ms / 1000 if status.retry_after_ms else None,
    )
