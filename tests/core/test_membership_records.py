"""Adverts and claims: their bounds, their order, and when a change is worth telling."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sedmad.core.membership.advert import (
    MAX_ADDRESSES,
    MAX_NODE_NAME_BYTES,
    MAX_SEQUENCE,
    Advert,
    differs_materially,
    first_sequence,
)
from sedmad.core.membership.claim import MAX_GUARDIANS, MAX_NAME_BYTES, Claim, check_name, short_id
from sedmad.core.membership.record import SignedRecord, locator_key
from sedmad.errors import UsageError

ADVERT = Advert("a", "anna", 1, memory_pledged_bytes=1 << 30, memory_used_bytes=1 << 29, queue_s=0.1)
CLAIM = Claim("encoder/w1", 1, bytes(32), first_owner="a", owner="a", clock=1)


def test_an_advert_at_its_bounds_is_valid() -> None:
    replace(
        ADVERT,
        name="n" * MAX_NODE_NAME_BYTES,
        sequence=MAX_SEQUENCE,
        addresses=("/ip4/127.0.0.1/tcp/1",) * MAX_ADDRESSES,
    )


@pytest.mark.parametrize(
    "change",
    [
        {"peer_id": ""},
        {"name": "n" * (MAX_NODE_NAME_BYTES + 1)},
        {"sequence": MAX_SEQUENCE + 1},
        {"addresses": ("/ip4",) * (MAX_ADDRESSES + 1)},
        {"addresses": ("x" * 257,)},
        {"labels": (("k", "v"),) * 17},
        {"labels": (("k" * 65, "v"),)},
        {"state": "asleep"},
        {"memory_free_bytes": -1},
        {"queue_s": float("nan")},
        {"compute_gflops": float("inf")},
        {"wall_time_s": float("nan")},
        {"certificate_digest": bytes(33)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_advert_out_of_bounds_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(UsageError) as caught:
        replace(ADVERT, **change)  # type: ignore[arg-type]
    assert caught.value.why


def test_sequences_grow_over_restarts() -> None:
    assert first_sequence(2) > first_sequence(1) + 1_000_000


@pytest.mark.parametrize(
    ("change", "material"),
    [
        ({"state": "draining"}, True),
        ({"addresses": ("/ip4/10.0.0.1/tcp/4001",)}, True),
        ({"memory_pledged_bytes": (1 << 30) + 1}, True),
        ({"memory_used_bytes": (1 << 29) + (1 << 20)}, False),
        ({"memory_used_bytes": 1 << 30}, True),
        ({"queue_s": 0.104}, False),
        ({"queue_s": 0.5}, True),
        ({"sequence": 9, "wall_time_s": 9.0}, False),
        ({"compute_gflops": 5.0}, True),
    ],
)
def test_what_is_worth_telling_at_once(change: dict[str, object], material: bool) -> None:
    assert differs_materially(ADVERT, replace(ADVERT, **change)) is material  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["w", "encoder/w1", "größe", "n" * MAX_NAME_BYTES, "two words"])
def test_good_names(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    "name", ["", "n" * (MAX_NAME_BYTES + 1), "ü" * 65, "a@b", "a\nb", "\x1b[31m", " w", "w "]
)
def test_bad_names_are_refused_with_a_reason(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_name(name)
    assert caught.value.why
    assert caught.value.hint


@pytest.mark.parametrize(
    "change",
    [
        {"matrix_digest": bytes(31)},
        {"version": -1},
        {"clock": 1 << 63},
        {"owner": ""},
        {"guardians": (bytes(8),) * (MAX_GUARDIANS + 1)},
        {"guardians": (bytes(7),)},
        {"ancestors": ((bytes(8), 1),) * 9},
        {"dtype": "d" * 17},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_claim_out_of_bounds_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        replace(CLAIM, **change)  # type: ignore[arg-type]


def test_later_statements_about_a_version_do_not_pass_other_authors() -> None:
    rival = replace(CLAIM, first_owner="b", owner="b")
    assert rival.order > CLAIM.order
    assert rival.order > replace(CLAIM, seq=9, epoch=3, owner="z").order > CLAIM.order
    assert rival.order > CLAIM.tombstone(0.0).order > CLAIM.order


def test_a_claim_replaces_what_it_was_made_knowing() -> None:
    successor = replace(CLAIM, first_owner="b", owner="b", version=2, ancestors=((short_id("a"), 1),))
    stranger = replace(CLAIM, first_owner="c", owner="c", version=2)
    assert successor.replaces(CLAIM)
    assert not stranger.replaces(CLAIM)
    assert not CLAIM.replaces(successor)
    assert not successor.replaces(replace(CLAIM, version=2))
    assert replace(CLAIM, seq=1).replaces(CLAIM)


def test_records_are_located_by_subject_and_told_apart_by_content() -> None:
    one, other = SignedRecord(ADVERT, b"one"), SignedRecord(replace(ADVERT, sequence=2), b"other")
    assert one.locator == other.locator == ("advert", "a")
    assert one.stamp != other.stamp
    claim = SignedRecord(CLAIM, b"claim")
    assert claim.locator == ("claim", "encoder/w1", "a")
    assert locator_key(claim.locator) != locator_key(one.locator)
