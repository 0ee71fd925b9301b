"""What a terminal can show: colours where they are wanted, and foreign text without its escapes."""

from __future__ import annotations

import os
import sys
from typing import TextIO

COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
# What a state looks like everywhere.
STATE_COLOURS = {
    "ready": "green",
    "alive": "green",
    "starting": "yellow",
    "draining": "yellow",
    "suspect": "yellow",
    "dead": "red",
}


class Terminal:
    """A stream that may be a terminal.

    Args:
        stream: stdout or stderr.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.is_terminal = stream.isatty()
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self.has_colours = self.is_terminal and not plain

    def paint(self, text: str, colour: str | None) -> str:
        """Return the text in a colour of COLOURS, or as it is."""
        if colour is None or not self.has_colours:
            return text
        return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"

    def print(self, text: str = "") -> None:
        print(text, file=self.stream)


def output() -> Terminal:
    """Where results go."""
    return Terminal(sys.stdout)


def messages() -> Terminal:
    """Where everything else goes."""
    return Terminal(sys.stderr)


def printable(text: str) -> str:
    """Return foreign text with everything escaped that could move a cursor, change a colour or turn around."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def width(text: str) -> int:
    """Return how many columns a printable text takes."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )
