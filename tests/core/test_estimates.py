from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sedmad.core.estimates import BULK_BYTES, PEERS_MAX, DecayingMean, Estimates
from sedmad.core.partitioning import Partitioning
from sedmad.core.prediction import PeerEstimate, Work

WORK = Work.of(Partitioning(4096, 4096, 4), 1)
SERVICE_S = WORK.service_s(80.0, 1e10)


def known(now: float = 0.0) -> Estimates:
    estimates = Estimates("own")
    for peer_id in ("a", "own"):
        estimates.advertised(
            peer_id,
            gflops=80.0,
            memory_bandwidth_bytes_per_s=1e10,
            wait_s=0.0,
            memory_pressure=0.0,
            now=now,
            name=peer_id.upper(),
        )
    return estimates


def answer(
    estimates: Estimates,
    now: float,
    *,
    peer_id: str = "a",
    work: Work = WORK,
    partitions: int = 1,
    path_s: float = 0.01,
    wait_s: float = 0.0,
    service_s: float | None = None,
) -> None:
    """One product sent to a peer and answered."""
    service_s = partitions * SERVICE_S if service_s is None else service_s
    estimates.sent(peer_id, now)
    estimates.observe(
        peer_id,
        work,
        partitions,
        elapsed_s=path_s + wait_s + service_s,
        wait_s=wait_s,
        service_s=service_s,
        now=now,
    )


def get(estimates: Estimates, now: float, peer_id: str = "a") -> PeerEstimate:
    found = estimates.estimate(peer_id, now)
    assert found is not None
    return found


def test_nothing_is_known_of_strangers() -> None:
    assert Estimates("own").estimate("a", 0.0) is None
    assert Estimates("own").estimates(["a"], 0.0) == {}


def test_an_advert_is_taken_over() -> None:
    found = get(known(now=10.0), 15.0)
    assert (found.name, found.gflops, found.memory_bandwidth_bytes_per_s) == ("A", 80.0, 1e10)
    assert (found.own, found.wait_gossip_age_s, found.uptime_s) == (False, 5.0, 5.0)
    assert get(known(), 0.0, "own").own


def test_slowness_is_learned_within_seconds_and_fades() -> None:
    estimates = known()
    for second in range(60):
        answer(estimates, float(second), partitions=3, service_s=3 * SERVICE_S)
    assert get(estimates, 60.0).slowness == pytest.approx(1.0)
    for second in range(60, 120):
        answer(estimates, float(second), service_s=4 * SERVICE_S)
    assert get(estimates, 120.0).slowness > 3.0
    later = get(estimates, 1000.0).slowness
    assert 1.3 < later < 3.0, "it fades to what was usual, which is neither the last minute nor nothing"


def test_one_absurd_answer_does_not_rule() -> None:
    estimates = known()
    for second in range(100):
        answer(estimates, second / 10)
    answer(estimates, 10.0, service_s=3000.0)
    assert get(estimates, 10.0).slowness < 1.2


def test_waits_fade_to_the_long_term_mean_not_to_zero() -> None:
    estimates = known()
    for second in range(100):
        answer(estimates, float(second), wait_s=0.1)
    answer(estimates, 100.0, wait_s=2.0)
    assert get(estimates, 100.0).wait_s > 0.3
    assert get(estimates, 160.0).wait_s == pytest.approx(0.12, abs=0.02)


def test_round_trips_are_learned_from_small_answers_and_heartbeats() -> None:
    estimates = known()
    estimates.rtt_measured("a", 0.3, 0.0)
    assert get(estimates, 0.0).rtt_s == 0.3
    for second in range(60):
        answer(estimates, float(second), path_s=0.05, wait_s=0.2)
    # What X and Y take at the bandwidth assumed so far is no part of the round trip.
    moved_s = (WORK.shared_bytes + WORK.answer_bytes) / get(estimates, 60.0).bandwidth_bytes_per_s
    assert get(estimates, 60.0).rtt_s == pytest.approx(0.05 - moved_s, rel=0.02)


def test_bandwidth_is_learned_from_large_answers() -> None:
    estimates = known()
    estimates.rtt_measured("a", 0.01, 0.0)
    wide = Work.of(Partitioning(4096, 4096, 4), 64)
    moved = wide.shared_bytes + wide.answer_bytes
    assert moved > BULK_BYTES
    for second in range(60):
        answer(estimates, float(second), work=wide, path_s=0.01 + moved / 5e8)
    found = get(estimates, 60.0)
    assert found.bandwidth_bytes_per_s == pytest.approx(5e8, rel=0.02)
    assert found.rtt_s == 0.01


def test_what_is_in_flight_is_counted() -> None:
    estimates = known()
    for _ in range(3):
        estimates.sent("a", 0.0)
    assert get(estimates, 0.0).in_flight == 3
    estimates.failed("a", 1.0)
    estimates.withdrawn("a", 1.0)
    answer(estimates, 1.0)
    found = get(estimates, 1.0)
    assert (found.in_flight, found.failures) == (1, 1)
    estimates.withdrawn("a", 2.0)
    estimates.withdrawn("a", 2.0)
    assert get(estimates, 2.0).in_flight == 0


def test_a_suspicion_is_remembered_after_it_was_lifted() -> None:
    estimates = known()
    estimates.state_changed("a", "suspect", 10.0)
    estimates.state_changed("a", "alive", 12.0)
    found = get(estimates, 15.0)
    assert (found.state, found.suspected_age_s) == ("alive", 5.0)


def test_the_peers_remembered_are_bounded() -> None:
    estimates = known()
    for index in range(PEERS_MAX):
        estimates.sent(f"p{index}", 0.0)
        estimates.sent("own", 0.0)
    assert len(estimates) == PEERS_MAX
    assert estimates.estimate("a", 0.0) is None
    assert get(estimates, 0.0, "own").in_flight == PEERS_MAX
    estimates.forget("own")
    assert estimates.estimate("own", 0.0) is None


anything = st.floats(allow_nan=True, allow_infinity=True)


@given(reports=st.lists(st.tuples(anything, anything, anything, st.floats(0, 1e6)), max_size=20))
def test_whatever_a_peer_reports_predictions_stay_finite(
    reports: list[tuple[float, float, float, float]],
) -> None:
    estimates = known()
    now = 0.0
    for wait_s, service_s, pressure, passed_s in reports:
        now += passed_s
        estimates.advertised(
            "a",
            gflops=pressure,
            memory_bandwidth_bytes_per_s=wait_s,
            wait_s=service_s,
            memory_pressure=pressure,
            now=now,
        )
        estimates.observe(
            "a", WORK, 2, elapsed_s=0.1, wait_s=wait_s, service_s=service_s, memory_pressure=pressure, now=now
        )
    found = get(estimates, now)
    assert math.isfinite(found.predict(WORK).seconds(3))
    assert found.predict(WORK).seconds(3) >= 0


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(0, 1e4)), min_size=1, max_size=50))
def test_a_decaying_mean_lies_among_its_samples(samples: list[tuple[float, float]]) -> None:
    mean = DecayingMean(5.0)
    now = 0.0
    for sample, passed_s in samples:
        now += passed_s
        mean.add(sample, now)
    values = [sample for sample, _ in samples]
    assert min(values) - 1e-6 <= mean.mean() <= max(values) + 1e-6
    assert mean.age_s(now + 3.0) == pytest.approx(3.0, abs=1e-6)
    assert abs(mean.shrunk(2.0, now)) <= abs(mean.mean())
