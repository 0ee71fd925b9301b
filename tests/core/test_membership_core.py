"""One membership core, message by message."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sedmad.core.membership import (
    LAN,
    Advert,
    Claim,
    ClaimChanged,
    ClockSkewed,
    Digests,
    Gossip,
    IndirectAnswer,
    IndirectProbe,
    Inventory,
    Membership,
    MembershipSettings,
    Message,
    OwnAdvertSurpassed,
    PeerJoined,
    PeerSuspected,
    Probe,
    ProbeAnswer,
    Record,
    Rumour,
    SignedRecord,
    first_sequence,
)
from sedmad.core.membership.advert import MAX_SEQUENCE
from sedmad.errors import LocalError, StaleManifest
from sedmad.testing.wire_stand_in import Meter, sign, size_of


def make(
    peer_id: str = "m",
    *,
    known: Iterable[SignedRecord] = (),
    settings: MembershipSettings = LAN,
    boot_counter: int = 1,
) -> Membership:
    return Membership(
        Advert(peer_id, peer_id, first_sequence(boot_counter), state="ready"),
        sign=sign,
        size_of=size_of,
        rng=random.Random(1),
        now=0.0,
        settings=settings,
        known=known,
    )


def signed(record: Record) -> SignedRecord:
    return SignedRecord(record, sign(record))


def advert(peer_id: str, sequence: int = 1, wall_time_s: float = 0.0) -> SignedRecord:
    return signed(Advert(peer_id, peer_id, sequence, wall_time_s=wall_time_s))


def acquaint(core: Membership, *peer_ids: str, now: float = 0.0) -> None:
    core.receive(peer_ids[0], Gossip(tuple(advert(peer_id) for peer_id in peer_ids)), now)
    core.collect()


def run_until(core: Membership, until: float) -> list[tuple[float, str, Message]]:
    """Let time pass without any answer; return what was sent, with times."""
    sent = []
    while (timeout := core.next_timeout()) is not None and timeout <= until:
        core.handle_timeout(timeout)
        sent += [(timeout, receiver, message) for receiver, message in core.collect().messages]
    return sent


def only(core: Membership, kind: type[Message]) -> list[tuple[str, Message]]:
    return [(receiver, message) for receiver, message in core.collect().messages if isinstance(message, kind)]


def test_a_stranger_is_answered_and_becomes_a_member_only_by_its_advert() -> None:
    core = make()
    core.receive("x", Probe(7), 0.0)
    [(receiver, answer)] = only(core, ProbeAnswer)
    assert receiver == "x"
    assert answer.probe_id == 7
    assert [record.record.peer_id for record in answer.records] == ["m"]
    assert core.peers() == []
    core.receive("x", Probe(8, (advert("x"),)), 0.0)
    assert [event for event in core.collect().events if isinstance(event, PeerJoined)]
    assert [row.peer_id for row in core.peers()] == ["x"]


def test_the_lower_id_probes_every_second_and_the_other_only_when_that_stops() -> None:
    lower, higher = make("a"), make("z")
    acquaint(lower, "m")
    acquaint(higher, "m")
    probes = [time for time, receiver, message in run_until(lower, 1.2) if isinstance(message, Probe)]
    assert len(probes) >= 1
    for second in range(10):
        higher.receive("m", Probe(second), float(second))
        sent = run_until(higher, second + 0.99)
        assert not any(isinstance(message, Probe) for _, _, message in sent)
    silence = [time for time, _, message in run_until(higher, 12.0) if isinstance(message, Probe)]
    assert silence[0] == pytest.approx(11.0)


def test_a_missing_answer_is_sought_through_others_before_anybody_is_suspected() -> None:
    core = make("a")
    acquaint(core, "b", "c", "d", "e", "f")
    core.link_up("b", 0.0)
    sent = run_until(core, 0.6)
    [probe] = [message for time, receiver, message in sent if receiver == "b" and isinstance(message, Probe)]
    asked = [(receiver, message) for time, receiver, message in sent if isinstance(message, IndirectProbe)]
    about_b = [receiver for receiver, message in asked if message.target == "b"]
    assert len(about_b) == LAN.indirect_probes
    assert {row.state for row in core.peers()} == {"alive"}
    core.receive(about_b[0], IndirectAnswer(probe.probe_id, "b", reached=True), 0.7)
    run_until(core, 1.0)
    assert next(row.state for row in core.peers() if row.peer_id == "b") == "alive"


def test_a_failed_probe_is_told_at_once() -> None:
    core = make("a")
    acquaint(core, "b", "c")
    core.link_up("b", 0.0)
    sent = run_until(core, 1.01)
    rumours = [(receiver, message.rumours) for _, receiver, message in sent if isinstance(message, Gossip)]
    assert any(rumour == Rumour("suspect", "b", 1, "a") for _, told in rumours for rumour in told)


def test_a_new_link_is_probed_at_once_whatever_went_into_the_old_one() -> None:
    core = make("a")
    acquaint(core, "b", "c")
    core.link_down("b", 0.0)
    assert "b" in [receiver for _, receiver, message in run_until(core, 0.1) if isinstance(message, Probe)]
    core.link_up("b", 0.2)
    [probe] = [message for _, to, message in run_until(core, 0.2) if to == "b" and isinstance(message, Probe)]
    core.receive("b", ProbeAnswer(probe.probe_id), 0.21)
    # Nobody waits for an answer to the first one.
    run_until(core, 1.1)
    assert next(row.state for row in core.peers() if row.peer_id == "b") == "alive"


def test_a_helper_probes_and_reports_either_way() -> None:
    core = make("m")
    acquaint(core, "x", "y")
    core.receive("x", IndirectProbe(5, "y"), 0.0)
    [(receiver, probe)] = only(core, Probe)
    assert receiver == "y"
    core.receive("y", ProbeAnswer(probe.probe_id), 0.1)
    assert only(core, IndirectAnswer) == [("x", IndirectAnswer(5, "y", reached=True))]
    core.receive("x", IndirectProbe(6, "y"), 0.2)
    sent = run_until(core, 0.7)
    assert ("x", IndirectAnswer(6, "y", reached=False)) in [(to, message) for _, to, message in sent]


def test_an_accused_node_refutes_in_the_very_answer() -> None:
    core = make("m")
    acquaint(core, "x")
    run_until(core, 5.0)
    before = core.advert.sequence
    core.receive("x", Probe(1, (), (Rumour("suspect", "m", before, "x"),)), 5.0)
    [(_, answer)] = only(core, ProbeAnswer)
    [told] = [record.record for record in answer.records if record.record.peer_id == "m"]
    assert told.sequence == core.advert.sequence > before


def test_one_who_holds_an_outdated_suspicion_gets_the_newer_advert_again() -> None:
    core = make("m")
    acquaint(core, "x")
    core.update_advert({"state": "draining"}, 0.5)
    run_until(core, 1.0)
    sequence = core.advert.sequence
    core.receive("x", Probe(1), 1.0)
    core.receive("x", Probe(2), 1.0)
    assert [len(answer.records) for _, answer in only(core, ProbeAnswer)] == [1, 0]
    core.receive("x", Probe(3, (), (Rumour("suspect", "m", sequence - 1, "y"),)), 1.0)
    [(_, answer)] = only(core, ProbeAnswer)
    assert core.advert.sequence == sequence
    assert sequence in [record.record.sequence for record in answer.records]


def test_an_invented_sequence_cannot_be_held_against_anybody() -> None:
    core = make("m")
    acquaint(core, "x", "y")
    far = (1 << 63) - 1
    accusations = (Rumour("dead", "m", far, "x"), Rumour("dead", "y", far, "x"))
    core.receive("x", Gossip(rumours=accusations), 1.0)
    run_until(core, 1.5)
    assert core.advert.sequence < far
    assert {row.peer_id: row.state for row in core.peers()}["y"] == "alive"


def test_links_are_hints() -> None:
    core = make("m")
    acquaint(core, "x", "y")
    core.link_down("x", 1.0)
    assert PeerSuspected("x", "m") in core.collect().events
    sent = [item for item in run_until(core, 1.0) if item[0] == 1.0]
    assert "x" in [receiver for _, receiver, message in sent if isinstance(message, Probe)]
    assert [receiver for _, receiver, message in sent if isinstance(message, IndirectProbe)] == ["y"]
    assert not any(message.rumours for _, _, message in sent if isinstance(message, Probe | Gossip))
    core.receive("x", Probe(1), 1.1)
    assert {row.state for row in core.peers()} == {"alive"}


def test_the_round_trip_time_is_measured_and_shared() -> None:
    prober, other = make("a"), make("b")
    acquaint(prober, "b")
    acquaint(other, "a")
    for second in range(2):
        [(now, _, probe)] = [item for item in run_until(prober, second + 1.0) if isinstance(item[2], Probe)]
        other.receive("a", probe, now)
        [(_, answer)] = only(other, ProbeAnswer)
        prober.receive("b", answer, now + 0.02)
    assert prober.peers()[0].rtt_s == pytest.approx(0.02)
    assert other.peers()[0].rtt_s == pytest.approx(0.02)


def test_answers_that_fit_no_probe_change_nothing() -> None:
    core = make("a")
    acquaint(core, "b")
    core.receive("b", ProbeAnswer(123), 0.1)
    core.receive("b", IndirectAnswer(123, "b", reached=True), 0.1)
    assert core.peers()[0].rtt_s is None


def test_a_sleeper_blames_nobody() -> None:
    core = make("a")
    acquaint(core, "b", "c")
    sent = run_until(core, 0.99)
    assert {receiver for _, receiver, message in sent if isinstance(message, Probe)} == {"b", "c"}
    core.handle_timeout(60.0)
    assert {row.state for row in core.peers()} == {"alive"}
    core.receive("b", Gossip(rumours=(Rumour("suspect", "c", 1, "b"),)), 60.0)
    core.receive("b", Probe(1), 120.0)
    core.handle_timeout(120.0)
    assert {row.peer_id: row.state for row in core.peers()} == {"b": "alive", "c": "suspect"}


def test_the_dead_are_probed_now_and_then_and_told_so() -> None:
    core = make("a")
    acquaint(core, "b")
    core.receive("c", Gossip(rumours=(Rumour("dead", "b", 1, "c"),)), 0.0)
    sent = run_until(core, 60.0)
    probes = [message for _, receiver, message in sent if receiver == "b" and isinstance(message, Probe)]
    assert 10 <= len(probes) <= 14
    assert all(Rumour("dead", "b", 1, "a") in probe.rumours for probe in probes)
    assert all(core.advert.peer_id in [record.record.peer_id for record in probe.records] for probe in probes)
    core.receive("b", Probe(1, (advert("b", 2),)), 60.0)
    assert [row.state for row in core.peers()] == ["alive"]


def test_material_changes_are_told_within_a_second_and_others_with_the_next_advert() -> None:
    core = make("m")
    first = core.advert.sequence
    core.update_advert({"queue_s": 0.001}, 2.0)
    run_until(core, 2.0)
    assert core.advert.sequence == first
    core.update_advert({"state": "draining"}, 3.0)
    run_until(core, 3.0)
    assert (core.advert.sequence, core.advert.state) == (first + 1, "draining")
    core.update_advert({"state": "ready"}, 3.1)
    run_until(core, 3.5)
    assert core.advert.state == "draining"
    run_until(core, 4.0)
    assert core.advert.state == "ready"
    run_until(core, 15.0)
    assert core.advert.sequence == first + 3
    with pytest.raises(LocalError):
        core.update_advert({"sequence": 1}, 15.0)


def test_an_own_advert_from_elsewhere_is_reported_and_passed_once_in_a_while() -> None:
    core = make("m")
    acquaint(core, "x")
    for sequence in (1 << 40, 1 << 41):
        core.receive("x", Gossip((advert("m", sequence),)), 1.0)
    events = [event for event in core.collect().events if isinstance(event, OwnAdvertSurpassed)]
    assert events == [OwnAdvertSurpassed(1 << 40)]
    run_until(core, 2.0)
    assert core.advert.sequence == (1 << 40) + 1


def test_a_node_that_forgot_how_far_it_counted_comes_back_from_the_dead() -> None:
    core = make("m")
    acquaint(core, "x")
    forgotten = core.advert.sequence + 1000
    core.receive("x", Gossip(rumours=(Rumour("dead", "m", forgotten, "x"),)), 1.0)
    events = [event for event in core.collect().events if isinstance(event, OwnAdvertSurpassed)]
    assert events == [OwnAdvertSurpassed(forgotten)]
    sent = run_until(core, 2.0)
    assert core.advert.sequence == forgotten + 1
    told = [record for _, _, message in sent for record in getattr(message, "records", ())]
    assert core.advert in [record.record for record in told]


def test_an_absurd_rumour_does_not_use_sequences_up() -> None:
    core = make("m")
    acquaint(core, "x")
    first = core.advert.sequence
    core.receive("x", Gossip(rumours=(Rumour("dead", "m", MAX_SEQUENCE, "x"),)), 1.0)
    run_until(core, 2.0)
    assert core.advert.sequence == first


def test_wrong_clocks_are_reported_once() -> None:
    core = make("m")
    core.receive("x", Gossip((advert("x", 1, wall_time_s=3_600.0),)), 0.0)
    core.receive("x", Gossip((advert("x", 2, wall_time_s=3_601.0),)), 1.0)
    core.receive("x", Gossip((advert("y", 1, wall_time_s=-3_600.0),)), 1.0)
    skews = [event for event in core.collect().events if isinstance(event, ClockSkewed)]
    assert skews == [ClockSkewed("x", 3_600.0)]


def test_claims_are_published_by_their_owner_and_in_order() -> None:
    core = make("m")
    acquaint(core, "x")
    claim = core.directory.next_version(Claim("w", 0, bytes(32), "m", "m"))
    core.publish_claim(claim, 0.0)
    assert [event.name for event in core.collect().events if isinstance(event, ClaimChanged)] == ["w"]
    core.publish_claim(claim, 0.1)
    assert core.collect().events == ()
    core.publish_claim(claim.tombstone(1.0), 0.2)
    with pytest.raises(StaleManifest, match="'w'"):
        core.publish_claim(claim, 0.3)
    with pytest.raises(LocalError):
        core.publish_claim(Claim("v", 1, bytes(32), "x", "x"), 0.3)


def test_what_was_known_is_known_after_a_restart() -> None:
    core = make("m")
    acquaint(core, "x", "y")
    core.receive("x", Gossip(rumours=(Rumour("dead", "y", 1, "x"),)), 0.0)
    core.receive("x", Gossip((signed(Claim("w", 1, bytes(32), "x", "x")),)), 0.0)
    again = make("m", known=core.known_records(), boot_counter=2)
    assert {row.peer_id: row.state for row in again.peers()} == {"x": "suspect"}
    assert again.directory.get("w") is not None
    assert again.advert.sequence > core.advert.sequence
    again.receive("x", Probe(1), 0.5)
    assert {row.state for row in again.peers()} == {"alive"}


def test_repairs_are_paged_and_not_told_on() -> None:
    core = make("m")
    acquaint(core, "x", "y")
    for number in range(600):
        claim = signed(Claim(f"w{number}", 1, bytes(32), "x", "x"))
        core.receive("x", Gossip((claim,), repair=True), 0.0)
    core.receive("y", Inventory(16, tuple(range(16)), ()), 0.0)
    sent = run_until(core, 20.0)
    pages = [message for _, receiver, message in sent if isinstance(message, Gossip) and message.repair]
    assert len(pages) > 3
    assert max(size_of(page) for page in pages) <= LAN.message_bytes_maximum
    told = [
        record.record.name for page in pages for record in page.records if isinstance(record.record, Claim)
    ]
    assert sorted(told) == sorted(f"w{number}" for number in range(600))
    for _, _, message in sent:
        if isinstance(message, Probe | ProbeAnswer) or (isinstance(message, Gossip) and not message.repair):
            assert not any(isinstance(record.record, Claim) for record in message.records)


peer_ids = st.sampled_from(["a", "b", "m", "x", "z"])
probe_ids = st.integers(0, 3)
keys = st.integers(0, (1 << 64) - 1)
rumours = st.builds(
    Rumour,
    kind=st.sampled_from(["suspect", "dead"]),
    peer_id=peer_ids,
    sequence=st.sampled_from([0, 1, 2, (1 << 32) + 1, (1 << 32) + 2]),
    by=peer_ids,
)
records = st.one_of(
    st.builds(advert, peer_ids, st.integers(0, 3), st.floats(-1e9, 1e9)),
    st.builds(
        lambda name, version, owner: signed(Claim(name, version, bytes(32), owner, owner)),
        st.sampled_from(["w", "v"]),
        st.integers(0, 3),
        peer_ids,
    ),
)
told = st.tuples(st.lists(records, max_size=4).map(tuple), st.lists(rumours, max_size=4).map(tuple))
messages = st.one_of(
    st.builds(lambda probe_id, news, rtt_s: Probe(probe_id, *news, rtt_s), probe_ids, told, st.floats()),
    st.builds(lambda probe_id, news: ProbeAnswer(probe_id, *news), probe_ids, told),
    st.builds(IndirectProbe, probe_ids, peer_ids),
    st.builds(IndirectAnswer, probe_ids, peer_ids, st.booleans()),
    st.builds(
        lambda news, wanted, repair: Gossip(*news, tuple(wanted), repair),
        told,
        st.lists(keys, max_size=3),
        st.booleans(),
    ),
    st.builds(Digests, st.lists(keys, max_size=20).map(tuple)),
    st.builds(Digests, st.lists(keys, min_size=16, max_size=16).map(tuple)),
    st.builds(
        Inventory,
        st.sampled_from([0, 16, 256]),
        st.lists(st.integers(-1, 300), max_size=20).map(tuple),
        st.lists(st.tuples(keys, keys), max_size=5).map(tuple),
    ),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["a", "b", "x", "z"]), messages),
        st.floats(0.0, 30.0),
        st.tuples(st.sampled_from(["up", "down"]), peer_ids),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_whatever_peers_send_the_core_keeps_its_promises(script: list[object]) -> None:
    core, now = make("m"), 0.0
    meter = Meter(LAN.bytes_per_second)
    sequence = core.advert.sequence

    def check(at: float) -> None:
        for receiver, message in core.collect().messages:
            assert receiver != "m"
            assert size_of(message) <= LAN.message_bytes_maximum
            assert meter.add(size_of(message), at)
        assert core.advert.sequence >= sequence
        assert "m" not in [row.peer_id for row in core.peers()]

    for step in script:
        if isinstance(step, float):
            end = now + step
            while (timeout := core.next_timeout()) is not None and timeout <= end:
                now = max(now, timeout)
                core.handle_timeout(now)
                check(now)
                following = core.next_timeout()
                assert following is None or following > now or following >= timeout
            now = end
        elif isinstance(step, tuple) and step[0] in ("up", "down"):
            hint = core.link_up if step[0] == "up" else core.link_down
            hint(step[1], now)
        elif isinstance(step, tuple):
            core.receive(step[0], step[1], now)
        check(now)
        sequence = core.advert.sequence
