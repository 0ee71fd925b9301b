"""Whatever bytes a peer, a client or a file brings: they are taken, or refused with a typed error, and nothing else."""

from __future__ import annotations

import pytest
from drawing import contract, mutated
from google.protobuf.message import Message
from hostile_words import drawer
from hypothesis import given, settings
from hypothesis import strategies as st
from parsers import PARSERS, framed, seeds

choices = st.binary(min_size=16, max_size=400)
TEXTS = ("token", "configuration", "npy")


@pytest.mark.parametrize("message_class", contract(), ids=lambda found: found.DESCRIPTOR.full_name)
@settings(max_examples=5)
@given(data=choices)
def test_any_message_may_come_anywhere(message_class: type[Message], data: bytes) -> None:
    drawn = drawer(data)
    message = drawn.message(message_class.DESCRIPTOR)
    encoded = message.SerializeToString()
    for said in (
        encoded,
        framed(message),
        mutated(encoded, drawn.chance),
        mutated(framed(message), drawn.chance),
    ):
        for name, parse in PARSERS.items():
            if name not in TEXTS:
                parse(said)


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=30)
@given(data=choices)
def test_valid_input_with_some_bytes_changed(name: str, data: bytes) -> None:
    chance = drawer(data).chance
    PARSERS[name](mutated(chance.pick(list(seeds(name))), chance))


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=30)
@given(data=st.binary(max_size=200))
def test_any_bytes(name: str, data: bytes) -> None:
    PARSERS[name](data)
