"""How a product came about: who computed which partitions, how long that took, and why they were asked."""

from __future__ import annotations

from dataclasses import dataclass

from sedmad.wire.messages import ApplyMatrixResponse, CopyKind, Verification


@dataclass(frozen=True, slots=True)
class Answer:
    """One holder's part in a product.

    `predicted_ms` is what routing expected of it, `elapsed_ms` what it took; of that it waited `wait_ms` at the
    holder and was computed for `service_ms`.
    """

    peer_id: str
    name: str
    partitions: tuple[int, ...]
    kind: str
    predicted_ms: float
    elapsed_ms: float
    wait_ms: float
    service_ms: float
    reason: str


@dataclass(frozen=True, slots=True)
class PanelExplanation:
    """One panel of at most 64 columns.

    Args:
        columns: columns of this panel.
        joined_columns: columns of the joined product that it was part of.
        waited_ms: how long it waited for that product to begin.
        total_ms: from its arrival at the daemon to the answer.
        answers: the holders' parts.
    """

    columns: int
    joined_columns: int
    waited_ms: float
    total_ms: float
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """A whole product, as `Matrix.apply(..., explain=True)` returns it.

    Args:
        version: version of the matrix that was multiplied.
        verified: whether every panel was checked against a sketch.
        elapsed_ms: what the caller waited for all panels.
        panels: in the order of their columns.
    """

    version: int
    verified: bool
    elapsed_ms: float
    panels: tuple[PanelExplanation, ...]


def explain(columns: list[int], responses: list[ApplyMatrixResponse], elapsed_ms: float) -> Explanation:
    """Return what the daemon told of each panel, in order."""
    return Explanation(
        version=responses[0].version if responses else 0,
        verified=all(response.verification == Verification.VERIFICATION_VERIFIED for response in responses),
        elapsed_ms=elapsed_ms,
        panels=tuple(_panel(width, response) for width, response in zip(columns, responses, strict=True)),
    )


def _panel(columns: int, response: ApplyMatrixResponse) -> PanelExplanation:
    told = response.explanation
    return PanelExplanation(
        columns=columns,
        joined_columns=told.joined_columns,
        waited_ms=told.waited_ms,
        total_ms=told.total_ms,
        answers=tuple(
            Answer(
                peer_id=answer.node.peer_id,
                name=answer.node.name,
                partitions=tuple(answer.partitions),
                kind="resident" if answer.kind == CopyKind.COPY_KIND_RESIDENT else "standby",
                predicted_ms=answer.predicted_ms,
                elapsed_ms=answer.elapsed_ms,
                wait_ms=answer.wait_ms,
                service_ms=answer.service_ms,
                reason=answer.reason,
            )
            for answer in told.answers
        ),
    )
