"""Types of options, as argparse wants them: a wrong value is a usage error that says what was expected."""

from __future__ import annotations

import argparse

from sedmad.durations import parse_duration
from sedmad.errors import UsageError


def duration(text: str) -> float:
    """Return the seconds of '24h', '5s', '500ms'."""
    try:
        return parse_duration(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(f"{error.what}: {error.hint or error.why}") from error


def label(text: str) -> tuple[str, str]:
    """Return key and value of 'zone=attic'."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a label: write it like zone=attic")
    return key, value


def node_count(text: str) -> int:
    """Return a number of nodes, 0 or more."""
    if not (text.isascii() and text.isdigit() and len(text) <= 4):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number of nodes")
    return int(text)
