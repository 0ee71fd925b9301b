from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sedmad.core.partitioning import Partitioning
from sedmad.core.prediction import PeerEstimate, Work

SQUARE = Partitioning(4096, 4096, 4)
WORK = Work.of(SQUARE, 1)
PEER = PeerEstimate(
    "p", rtt_s=0.01, bandwidth_bytes_per_s=1e7, gflops=80.0, memory_bandwidth_bytes_per_s=1e10
)


def seconds(peer: PeerEstimate, work: Work = WORK, partitions: int = 1) -> float:
    return peer.predict(work).seconds(partitions)


def test_work_counts_what_is_computed_and_moved() -> None:
    assert Work.of(SQUARE, 24) == Work(2 * 512 * 4096 * 24, 8 << 20, 24 * 16384, 0, 24 * 2048)
    assert Work.of(SQUARE, 24, transposed=True) == Work(
        2 * 512 * 4096 * 24, 8 << 20, 0, 24 * 2048, 24 * 32768
    )


def test_one_column_is_bound_by_memory_and_a_panel_by_arithmetic() -> None:
    assert WORK.service_s(80.0, 1e10) == pytest.approx((8 << 20) / 1e10)
    assert Work.of(SQUARE, 64).service_s(80.0, 1e10) == pytest.approx(2 * 512 * 4096 * 64 / 80e9)


def test_the_terms_add_up() -> None:
    expected = (
        0.01  # round trip
        + 16384 / 1e7  # X, once
        + 2 * ((8 << 20) / 1e10 * 3 + 2048 / 1e7)  # two partitions behind two products in flight, and Y
        + 3 * 0.5 / 900  # an unknown node may fail
    )
    assert seconds(replace(PEER, in_flight=2), partitions=2) == pytest.approx(expected)


def test_the_own_node_pays_no_path_and_no_risk() -> None:
    own = replace(PEER, own=True, rtt_s=9.0, failures=9)
    assert seconds(own) == pytest.approx((8 << 20) / 1e10)


@pytest.mark.parametrize(
    "worse",
    [
        {"rtt_s": 0.02},
        {"bandwidth_bytes_per_s": 1e6},
        {"gflops": 0.0},
        {"memory_bandwidth_bytes_per_s": 1e9},
        {"wait_feedback_s": 0.1, "wait_feedback_age_s": 1.0},
        {"wait_gossip_s": 0.1, "wait_gossip_age_s": 1.0},
        {"wait_long_s": 0.1},
        {"log_slowness": 1.0, "slowness_age_s": 1.0},
        {"log_slowness_long": 1.0},
        {"in_flight": 1},
        {"memory_pressure": 0.9},
        {"failures": 3, "uptime_s": 100.0},
        {"suspected_age_s": 5.0},
    ],
    ids=lambda worse: next(iter(worse)),
)
def test_every_disadvantage_counts(worse: dict[str, float]) -> None:
    assert seconds(replace(PEER, **worse)) > seconds(PEER)  # type: ignore[arg-type]


def test_a_pledge_below_its_limit_costs_nothing() -> None:
    assert seconds(replace(PEER, memory_pressure=0.8)) == seconds(PEER)


@given(age_s=st.floats(0, 1e6), fresh_s=st.floats(0, 10), long_s=st.floats(0, 10))
def test_a_wait_fades_from_feedback_to_the_long_term_mean(
    age_s: float, fresh_s: float, long_s: float
) -> None:
    peer = replace(PEER, wait_feedback_s=fresh_s, wait_feedback_age_s=age_s, wait_long_s=long_s)
    assert min(fresh_s, long_s) - 1e-9 <= peer.wait_s <= max(fresh_s, long_s) + 1e-9
    assert replace(peer, wait_feedback_age_s=0.0).wait_s == pytest.approx(fresh_s)
    assert replace(peer, wait_feedback_age_s=math.inf).wait_s == pytest.approx(long_s)


def test_gossip_counts_where_feedback_is_old() -> None:
    peer = replace(PEER, wait_gossip_s=0.4, wait_gossip_age_s=0.0, wait_long_s=9.0)
    assert peer.wait_s == pytest.approx(0.4)


def test_failures_make_a_peer_less_likely_until_certain() -> None:
    assert replace(PEER, failures=10**6).failure_probability == 1.0
    assert replace(PEER, failures=5, uptime_s=1e5).failure_probability < PEER.failure_probability
