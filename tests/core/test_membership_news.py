"""Telling news, and finding what was missed."""

from __future__ import annotations

import random
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from sedmad.core.membership.advert import Advert
from sedmad.core.membership.anti_entropy import MAX_INVENTORY_ITEMS, RecordIndex
from sedmad.core.membership.claim import Claim
from sedmad.core.membership.messages import Digests, Inventory
from sedmad.core.membership.record import Record, SignedRecord
from sedmad.core.membership.rumour import Rumour
from sedmad.core.membership.spreading import MAX_NEWS, Spreading, Urgency
from sedmad.testing.wire_stand_in import sign, size_of

EVERYTHING = 1 << 20


def signed(record: Record) -> SignedRecord:
    return SignedRecord(record, sign(record))


def advert(peer_id: str, sequence: int = 1) -> SignedRecord:
    return signed(Advert(peer_id, peer_id, sequence))


def claim(name: str, version: int = 1) -> SignedRecord:
    return signed(Claim(name, version, bytes(32), "a", "a"))


def test_rumours_come_first_then_names_then_adverts() -> None:
    spreading = Spreading(size_of)
    rumour = Rumour("dead", "x", 1, "a")
    spreading.add(advert("b"), Urgency.ROUTINE)
    spreading.add(claim("w"), Urgency.NAME)
    spreading.add(rumour, Urgency.RUMOUR)
    assert spreading.take("c", EVERYTHING, times_maximum=4) == [rumour, claim("w"), advert("b")]


def test_nobody_is_told_twice_or_what_they_said() -> None:
    spreading = Spreading(size_of)
    spreading.add(claim("w"), Urgency.NAME, known_by={"b"})
    assert not spreading.urgent_for("b")
    assert spreading.take("b", EVERYTHING, 4) == []
    assert spreading.urgent_for("c")
    assert spreading.take("c", EVERYTHING, 4) == [claim("w")]
    assert spreading.take("c", EVERYTHING, 4) == []
    spreading.heard_from("d", claim("w"))
    assert spreading.take("d", EVERYTHING, 4) == []


def test_news_is_told_on_a_bounded_number_of_times() -> None:
    spreading = Spreading(size_of)
    spreading.add(claim("w"), Urgency.NAME)
    told = [peer for peer in "bcdefghij" if spreading.take(peer, EVERYTHING, times_maximum=4)]
    assert told == ["b", "c", "d", "e"]
    assert len(spreading) == 0


def test_newer_news_of_a_subject_takes_the_older_ones_place() -> None:
    spreading = Spreading(size_of)
    spreading.add(advert("b", 1), Urgency.ROUTINE)
    spreading.take("c", EVERYTHING, 4)
    spreading.add(advert("b", 2), Urgency.RUMOUR)
    assert spreading.take("c", EVERYTHING, 4) == [advert("b", 2)]


def test_a_refutation_ends_the_rumours() -> None:
    spreading = Spreading(size_of)
    for accuser in ("a", "b"):
        spreading.add(Rumour("suspect", "x", 1, accuser), Urgency.RUMOUR)
    spreading.add(Rumour("suspect", "y", 1, "a"), Urgency.RUMOUR)
    assert len(spreading) == 3
    spreading.settle("x", sequence=2)
    assert spreading.take("c", EVERYTHING, 4) == [Rumour("suspect", "y", 1, "a")]


def test_messages_are_filled_up_to_their_room() -> None:
    spreading = Spreading(size_of)
    names = [claim(f"w{number}") for number in range(10)]
    for news in names:
        spreading.add(news, Urgency.NAME)
    room = 3 * (size_of(names[0]) + 8)
    first = spreading.take("b", room, 4)
    second = spreading.take("b", room, 4)
    assert first == names[:3]
    assert second == names[3:6]


def test_what_everybody_knows_is_dropped() -> None:
    spreading = Spreading(size_of)
    spreading.add(claim("w"), Urgency.NAME, known_by={"b", "c"})
    spreading.drop_known_by_all({"b", "c", "d"})
    assert len(spreading) == 1
    spreading.drop_known_by_all({"b", "c"})
    assert len(spreading) == 0


def test_the_queue_is_bounded_and_gives_up_routine_first() -> None:
    spreading = Spreading(size_of)
    spreading.add(advert("routine"), Urgency.ROUTINE)
    for number in range(MAX_NEWS - 1):
        spreading.add(Rumour("dead", str(number), 1, "a"), Urgency.RUMOUR)
    assert len(spreading) == MAX_NEWS
    spreading.add(Rumour("dead", "last", 1, "a"), Urgency.RUMOUR)
    assert len(spreading) == MAX_NEWS
    assert advert("routine") not in spreading.take("b", EVERYTHING, 4)


def index_of(records: Iterable[SignedRecord]) -> RecordIndex:
    index = RecordIndex()
    for record in records:
        index.put(record)
    return index


def test_equal_content_has_equal_digests_whatever_the_order() -> None:
    records = [claim(f"w{number}") for number in range(40)]
    one, other = index_of(records), index_of([claim("w3", version=9), *reversed(records)])
    assert one.digests() == other.digests()
    other.put(claim("w3", version=9))
    assert one.digests() != other.digests()
    other.drop(("claim", "w3", "a"))
    other.put(claim("w3"))
    assert one.digests() == other.digests()
    assert one.differing(other.digests(), random.Random(1)) is None


def test_the_number_of_buckets_follows_the_number_of_records() -> None:
    assert len(index_of([]).digests().values) == 16
    assert len(index_of(claim(f"w{number}") for number in range(5_000)).digests().values) == 256


def exchange(here: dict[str, SignedRecord], there: dict[str, SignedRecord], seed: int) -> None:
    """One round of anti-entropy, as the membership core does it by messages."""
    ours, theirs = index_of(here.values()), index_of(there.values())
    inventory = theirs.differing(ours.digests(), random.Random(seed))
    if inventory is None:
        return
    offered, wanted = ours.compare(inventory)
    sent = [theirs.locate(key) for key in wanted]
    received = {locator[1]: there[locator[1]] for locator in sent if locator is not None}
    for locator in offered:
        merge(there, here[locator[1]])
    for record in received.values():
        merge(here, record)


def merge(known: dict[str, SignedRecord], record: SignedRecord) -> None:
    assert isinstance(record.record, Claim)
    name = record.record.name
    if name not in known or known[name].record.version < record.record.version:  # type: ignore[union-attr]
        known[name] = record


contents = st.dictionaries(
    st.integers(0, 60).map(lambda number: f"w{number}"), st.integers(1, 2), max_size=60
)


@given(contents, contents)
def test_one_round_makes_small_directories_equal(ours: dict[str, int], theirs: dict[str, int]) -> None:
    here = {name: claim(name, version) for name, version in ours.items()}
    there = {name: claim(name, version) for name, version in theirs.items()}
    exchange(here, there, seed=1)
    assert here == there


def test_large_differences_take_several_bounded_rounds() -> None:
    here: dict[str, SignedRecord] = {}
    there = {f"w{number}": claim(f"w{number}") for number in range(3 * MAX_INVENTORY_ITEMS)}
    rounds = 0
    while here != there:
        inventory = index_of(there.values()).differing(
            index_of(here.values()).digests(), random.Random(rounds)
        )
        assert inventory is not None
        assert len(inventory.items) <= MAX_INVENTORY_ITEMS
        exchange(here, there, seed=rounds)
        rounds += 1
        assert rounds < 20


def test_malformed_digests_and_inventories_do_nothing() -> None:
    index = index_of([claim("w")])
    assert index.differing(Digests(()), random.Random(1)) is None
    assert index.differing(Digests((1,) * 17), random.Random(1)) is None
    assert index.compare(Inventory(0, (0,), ((1, 1),))) == ([], [])
    assert index.compare(Inventory(16, (99, -1), ((1 << 70, 1),))) == ([], [])
