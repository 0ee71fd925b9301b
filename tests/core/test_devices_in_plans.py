"""Plans that count what resident copies take of nodes' devices."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sedmad.core.accuracy import EXACT, Accuracy
from sedmad.core.cells import CellLedger
from sedmad.core.device_needs import NO_DEVICES, DeviceNeed, DeviceNeeds
from sedmad.core.offers import Offer
from sedmad.core.partitioning import Partitioning
from sedmad.core.placement import place, place_on_devices
from sedmad.core.repair import Layout, plan_repair
from sedmad.errors import InsufficientCapacity, LocalError, UsageError

MIB = 1 << 20
EIGHT = Partitioning(8 * 2048, 1024, 4)  # eight partitions of 8 MiB
RRAM = DeviceNeeds(by_profile={"rram": DeviceNeed(cells=1000, memory_bytes=8 * MIB)})


def offer(
    peer: str, profile: str = "ideal", *, cells: int = 0, memory: int = 1 << 30, gflops: float = 10
) -> Offer:
    return Offer(
        peer_id=peer,
        memory_available_bytes=memory,
        disk_available_bytes=1 << 30,
        gflops=gflops,
        memory_bandwidth_bytes_per_s=1e10,
        device_profile=profile,
        cells_available=cells,
    )


def residents(offers: list[Offer], devices: DeviceNeeds) -> dict[str, int]:
    needs = place(EIGHT, 0, offers, b"m", devices).needs()
    return {peer: need.resident_partitions for peer, need in needs.items()}


def test_cells_bound_the_share_of_a_node() -> None:
    offers = [offer("ann"), offer("ben", "rram", cells=2999, gflops=1000)]
    assert residents(offers, RRAM)["ben"] == 2
    assert residents(offers, NO_DEVICES)["ben"] > 2


def test_memory_counts_what_simulates_the_devices() -> None:
    offers = [offer("ann"), offer("ben", "rram", cells=1 << 30, memory=50 * MIB, gflops=1000)]
    assert residents(offers, RRAM)["ben"] == 3


def test_slow_devices_get_less() -> None:
    offers = [offer("ann"), offer("ben", "rram", cells=1 << 30)]
    even = residents(offers, RRAM)
    slow = DeviceNeeds(by_profile={"rram": DeviceNeed(cells=1000, slowdown=3.0)})
    assert even["ben"] == 4
    assert residents(offers, slow)["ben"] == 2


def test_a_profile_nobody_here_knows_is_left_to_its_node() -> None:
    assert residents([offer("ann", "mine", cells=1)], RRAM) == {"ann": 8}


def test_a_demanded_profile_takes_all_residents_and_no_standby() -> None:
    demanded = DeviceNeeds("rram", RRAM.by_profile)
    offers = [offer("ann", gflops=1000), offer("ben", "rram", cells=8000)]
    placement = place(EIGHT, 1, offers, b"m", demanded)
    assert {partition.resident for partition in placement.partitions} == {"ben"}
    assert {partition.standbys for partition in placement.partitions} == {("ann",)}


def test_too_few_cells_of_a_demanded_profile_are_refused_with_the_arithmetic() -> None:
    demanded = DeviceNeeds("rram", RRAM.by_profile)
    with pytest.raises(InsufficientCapacity) as refused:
        place_on_devices(EIGHT, 0, [offer("ann"), offer("ben", "rram", cells=7999)], b"m", demanded)
    assert "7,999 cells of rram (a partition takes 1,000)" in refused.value.why
    assert "ideal devices, not rram" in refused.value.why


def test_too_few_cells_are_made_up_for_by_exact_arithmetic() -> None:
    placement, devices = place_on_devices(EIGHT, 0, [offer("ben", "rram", cells=10)], b"m", RRAM)
    assert {partition.resident for partition in placement.partitions} == {"ben"}
    assert devices is NO_DEVICES


@given(cells=st.integers(0, 12_000), memory=st.integers(0, 200), target=st.booleans())
def test_no_plan_takes_more_than_is_offered(cells: int, memory: int, target: bool) -> None:
    offers = [
        offer("ann", memory=64 * MIB),
        offer("ben", "rram", cells=cells, memory=memory * MIB, gflops=99),
    ]
    devices = RRAM if target else NO_DEVICES
    taken = residents(offers, devices).get("ben", 0)
    assert taken * devices.of(offers[1]).cells <= cells
    assert taken * (8 * MIB + devices.of(offers[1]).memory_bytes) <= memory * MIB


def test_a_repair_counts_cells_too() -> None:
    layout = Layout(b"m", EIGHT, 0, "ann", ("ann",), tuple({"ann": True} for _ in range(8)))
    offers = [offer("ann"), offer("ben", "rram", cells=3500)]
    plan = plan_repair(layout, {"ann": "alive", "ben": "alive"}, offers=offers, leaving=["ann"], devices=RRAM)
    made = [copy for copy in plan.new_copies if copy.target == "ben" and copy.resident]
    assert len(made) == 3
    assert plan.needs()["ben"].resident_partitions == 3


def test_cells_are_reserved_taken_and_given_back() -> None:
    ledger = CellLedger(100, "ann")
    ledger.reserve("put", 60)
    assert ledger.usage.available == 40
    assert ledger.available_to("put") == 100
    ledger.take("a", 50, put="put")
    assert (ledger.usage.used, ledger.usage.reserved) == (50, 10)
    with pytest.raises(InsufficientCapacity) as refused:
        ledger.reserve("other", 41)
    assert "pledged 100, used 50, reserved 10" in refused.value.why
    with pytest.raises(LocalError):
        ledger.reserve("put", 1)
    ledger.release_reserved("put")
    ledger.take("a", 20)
    assert ledger.usage.available == 80
    ledger.free("a")
    assert ledger.usage.available == 100


@pytest.mark.parametrize("target", [-0.1, 1.0, float("nan"), float("inf")])
def test_targets_that_are_no_relative_error_are_refused(target: float) -> None:
    with pytest.raises(UsageError):
        Accuracy(target)


def test_a_profile_needs_a_target() -> None:
    with pytest.raises(UsageError):
        Accuracy(0.0, "rram")
    assert str(EXACT) == "exact"
    assert str(Accuracy(0.05, "rram")) == "target error 0.05 on rram"
