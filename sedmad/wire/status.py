"""Errors as they travel: a typed error becomes a Status, and a Status the same typed error again."""

from __future__ import annotations

from sedmad.errors import SedmadError, by_reason
from sedmad.wire.messages import Status

# A why may hold a table of nodes; a peer must not make us keep a novel.
TEXT_CHARACTERS_MAX = 4096
# Peer ids have about 60 characters, names of matrices at most 128 bytes.
NAME_CHARACTERS_MAX = 256
RETRY_AFTER_MS_MAX = 2**32 - 1


def to_status(error: SedmadError) -> Status:
    """Return what the other side is told of an error."""
    return Status(
        code=error.code,
        reason=error.reason,
        message=_text(error.what, TEXT_CHARACTERS_MAX),
        why=_text(error.why, TEXT_CHARACTERS_MAX),
        hint=_text(error.hint, TEXT_CHARACTERS_MAX),
        node=_text(error.node, NAME_CHARACTERS_MAX),
        matrix=_text(error.matrix, NAME_CHARACTERS_MAX),
        retry_after_ms=int(min(max(0.0, (error.retry_after_s or 0.0) * 1000), RETRY_AFTER_MS_MAX)),
    )


def _text(text: str, characters_max: int) -> str:
    """Return what fits of a text; a file name's undecodable bytes, which no message can carry, become `?`."""
    return text[:characters_max].encode("utf-8", "replace").decode()


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
