from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sedmad.errors import LocalError, TokenInvalid
from sedmad.wire.messages import InvitationToken
from sedmad.wire.token import TOKEN_CHARACTERS_MAX, decode_token, encode_token

tokens = st.builds(
    InvitationToken,
    root_public_key=st.binary(min_size=32, max_size=32),
    inviter_peer_id=st.text(min_size=1, max_size=60),
    addresses=st.lists(st.text(max_size=100), max_size=8),
    secret=st.binary(min_size=32, max_size=32),
    expires_s=st.integers(-(2**63), 2**63 - 1),
)


@given(tokens, st.sampled_from(["", " ", "\n", "\t "]))
def test_tokens_survive_the_clipboard(token: InvitationToken, around: str) -> None:
    text = encode_token(token)
    assert set(text) <= set(string.ascii_lowercase + string.digits)
    assert decode_token(around + text + around) == token


@given(tokens, st.data())
def test_one_changed_character_is_noticed(token: InvitationToken, data: st.DataObject) -> None:
    text = encode_token(token)
    index = data.draw(st.integers(0, len(text) - 1))
    character = data.draw(
        st.sampled_from(string.ascii_lowercase + string.digits + "=!\u017f\u00e9") | st.characters()
    )
    if character.lower() == text[index].lower():
        return
    with pytest.raises(TokenInvalid):
        decode_token(text[:index] + character + text[index + 1 :])


@given(tokens, st.data())
def test_a_cut_token_is_noticed(token: InvitationToken, data: st.DataObject) -> None:
    text = encode_token(token)
    with pytest.raises(TokenInvalid):
        decode_token(text[: data.draw(st.integers(0, len(text) - 1))])


@given(st.text(max_size=200))
def test_any_other_text_is_no_token(text: str) -> None:
    for candidate in (text, "sedmad1" + text):
        with pytest.raises(TokenInvalid):
            decode_token(candidate)


@pytest.mark.parametrize("missing", ["root_public_key", "secret", "inviter_peer_id"])
def test_an_incomplete_token_is_refused(missing: str) -> None:
    token = InvitationToken(root_public_key=bytes(32), secret=bytes(32), inviter_peer_id="somebody")
    token.ClearField(missing)
    with pytest.raises(TokenInvalid, match="incomplete"):
        decode_token(encode_token(token))


def test_an_oversize_token_is_neither_written_nor_read() -> None:
    with pytest.raises(LocalError):
        encode_token(InvitationToken(addresses=["x" * TOKEN_CHARACTERS_MAX]))
    with pytest.raises(TokenInvalid):
        decode_token("sedmad1" + "a" * TOKEN_CHARACTERS_MAX)
