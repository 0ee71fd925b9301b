"""Where the bytes of a matrix lie, as a bar per node."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sedmad.cli.table import Cell, Column, print_table
from sedmad.cli.terminal import Terminal
from sedmad.sizes import format_bytes
from sedmad.wire.messages import CopyKind, InspectMatrixResponse

BAR_WIDTH = 20


def show_places(
    terminal: Terminal, place: InspectMatrixResponse, names: Sequence[str], gone: Collection[str] = ()
) -> None:
    """Print what each node has in memory, and what it has as spare copies on disk.

    Args:
        terminal: where to.
        place: where the copies are, as the manifest says.
        names: nodes, in the order to print.
        gone: those that are dead, with all that they had.
    """
    row_bytes = place.matrix.size_bytes // place.matrix.rows
    resident, standby = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for partition in place.partitions:
        for copy in partition.copies:
            kind = resident if copy.kind == CopyKind.COPY_KIND_RESIDENT else standby
            kind[copy.name] += (partition.row_stop - partition.row_start) * row_bytes
    largest = max(1, *resident.values(), *standby.values())
    mark = _mark(terminal)
    columns = (
        Column("  node"),
        Column("in memory, computing".ljust(BAR_WIDTH)),
        Column("", right=True),
        Column("spare, on disk".ljust(BAR_WIDTH)),
        Column("", right=True),
    )
    rows: list[list[str | Cell]] = []
    for name in names:
        row: list[str | Cell] = [Cell(f"  {name}", "red" if name in gone else None)]
        for sizes, colour in ((resident, "green"), (standby, "yellow")):
            if name in gone:
                row += [Cell("dead", "red"), ""]
            else:
                row += [
                    Cell(mark * round(sizes[name] / largest * BAR_WIDTH), colour),
                    format_bytes(sizes[name]),
                ]
        rows.append(row)
    print_table(terminal, columns, rows)


def _mark(terminal: Terminal) -> str:
    try:
        "█".encode(terminal.stream.encoding or "ascii")
    except UnicodeEncodeError:
        return "#"
    return "█"
