"""Owns the rule that says when a plan should be made again. Pure: it measures nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crossbar.planning.planned import Planned

AGE_GRACE_S = 60.0
"""Ages below a minute are not told apart: programming a partition takes some of it, and drift laws begin at 1 s."""

LOAD_CHANGE = 0.3
"""Of a node's time: replicas and slices cost reads, so a plan that suits an idle node may not suit a busy one."""


def needs_replanning(
    planned: Planned, *, seconds: float, fault_map_digest: bytes = b"", load: float | None = None
) -> tuple[str, ...]:
    """Return the reasons to plan again, one line each; none if the plan stands.

    Args:
        seconds: since programming.
        fault_map_digest: of the devices' faults now (`crossbar.mapping.faults.fault_digest`); b"" if unknown.
        load: share of its time that the node is busy now, 0 to 1; None if unknown.
    """
    if planned.cells.allocated == 0:  # nothing is on devices
        return ()
    reasons = []
    if planned.drifts and seconds > max(planned.seconds, AGE_GRACE_S):
        reasons.append(f"programmed {seconds:.3g} s ago, planned for {planned.seconds:.3g} s")
    known = planned.fault_map_digest and fault_map_digest
    if known and planned.fault_map_digest != fault_map_digest:
        reasons.append("other devices are stuck than when it was planned")
    if planned.load is not None and load is not None and abs(load - planned.load) > LOAD_CHANGE:
        reasons.append(f"the load went from {planned.load:.0%} to {load:.0%}")
    return tuple(reasons)
