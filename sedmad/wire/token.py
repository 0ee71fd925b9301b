"""The invitation as people pass it on: `sedmad1` + base32 of the token and a checksum, in lower case."""

from __future__ import annotations

import base64
import binascii
import zlib

from google.protobuf.message import DecodeError

from sedmad.errors import LocalError, TokenInvalid
from sedmad.wire.messages import InvitationToken

PREFIX = "sedmad1"
# Eight addresses of 128 bytes and the keys fit; nobody pastes more.
TOKEN_CHARACTERS_MAX = 4096


def encode_token(token: InvitationToken) -> str:
    """Return the token as one word that survives chat programs, terminals and shells.

    Raises:
        LocalError: the token has too many addresses for one word.
    """
    data = token.SerializeToString()
    text = _to_text(zlib.crc32(data).to_bytes(4, "little") + data)
    if len(text) > TOKEN_CHARACTERS_MAX:
        raise LocalError(
            f"a token of {len(text)} characters is too long", why=f"at most {TOKEN_CHARACTERS_MAX}"
        )
    return text


def _to_text(checked: bytes) -> str:
    return PREFIX + base64.b32encode(checked).decode().rstrip("=").lower()


def decode_token(text: str) -> InvitationToken:
    """Return the token that `encode_token` wrote.

    Raises:
        TokenInvalid: the text is no token, or was damaged on its way.
    """
    text = text.strip()
    if not text.startswith(PREFIX) or len(text) > TOKEN_CHARACTERS_MAX:
        raise TokenInvalid("this is not an invitation token", why=f"a token begins with {PREFIX}")
    body = text[len(PREFIX) :].upper()
    try:
        checked = base64.b32decode(body + "=" * (-len(body) % 8))
    except (binascii.Error, ValueError) as error:
        raise TokenInvalid("the invitation token is damaged", why=str(error)) from error
    data = checked[4:]
    # The last character has bits to spare, which nobody may play with: one token, one text.
    whole = zlib.crc32(data).to_bytes(4, "little") == checked[:4] and _to_text(checked) == text.lower()
    if not whole:
        raise TokenInvalid("the invitation token is damaged", why="its checksum does not fit; was it cut?")
    token = InvitationToken()
    try:
        token.ParseFromString(data)
    except DecodeError as error:
        raise TokenInvalid("the invitation token is damaged", why=str(error)) from error
    if len(token.root_public_key) != 32 or len(token.secret) != 32 or not token.inviter_peer_id:
        raise TokenInvalid("the invitation token is incomplete")
    return token
