"""Who is held for alive, suspect or dead, and that the order of hearing makes no difference."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sedmad.core.membership import roster as roster_module
from sedmad.core.membership.advert import Advert
from sedmad.core.membership.events import (
    AdvertChanged,
    Event,
    PeerAlive,
    PeerDead,
    PeerForgotten,
    PeerJoined,
    PeerSuspected,
)
from sedmad.core.membership.record import SignedRecord
from sedmad.core.membership.roster import Roster, Verdict
from sedmad.core.membership.rumour import Rumour
from sedmad.core.membership.settings import LAN
from sedmad.testing.wire_stand_in import sign


def advert(peer_id: str, sequence: int = 1, name: str = "") -> SignedRecord:
    record = Advert(peer_id, name or peer_id, sequence)
    return SignedRecord(record, sign(record))


def make(*peer_ids: str) -> tuple[Roster, list[Event]]:
    events: list[Event] = []
    roster = Roster("me", LAN, events.append)
    for peer_id in peer_ids:
        roster.accept(advert(peer_id))
    events.clear()
    return roster, events


def state(roster: Roster, peer_id: str) -> str:
    member = roster.get(peer_id)
    assert member is not None
    return member.state


def suspect(peer_id: str, sequence: int = 1, by: str = "b") -> Rumour:
    return Rumour("suspect", peer_id, sequence, by)


def dead(peer_id: str, sequence: int = 1, by: str = "b") -> Rumour:
    return Rumour("dead", peer_id, sequence, by)


def test_a_life() -> None:
    roster, events = make()
    assert roster.accept(advert("x", 1)) is Verdict.JOINED
    assert roster.accept(advert("x", 1)) is Verdict.KNOWN
    assert roster.accept(advert("x", 2)) is Verdict.NEWER
    assert roster.accept(advert("x", 1)) is Verdict.OLDER
    assert roster.accuse(suspect("x", 2), now=0.0)
    assert roster.accept(advert("x", 3)) is Verdict.REFUTED
    assert roster.bury(dead("x", 3), now=1.0)
    assert roster.accept(advert("x", 3)) is Verdict.BURIED
    assert roster.accept(advert("x", 4)) is Verdict.RETURNED
    assert [type(event) for event in events] == [
        PeerJoined,
        AdvertChanged,
        PeerSuspected,
        PeerAlive,
        AdvertChanged,
        PeerDead,
        PeerAlive,
        AdvertChanged,
    ]


def test_rumours_count_against_exactly_the_advert_they_name() -> None:
    roster, events = make("x")
    roster.accept(advert("x", 5))
    events.clear()
    for sequence in (4, 6):
        assert not roster.accuse(suspect("x", sequence), 0.0)
        assert not roster.bury(dead("x", sequence), 0.0)
    assert not roster.accuse(suspect("stranger"), 0.0)
    assert not roster.bury(dead("stranger"), 0.0)
    assert events == []


def test_a_suspect_is_overdue_sooner_the_more_accuse_it() -> None:
    roster, _ = make("x", "b", "c", "d")
    roster.accuse(suspect("x", by="b"), now=0.0)
    assert roster.overdue(LAN.suspicion_minimum_s(5)) == []
    assert roster.accuse(suspect("x", by="c"), now=1.0)
    assert roster.accuse(suspect("x", by="d"), now=1.0)
    assert not roster.accuse(suspect("x", by="me"), now=1.0)
    assert roster.overdue(LAN.suspicion_minimum_s(5)) == [dead("x", by="me")]


def test_what_only_this_node_holds_against_a_peer_an_answer_clears() -> None:
    roster, _ = make("x", "b", "c", "d")
    roster.doubt("x")
    assert state(roster, "x") == "suspect"
    assert roster.last_word("x") is None
    roster.vouch("x")
    assert state(roster, "x") == "alive"
    roster.accuse(suspect("x", by="me"), 0.0)
    roster.vouch("x")
    assert state(roster, "x") == "alive"
    roster.accuse(suspect("x", by="me"), 0.0)
    roster.accuse(suspect("x", by="b"), 0.0)
    roster.vouch("x")
    assert state(roster, "x") == "suspect"


def test_the_dead_are_listed_for_a_while_and_then_not_brought_back() -> None:
    roster, events = make("x")
    roster.bury(dead("x", 1), now=10.0)
    roster.forget(10.0 + LAN.forget_dead_after_s - 1.0)
    assert roster.dead() == ["x"]
    roster.forget(10.0 + LAN.forget_dead_after_s)
    assert events[-1] == PeerForgotten("x")
    assert roster.get("x") is None
    assert roster.accept(advert("x", 1)) is Verdict.BURIED
    assert roster.last_word("x") == dead("x", 1, by="me")
    assert roster.accept(advert("x", 2)) is Verdict.JOINED


def test_known_from_disk_is_suspect_until_heard_of() -> None:
    roster, _ = make()
    assert roster.accept(advert("x", 7), unheard=True) is Verdict.JOINED
    assert state(roster, "x") == "suspect"
    assert roster.overdue(1e9) == []
    assert roster.accept(advert("x", 8)) is Verdict.RETURNED
    assert state(roster, "x") == "alive"


def test_the_number_of_members_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    roster, _ = make()
    monkeypatch.setattr(roster_module, "MAX_MEMBERS", 3)
    for peer_id in "abc":
        assert roster.accept(advert(peer_id)) is Verdict.JOINED
    assert roster.accept(advert("d")) is Verdict.REFUSED
    roster.bury(dead("b"), now=0.0)
    assert roster.accept(advert("d")) is Verdict.JOINED
    assert [peer_id for peer_id, _ in roster] == ["a", "c", "d"]


adverts = st.builds(advert, st.sampled_from("xyz"), st.integers(1, 3), st.sampled_from(["", "other"]))
rumours = st.builds(
    Rumour,
    kind=st.sampled_from(["suspect", "dead"]),
    peer_id=st.sampled_from("xyz"),
    sequence=st.integers(1, 3),
    by=st.sampled_from("bc"),
)


@given(st.lists(adverts), st.lists(rumours), st.randoms(use_true_random=False))
def test_order_makes_no_difference(told: list[SignedRecord], said: list[Rumour], rng: random.Random) -> None:
    def hear() -> dict[str, tuple[bytes, str]]:
        roster, _ = make()
        for signed in told:
            roster.accept(signed)
        for rumour in said:
            hear_of = roster.accuse if rumour.kind == "suspect" else roster.bury
            hear_of(rumour, 0.0)
        return {peer_id: (member.signed.signed, member.state) for peer_id, member in roster}

    before = hear()
    rng.shuffle(told)
    rng.shuffle(said)
    assert hear() == before


@given(st.lists(st.one_of(adverts, rumours)))
def test_sequences_never_go_back(heard: list[SignedRecord | Rumour]) -> None:
    roster, _ = make()
    newest: dict[str, int] = {}
    for item in heard:
        if isinstance(item, SignedRecord):
            roster.accept(item)
        elif item.kind == "suspect":
            roster.accuse(item, 0.0)
        else:
            roster.bury(item, 0.0)
        for peer_id, member in roster:
            assert member.advert.sequence >= newest.get(peer_id, 0)
            newest[peer_id] = member.advert.sequence


def test_two_adverts_of_one_sequence_settle_on_the_same() -> None:
    one, other = advert("x", 1, "one"), advert("x", 1, "other")
    rosters = [make()[0], make()[0]]
    for signed in (one, other):
        rosters[0].accept(signed)
    for signed in (other, one):
        rosters[1].accept(signed)
    assert rosters[0].get("x") == rosters[1].get("x")
