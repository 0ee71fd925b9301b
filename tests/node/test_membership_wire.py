from __future__ import annotations

from contextlib import suppress

import pytest
from examples import identity_of
from hypothesis import given
from hypothesis import strategies as st

from sedmad.core.membership.advert import Advert
from sedmad.core.membership.messages import (
    Digests,
    Gossip,
    IndirectAnswer,
    IndirectProbe,
    Inventory,
    Message,
    Probe,
    ProbeAnswer,
)
from sedmad.core.membership.record import SignedRecord
from sedmad.core.membership.rumour import Rumour
from sedmad.errors import ProtocolViolation
from sedmad.node.membership_wire import decode_message, encode_message, size_of, to_core
from sedmad.node.records import read_record, sign_record
from sedmad.wire import messages as wire

ANN = identity_of("ann")
words = st.integers(0, 2**64 - 1)
names = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=20)


def signed_advert(sequence: int) -> SignedRecord:
    advert = Advert(ANN.peer_id, "ann", sequence)
    return SignedRecord(advert, sign_record(advert, ANN))


records = st.lists(st.integers(0, 9).map(signed_advert), max_size=3).map(tuple)
rumours = st.lists(
    st.builds(Rumour, kind=st.sampled_from(["suspect", "dead"]), peer_id=names, sequence=words, by=names),
    max_size=3,
).map(tuple)
messages = st.one_of(
    st.builds(Probe, words, records, rumours, st.none() | st.floats(0, 10)),
    st.builds(ProbeAnswer, words, records, rumours),
    st.builds(IndirectProbe, words, names),
    st.builds(IndirectAnswer, words, names, st.booleans()),
    st.builds(Gossip, records, rumours, st.lists(words, max_size=4).map(tuple), st.booleans()),
    st.builds(Digests, st.lists(words, max_size=8).map(tuple)),
    st.builds(
        Inventory,
        st.integers(0, 2**32 - 1),
        st.lists(st.integers(0, 2**32 - 1), max_size=4).map(tuple),
        st.lists(st.tuples(words, words), max_size=4).map(tuple),
    ),
)


def received(encoded: bytes) -> Message:
    message = decode_message(encoded)
    return to_core(message, [read_record(record.SerializeToString()) for record in message.records])


@given(messages)
def test_what_was_sent_arrives(message: Message) -> None:
    encoded = encode_message(message)
    assert received(encoded) == message
    assert size_of(message) == len(encoded)


@given(messages, records, rumours)
def test_sizes_add_up(message: Message, more: tuple[SignedRecord, ...], told: tuple[Rumour, ...]) -> None:
    bare = Gossip()
    whole = Gossip(records=more, rumours=told)
    parts = sum(size_of(part) for part in (*more, *told))
    assert len(encode_message(whole)) <= size_of(bare) + parts


@given(st.binary(max_size=200))
def test_whatever_comes_is_a_message_or_a_violation(data: bytes) -> None:
    with suppress(ProtocolViolation):
        to_core(decode_message(data), [])


@pytest.mark.parametrize(
    "message",
    [
        wire.MembershipMessage(),
        wire.MembershipMessage(inventory=wire.Inventory(keys=[1], stamps=[])),
        wire.MembershipMessage(gossip=wire.Gossip(), rumours=[wire.Rumour(kind=0)]),
        wire.MembershipMessage(gossip=wire.Gossip(), rumours=[wire.Rumour(kind=7)]),
    ],
)
def test_what_has_no_meaning_is_refused(message: wire.MembershipMessage) -> None:
    with pytest.raises(ProtocolViolation):
        to_core(message, [])
