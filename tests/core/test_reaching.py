"""What observations of a NAT mean, whom it lets through, and the words for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sedmad.core.reaching.behaviour import (
    Admission,
    Behaviour,
    Dependence,
    Sighting,
    behaviour_of,
    filtering_of,
    mapping_of,
    presumed,
)
from sedmad.core.reaching.pairs import punch_works
from sedmad.core.reaching.sentence import Reach, Surroundings, meaning_of

ANY, ADDRESS, PORT = (
    Dependence.ENDPOINT_INDEPENDENT,
    Dependence.ADDRESS,
    Dependence.ADDRESS_AND_PORT,
)
UNKNOWN, BLOCKED = Dependence.UNKNOWN, Dependence.BLOCKED
KINDS = {
    "full cone": Behaviour(ANY, ANY),
    "restricted": Behaviour(ANY, ADDRESS),
    "port restricted": Behaviour(ANY, PORT),
    "symmetric": Behaviour(PORT, PORT),
}
behaviours = st.builds(Behaviour, st.sampled_from(Dependence), st.sampled_from(Dependence))


def seen(*sightings: tuple[str, int, int]) -> list[Sighting]:
    """Return sightings of (server's host, its port, our external port)."""
    return [Sighting((host, port), ("192.0.2.7", mapped)) for host, port, mapped in sightings]


@pytest.mark.parametrize(
    ("sightings", "mapping"),
    [
        ((), UNKNOWN),
        ((("a", 1, 7),), UNKNOWN),
        ((("a", 1, 7), ("a", 2, 7)), UNKNOWN),
        ((("a", 1, 7), ("b", 1, 7)), ANY),
        ((("a", 1, 7), ("a", 2, 7), ("b", 1, 7), ("b", 2, 7)), ANY),
        ((("a", 1, 7), ("a", 2, 7), ("b", 1, 8), ("b", 2, 8)), ADDRESS),
        ((("a", 1, 7), ("a", 2, 7), ("b", 1, 8)), ADDRESS),
        ((("a", 1, 7), ("a", 2, 8)), PORT),
        ((("a", 1, 7), ("a", 2, 8), ("b", 1, 9)), PORT),
        # Which of the two cannot be told.
        ((("a", 1, 7), ("b", 1, 8)), PORT),
    ],
)
def test_a_mapping_is_named_by_what_servers_see(
    sightings: tuple[tuple[str, int, int], ...], mapping: Dependence
) -> None:
    assert mapping_of(seen(*sightings)) is mapping
    assert mapping_of(seen(*reversed(sightings))) is mapping


def test_a_host_that_changes_is_another_mapping_too() -> None:
    sightings = [Sighting(("a", 1), ("192.0.2.7", 7)), Sighting(("b", 1), ("192.0.2.8", 7))]
    assert mapping_of(sightings) is PORT


@pytest.mark.parametrize(
    ("other_port", "other_address", "filtering"),
    [
        (True, True, ANY),
        # The packet was lost: who admits strangers admits acquaintances.
        (False, True, ANY),
        (True, False, ADDRESS),
        (False, False, PORT),
        (None, None, UNKNOWN),
        (None, False, UNKNOWN),
        (True, None, UNKNOWN),
    ],
)
def test_a_filter_is_named_by_who_comes_in(
    other_port: bool | None, other_address: bool | None, filtering: Dependence
) -> None:
    assert filtering_of(Admission(other_port, other_address)) is filtering


def test_silence_means_blocked_only_where_something_else_passes() -> None:
    assert behaviour_of([], Admission(), silent=True, others_answer=True) == Behaviour(BLOCKED, BLOCKED)
    assert behaviour_of([], Admission(), silent=True, others_answer=False) == Behaviour(UNKNOWN, UNKNOWN)
    assert behaviour_of([], Admission(), silent=False, others_answer=True) == Behaviour(UNKNOWN, UNKNOWN)


def test_what_is_not_known_of_tcp_is_taken_from_udp_unless_that_is_blocked() -> None:
    assert presumed(Behaviour(ANY, UNKNOWN), Behaviour(PORT, ADDRESS)) == Behaviour(ANY, ADDRESS)
    blocked = Behaviour(BLOCKED, BLOCKED)
    assert presumed(Behaviour(ANY, UNKNOWN), blocked) == Behaviour(ANY, UNKNOWN)


@pytest.mark.parametrize("one", KINDS)
@pytest.mark.parametrize("other", KINDS)
def test_who_can_be_punched_with_whom(one: str, other: str) -> None:
    """What was measured with real NATs: only a symmetric one fails, with a port-restricted or another symmetric one."""
    strict = {"port restricted", "symmetric"}
    fails = "symmetric" in (one, other) and {one, other} <= strict
    assert punch_works(KINDS[one], KINDS[other]) is not fails


def test_too_little_is_known_to_tell_only_where_it_matters() -> None:
    assert punch_works(Behaviour(ANY, UNKNOWN), KINDS["port restricted"]) is True
    assert punch_works(Behaviour(ANY, UNKNOWN), KINDS["symmetric"]) is None
    assert punch_works(Behaviour(), KINDS["full cone"]) is True
    assert punch_works(Behaviour(), Behaviour()) is None
    assert punch_works(Behaviour(BLOCKED, BLOCKED), Behaviour()) is False


@given(behaviours, behaviours)
def test_a_punch_does_not_depend_on_who_asks(one: Behaviour, other: Behaviour) -> None:
    assert punch_works(one, other) is punch_works(other, one)


@given(behaviours, behaviours)
def test_a_less_strict_filter_never_hurts(one: Behaviour, other: Behaviour) -> None:
    if punch_works(one, other) and one.filtering is not BLOCKED:
        assert punch_works(Behaviour(one.mapping, ANY), other)


@pytest.mark.parametrize(
    ("surroundings", "reach", "word", "has_advice"),
    [
        (Surroundings(Behaviour(), Behaviour(), 0, 0), Reach.UNKNOWN, "Nobody is known", True),
        (Surroundings(Behaviour(), Behaviour(), 2, 0), Reach.OFFLINE, "cut off", True),
        (Surroundings(Behaviour(), Behaviour(), 1, 1), Reach.UNKNOWN, "No server told", True),
        (
            Surroundings(KINDS["full cone"], Behaviour(ANY), 1, 1, is_translated=False),
            Reach.DIALLED,
            "public address",
            False,
        ),
        (
            Surroundings(KINDS["port restricted"], Behaviour(ANY), 1, 1, is_translated=False),
            Reach.PUNCHED,
            "firewall that admits answers only",
            True,
        ),
        (Surroundings(Behaviour(), Behaviour(), 1, 1, is_translated=False), Reach.DIALLED, "unless", False),
        (
            Surroundings(
                KINDS["symmetric"], Behaviour(PORT), 1, 1, is_translated=True, mapped_address="45.80.1.21"
            ),
            Reach.DIALLED,
            "at 45.80.1.21",
            False,
        ),
        (
            Surroundings(KINDS["restricted"], Behaviour(ANY), 1, 1, is_translated=True),
            Reach.PUNCHED,
            "from everywhere",
            False,
        ),
        (
            Surroundings(KINDS["port restricted"], Behaviour(ANY), 1, 1, is_translated=True),
            Reach.PUNCHED,
            "except those",
            True,
        ),
        (
            Surroundings(KINDS["symmetric"], Behaviour(PORT), 1, 1, is_translated=True),
            Reach.RELAYED,
            "(symmetric)",
            True,
        ),
        (
            Surroundings(Behaviour(BLOCKED, BLOCKED), Behaviour(ANY), 1, 1, is_translated=True),
            Reach.PUNCHED,
            "UDP is blocked",
            True,
        ),
        (Surroundings(Behaviour(), Behaviour(), 1, 1, is_translated=True), Reach.UNKNOWN, "not known", True),
    ],
)
def test_what_it_means_is_said_in_plain_words(
    surroundings: Surroundings, reach: Reach, word: str, has_advice: bool
) -> None:
    meaning = meaning_of(surroundings)
    assert meaning.reach is reach
    assert word in meaning.sentence
    assert bool(meaning.advice) is has_advice


def test_a_second_nat_is_not_helped_by_the_router() -> None:
    behind_two = Surroundings(
        KINDS["symmetric"], Behaviour(PORT), 1, 1, is_translated=True, mapped_address=""
    )
    assert "second NAT" in meaning_of(behind_two).advice
