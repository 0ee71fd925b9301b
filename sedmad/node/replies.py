"""What a peer answered, as a message."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from sedmad.errors import ProtocolViolation

Reply = TypeVar("Reply", bound=Message)


def read_reply(message_class: type[Reply], encoded: bytes, node: str) -> Reply:
    """Return a peer's answer.

    Raises:
        ProtocolViolation: the bytes are no such message.
    """
    reply = message_class()
    try:
        reply.ParseFromString(encoded)
    except DecodeError as error:
        raise ProtocolViolation("a peer's answer is malformed", why=str(error), node=node) from error
    return reply
