"""What matrices are expected to take of devices, and what is refused before a byte has come."""

from __future__ import annotations

import pytest

from crossbar.errors import TargetUnreachable as NoPlan
from sedmad.core.accuracy import EXACT, Accuracy
from sedmad.core.offers import Offer
from sedmad.core.partitioning import Partitioning
from sedmad.errors import TargetUnreachable, UsageError
from sedmad.node import expecting
from sedmad.node.expecting import Expectations

CUT = Partitioning(256, 64, 4)


def offer(profile: str) -> Offer:
    return Offer(
        peer_id=profile,
        memory_available_bytes=1 << 30,
        disk_available_bytes=1 << 30,
        gflops=1.0,
        memory_bandwidth_bytes_per_s=1e9,
        device_profile=profile,
        cells_available=1 << 30,
    )


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The targets that were planned for; no plan reaches one below 1 %."""
    asked: list[float] = []

    def plan(weights: object, profile: object, target_error: float, **options: object) -> object:
        asked.append(target_error)
        raise NoPlan(
            f"no plan keeps {target_error:g}",
            lever="replicas",
            best_error=0.02,
            why="replicas stopped at 0.02",
        )

    monkeypatch.setattr(expecting.crossbar, "partition", plan)
    return asked


async def test_a_profile_that_nobody_offers_is_refused_with_those_that_are() -> None:
    with pytest.raises(UsageError) as refused:
        await Expectations().needs(Accuracy(0.1, "wan2022"), CUT, [offer("ideal"), offer("milo2021")])
    assert "ideal, milo2021" in refused.value.why


async def test_a_target_that_no_plan_keeps_says_what_stopped_and_is_planned_for_once(
    plans: list[float],
) -> None:
    expectations = Expectations()
    for _ in range(2):
        with pytest.raises(TargetUnreachable) as refused:
            await expectations.needs(Accuracy(0.001, "wan2022"), CUT, [offer("wan2022")])
        assert "replicas stopped at 0.02" in refused.value.why
    assert plans == [0.001]
    needs = await expectations.needs_if_any(Accuracy(0.001, "wan2022"), CUT, [offer("ideal")])
    assert needs.room(offer("ideal"), 1) == 0


async def test_nothing_is_planned_for_exact_arithmetic_or_devices_unknown_here(plans: list[float]) -> None:
    await Expectations().needs(EXACT, CUT, [offer("wan2022")])
    await Expectations().needs(Accuracy(0.1), CUT, [offer("ideal"), offer("somebody's own")])
    assert plans == []
