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


def array_count(text: str) -> int:
    """Return a number of crossbar arrays, 1 or more."""
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 10 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number of arrays")
    return int(text)


def target_error(text: str) -> float:
    """Return a relative error: at least 0 and below 1."""
    try:
        error = float(text)
    except ValueError:
        error = -1.0
    # NaN fails every comparison.
    if not 0 <= error < 1:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is no relative error: at least 0 and below 1, as 0.01"
        )
    return error
