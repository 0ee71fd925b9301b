"""What daemons tell of their repairs, added up over their restarts."""

from __future__ import annotations

import pytest

from sedmad.testing.chaos.history import History
from sedmad.testing.chaos.repairs import Repairs
from sedmad.wire.messages import GetStatusResponse, RepairSummary


@pytest.fixture
def repairs() -> Repairs:
    return Repairs({}, History())


def status(restored_bytes: int, *under_repair: str, waiting: str = "") -> GetStatusResponse:
    summaries = [RepairSummary(names=[name], step_bytes=10) for name in under_repair]
    summaries += [RepairSummary(names=[waiting], waiting_for="room")] if waiting else []
    return GetStatusResponse(restored_bytes=restored_bytes, repairs=summaries)


def test_bytes_are_counted_once_whoever_restarts(repairs: Repairs) -> None:
    for node, restored_bytes in (("a", 0), ("a", 5), ("b", 7), ("a", 5), ("a", 2), ("a", 3), ("b", 7)):
        repairs.take_in(node, status(restored_bytes), 0.0)
    assert repairs.restored_bytes == 5 + 3 + 7


def test_the_longest_repair_is_of_one_matrix_without_a_pause(repairs: Repairs) -> None:
    for now_s, told in (
        (0.0, status(0, waiting="w")),
        (1.0, status(0, "w")),
        (3.0, status(0, "w", "v")),
        (4.0, status(9, "v")),
        (5.0, status(9, "w", "v")),
        (5.5, status(9, "w")),
    ):
        repairs.take_in("a", told, now_s)
    assert (repairs.longest_s, repairs.longest_of) == (2.0, "w")
