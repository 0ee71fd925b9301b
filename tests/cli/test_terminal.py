"""What reaches a terminal: aligned, coloured where wanted, and never an escape of somebody else's."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sedmad.cli.short_ids import short_ids
from sedmad.cli.table import Cell, Column, print_table
from sedmad.cli.terminal import Terminal, printable, width


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@given(st.text())
def test_foreign_text_cannot_steer_the_terminal(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert text == shown or not text.isprintable()


def test_escapes_and_turned_text_are_shown_as_what_they_are() -> None:
    assert printable("\x1b[2Jgone\u202eevil\n") == "\\x1b[2Jgone\\u202eevil\\n"
    assert printable("wörter 語") == "wörter 語"


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({"TERM": "xterm"}, True), ({"TERM": "dumb"}, False), ({"TERM": "xterm", "NO_COLOR": "1"}, False)],
)
def test_colours_are_for_terminals_that_want_them(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], coloured: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert ("\x1b" in Terminal(Screen()).paint("ready", "green")) == coloured
    assert Terminal(io.StringIO()).paint("ready", "green") == "ready"


def test_columns_line_up_whatever_is_in_them() -> None:
    screen = io.StringIO()
    rows = [["語", "1"], [Cell("plain", "red"), "1000"], ["\x1b", "22"]]
    print_table(Terminal(screen), [Column("NAME"), Column("SIZE", right=True)], rows)
    lines = screen.getvalue().splitlines()
    assert {width(line) for line in lines} == {11}
    assert lines == ["NAME   SIZE", "語        1", "plain  1000", "\\x1b     22"]


@given(st.sets(st.text("12D3KooWab", min_size=20, max_size=20), max_size=20))
def test_short_ids_tell_peers_apart(peer_ids: set[str]) -> None:
    shortened = short_ids(peer_ids)
    assert shortened.keys() == peer_ids
    assert len(set(shortened.values())) == len(peer_ids)
    assert all(peer_id.startswith(short) and len(short) >= 12 for peer_id, short in shortened.items())
