"""Multiply a matrix with the columns of a .npy file, where its partitions lie.

X has shape (n,) or (n, columns); NaN and infinities go through. Y has shape (m,) or (m, columns). Both are float64 for
a matrix of float64, else float32. With int8 and integers in X the product is exact, in int32.
"""

from __future__ import annotations

import argparse

from sedmad.cli import json_contract
from sedmad.cli.options import duration
from sedmad.cli.table import Cell, Column, print_table
from sedmad.cli.terminal import Terminal, messages, output, printable
from sedmad.client import connect
from sedmad.client.explanation import Explanation, PanelExplanation
from sedmad.client.matrix import DEADLINE_S

# More partitions than this are told by their number.
PARTITIONS_SHOWN = 6


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of the matrix; sedmad ls lists them")
    parser.add_argument("x", metavar="X.npy", help="a vector, or columns")
    parser.add_argument(
        "-o", "--output", metavar="Y.npy", required=True, help="the file to write, whole or not at all"
    )
    parser.add_argument("--transpose", action="store_true", help="multiply with the transposed matrix")
    parser.add_argument(
        "--deadline",
        metavar="5s",
        type=duration,
        default=DEADLINE_S,
        help=f"how long it may take, 0s being past already (default: {DEADLINE_S:g}s)",
    )
    parser.add_argument(
        "--explain", action="store_true", help="also show, on stderr, who computed what and why"
    )


def run(arguments: argparse.Namespace) -> int:
    from sedmad.client.npy import open_array, save_array

    x = open_array(arguments.x, dimensions=(1, 2))
    with connect(arguments.home) as mesh:
        matrix = mesh[arguments.name]
        y, explanation = matrix.apply(
            x, deadline_s=arguments.deadline, explain=True, transpose=arguments.transpose
        )
    save_array(arguments.output, y)
    if arguments.json:
        document: json_contract.Document = {
            "name": matrix.name,
            "version": explanation.version,
            "transposed": arguments.transpose,
            "shape": list(y.shape),
            "dtype": y.dtype.name,
            "verified": explanation.verified,
            "elapsed_ms": explanation.elapsed_ms,
            "output": arguments.output,
        }
        if arguments.explain:
            document["explanation"] = json_contract.explanation_document(explanation)
        json_contract.print_document(document)
        return 0
    if arguments.explain:
        print_explanation(messages(), explanation)
    shape = " x ".join(str(length) for length in y.shape)
    output().print(
        f"the product with {printable(matrix.name)}{' transposed' if arguments.transpose else ''}, {shape} "
        f"{y.dtype.name}, took {explanation.elapsed_ms:.1f} ms and is in {printable(arguments.output)}"
    )
    return 0


def print_explanation(terminal: Terminal, explanation: Explanation) -> None:
    """Print who computed what, how long that took beside what was expected, and why they were asked."""
    checked = "verified" if explanation.verified else "unverified"
    terminal.print(
        f"version {explanation.version}, {checked}, {explanation.elapsed_ms:.1f} ms as seen from here"
    )
    first = 0
    for panel in explanation.panels:
        terminal.print()
        last = first + panel.columns - 1
        which = f"column {first}" if first == last else f"columns {first}-{last}"
        plural = "s" if panel.joined_columns != 1 else ""
        together = f"computed in a product of {panel.joined_columns} column{plural}"
        terminal.print(
            f"{which}: {panel.total_ms:.1f} ms at the daemon, of which {panel.waited_ms:.1f} ms waiting; {together}"
        )
        _print_answers(terminal, panel)
        first += panel.columns


def _print_answers(terminal: Terminal, panel: PanelExplanation) -> None:
    columns = [
        Column("NODE"),
        Column("PARTITIONS"),
        Column("COPY"),
        Column("PREDICTED", right=True),
        Column("ACTUAL", right=True),
        Column("WAITED", right=True),
        Column("COMPUTED", right=True),
        Column("WHY"),
    ]
    print_table(
        terminal,
        columns,
        [
            [
                Cell(answer.name or answer.peer_id, "bold"),
                _partitions(answer.partitions),
                answer.kind,
                f"{answer.predicted_ms:.1f} ms",
                f"{answer.elapsed_ms:.1f} ms",
                f"{answer.wait_ms:.1f} ms",
                f"{answer.service_ms:.1f} ms",
                answer.reason or "-",
            ]
            for answer in panel.answers
        ],
    )


def _partitions(partitions: tuple[int, ...]) -> str:
    if len(partitions) > PARTITIONS_SHOWN:
        return f"{len(partitions)} of them"
    return ", ".join(str(index) for index in partitions) or "-"
