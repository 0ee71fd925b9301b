from __future__ import annotations

from dataclasses import replace

import pytest
from examples import identity_of
from hypothesis import given
from hypothesis import strategies as st

from sedmad.core.membership.advert import Advert
from sedmad.core.membership.claim import Claim
from sedmad.errors import PeerError
from sedmad.node.records import read_record, sign_record

ANN, BEN = identity_of("ann"), identity_of("ben")
counters = st.integers(0, 2**63 - 1)
texts = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=16)
amounts = st.floats(0, 1e12)

adverts = st.builds(
    Advert,
    peer_id=st.just(ANN.peer_id),
    name=texts,
    sequence=counters,
    addresses=st.lists(texts, max_size=16).map(tuple),
    labels=st.dictionaries(texts, texts, max_size=4).map(lambda labels: tuple(sorted(labels.items()))),
    version=texts,
    state=st.sampled_from(["starting", "ready", "draining"]),
    memory_pledged_bytes=counters,
    memory_used_bytes=counters,
    memory_free_bytes=counters,
    disk_pledged_bytes=counters,
    disk_used_bytes=counters,
    compute_gflops=amounts,
    memory_bandwidth_bytes_per_s=amounts,
    device_profile=texts,
    queue_s=amounts,
    service_s=amounts,
    certificate_digest=st.binary(max_size=32),
    wall_time_s=amounts,
)
claims = st.builds(
    Claim,
    name=texts.filter(lambda name: bool(name) and "@" not in name),
    version=counters,
    matrix_digest=st.binary(min_size=32, max_size=32),
    first_owner=st.just(ANN.peer_id),
    owner=st.just(ANN.peer_id),
    epoch=counters,
    seq=counters,
    clock=counters,
    guardians=st.lists(st.binary(min_size=8, max_size=8), max_size=5).map(tuple),
    ancestors=st.lists(st.tuples(st.binary(min_size=8, max_size=8), counters), max_size=8).map(tuple),
    removed=st.booleans(),
    rows=counters,
    columns=counters,
    dtype=st.sampled_from(["float32", "float64"]),
    survive=st.integers(0, 8),
    wall_time_s=amounts,
)
CLAIM = Claim("w", 1, bytes(32), ANN.peer_id, ANN.peer_id, dtype="float32")
SIGNED = [
    sign_record(record, ANN)
    for record in (Advert(ANN.peer_id, "ann", 1, addresses=("/ip4/127.0.0.1/tcp/1",)), CLAIM)
]


@given(adverts | claims)
def test_what_was_signed_is_read(record: Advert | Claim) -> None:
    signed = sign_record(record, ANN)
    read = read_record(signed)
    assert read.record == record
    assert read.signed == signed


@given(st.sampled_from(SIGNED), st.data())
def test_any_changed_bit_is_refused(signed: bytes, data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(signed) - 1))
    bit = data.draw(st.integers(0, 7))
    changed = bytearray(signed)
    changed[position] ^= 1 << bit
    with pytest.raises(PeerError):
        read_record(bytes(changed))


@given(st.binary(max_size=300))
def test_whatever_comes_is_refused_as_the_peers_fault(data: bytes) -> None:
    with pytest.raises(PeerError):
        read_record(data)


@pytest.mark.parametrize("record", [Advert(ANN.peer_id, "ann", 1), CLAIM])
def test_nobody_speaks_for_another(record: Advert | Claim) -> None:
    with pytest.raises(PeerError):
        read_record(sign_record(record, BEN))


def test_a_later_owner_hands_on_what_the_author_fixed() -> None:
    claim = read_record(sign_record(CLAIM, ANN)).record
    assert isinstance(claim, Claim)
    passed_on = replace(claim, owner=BEN.peer_id, epoch=3, seq=9, survive=2, removed=True)
    assert read_record(sign_record(passed_on, BEN)).record == passed_on
    for forged in (
        replace(passed_on, matrix_digest=bytes([1]) * 32),
        replace(passed_on, version=2),
        replace(passed_on, name="v"),
        replace(passed_on, clock=9),
        replace(passed_on, authorship=b""),
    ):
        with pytest.raises(PeerError):
            read_record(sign_record(forged, BEN))


def test_an_owner_that_is_no_peer_is_refused() -> None:
    with pytest.raises(PeerError):
        read_record(sign_record(replace(CLAIM, owner="nobody"), ANN))
