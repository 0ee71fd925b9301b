"""Uplinks are about as bad as was asked for, and no better."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab_sockets import WAIT_FOR_LAB_S
from nat_lab import LabError, LinkQuality, NatLab


@pytest.fixture(scope="module")
def lab(lab_can_be_built: None) -> Iterator[NatLab]:
    with NatLab(link=LinkQuality(), wait_s=WAIT_FOR_LAB_S) as standing:
        yield standing


def test_delay_is_added_in_each_direction_and_taken_away_again(lab: NatLab) -> None:
    lab.set_link("a", LinkQuality(delay_ms=30))
    delayed = lab.sound("a1", "relay", pings=8, burst=0)
    assert min(delayed.there_ms) >= 30
    assert min(delayed.back_ms) >= 30
    assert len(delayed.there_ms) == 8
    assert min(lab.sound("b1", "relay", pings=8, burst=0).there_ms) < 30

    lab.set_link("a", LinkQuality())
    swift = lab.sound("a1", "relay", pings=8, burst=0)
    assert min(swift.there_ms) < 30


def test_frames_are_lost_as_often_as_was_asked_for(lab: NatLab) -> None:
    lab.set_link("a", LinkQuality())
    before, _ = lab.frame_counts("a")
    lab.set_link("a", LinkQuality(loss_percent=20))
    sounding = lab.sound("a1", "relay", pings=0, burst=2000)
    after, _ = lab.frame_counts("a")
    lost = after.lost - before.lost
    # Within five standard deviations.
    assert 310 < lost < 490
    assert sounding.received <= sounding.sent - lost + 5


def test_no_more_than_the_rate_comes_through(lab: NatLab) -> None:
    lab.set_link("a", LinkQuality(rate_mbit_per_s=10, queue_ms=5000))
    sounding = lab.sound("a1", "relay", pings=0, burst=500)
    assert sounding.received == 500
    assert sounding.burst_mbit_per_s <= 10.2


def test_a_full_queue_loses_frames(lab: NatLab) -> None:
    before, _ = lab.frame_counts("a")
    lab.set_link("a", LinkQuality(rate_mbit_per_s=1, queue_ms=20))
    sounding = lab.sound("a1", "relay", pings=0, burst=300)
    after, _ = lab.frame_counts("a")
    assert sounding.received < sounding.sent
    assert after.overflowed > before.overflowed


def test_a_plain_link_cannot_be_made_worse_and_says_so(lab: NatLab) -> None:
    with pytest.raises(LabError, match="no cable a-inner"):
        lab.set_link("a-inner", LinkQuality(delay_ms=1))
