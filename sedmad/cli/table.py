"""Columns that line up. Rich does it too, and would double the time `sedmad status` takes to start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sedmad.cli.terminal import Terminal, printable, width

GAP = "  "


@dataclass(frozen=True, slots=True)
class Cell:
    """A piece of text and its colour; a plain str will do where there is none."""

    text: str
    colour: str | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A heading, and whether what stands below it are numbers."""

    heading: str
    right: bool = False


def print_table(terminal: Terminal, columns: Sequence[Column], rows: Sequence[Sequence[str | Cell]]) -> None:
    """Print rows under their headings."""
    headings = [Cell(column.heading, "dim") for column in columns]
    cells = [headings] + [[_cell(value) for value in row] for row in rows]
    widths = [max(width(row[index].text) for row in cells) for index in range(len(columns))]
    for row in cells:
        parts = []
        for column, cell, column_width in zip(columns, row, widths, strict=True):
            padding = " " * (column_width - width(cell.text))
            painted = terminal.paint(cell.text, cell.colour)
            parts.append(padding + painted if column.right else painted + padding)
        terminal.print(GAP.join(parts).rstrip())


def print_facts(terminal: Terminal, facts: Sequence[tuple[str, str]]) -> None:
    """Print values beside their names; both are shown as they are."""
    label_width = max(len(label) for label, _ in facts)
    for label, value in facts:
        terminal.print(f"{terminal.paint(label.ljust(label_width), 'dim')}{GAP}{value}".rstrip())


def _cell(value: str | Cell) -> Cell:
    cell = value if isinstance(value, Cell) else Cell(value)
    return Cell(printable(cell.text), cell.colour)
