"""Check the bytes on every node that answers, and that every matrix has the copies it was promised.

All bytes are read and compared with their digests, which takes as long as the disks take. Nothing is changed. The
exit code is 0 where everything is as it should be, and 76 where something is not.
"""

from __future__ import annotations

import argparse
import os
from contextlib import ExitStack

from sedmad.cli import json_contract
from sedmad.cli.progress import Advance, progress_bar
from sedmad.cli.table import Cell, Column, print_table
from sedmad.cli.terminal import Terminal, output, printable
from sedmad.client import connect
from sedmad.sizes import format_bytes
from sedmad.wire.messages import MatrixVerification, NodeVerification, VerifyMeshResponse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--quick",
        action="store_true",
        help="compare what should be there with the files that are, without reading these",
    )


def run(arguments: argparse.Namespace) -> int:
    with connect(arguments.home) as mesh, ExitStack() as stack:
        bars: list[Advance] = []

        def show(checked_bytes: int, total_bytes: int) -> None:
            # How much there is to read is known only when the nodes have said so.
            if not bars and total_bytes:
                bars.append(
                    stack.enter_context(progress_bar("checking", total_bytes, wanted=not arguments.json))
                )
            for advance in bars:
                advance(checked_bytes, "checking", total_bytes)

        found = mesh.verify(quick=arguments.quick, progress=show)
    if arguments.json:
        json_contract.print_document(json_contract.verify_document(found))
    else:
        _print(output(), found)
    return 0 if json_contract.is_clean(found) else os.EX_PROTOCOL


def _print(terminal: Terminal, found: VerifyMeshResponse) -> None:
    columns = [
        Column("NODE"),
        Column("COPIES", right=True),
        Column("BYTES", right=True),
        Column("CORRUPT", right=True),
        Column("MISSING", right=True),
        Column("ORPHANED", right=True),
        Column("NOTE"),
    ]
    nodes = sorted(found.nodes, key=lambda verified: verified.node.name)
    print_table(terminal, columns, [_node_row(verified) for verified in nodes])
    if found.matrices:
        terminal.print()
        columns = [
            Column("MATRIX"),
            Column("DEGRADED", right=True),
            Column("LOST", right=True),
            Column("NOTE"),
        ]
        print_table(terminal, columns, [_matrix_row(matrix) for matrix in found.matrices])
    terminal.print()
    if json_contract.is_clean(found):
        terminal.print(terminal.paint("everything is as it should be", "green"))
    else:
        terminal.print(terminal.paint(printable(_summary(found)), "yellow"))


def _node_row(verified: NodeVerification) -> list[str | Cell]:
    name = Cell(verified.node.name or verified.node.peer_id, "bold")
    if verified.error:
        return [name, *"-----", Cell(f"could not be asked: {verified.error}", "red")]
    report = verified.report
    faults = (report.corrupt, report.missing, report.orphaned)
    return [
        name,
        str(report.copies),
        format_bytes(report.size_bytes),
        *(Cell(str(len(kind)), "red" if kind else None) for kind in faults),
        Cell(f"and {report.more} more faults", "red") if report.more else "",
    ]


def _matrix_row(matrix: MatrixVerification) -> list[str | Cell]:
    name = Cell(matrix.name, "bold")
    if matrix.error:
        return [name, "-", "-", Cell(matrix.error, "red")]
    lost = Cell(str(matrix.lost_partitions), "red" if matrix.lost_partitions else None)
    note = (
        "some partitions have no copy that answers"
        if matrix.lost_partitions
        else "fewer copies than promised"
    )
    return [name, str(matrix.degraded_partitions), lost, note]


def _summary(found: VerifyMeshResponse) -> str:
    """Return what is wrong, in one line."""
    silent = sum(bool(verified.error) for verified in found.nodes)
    faults = sum(json_contract.fault_count(verified.report) for verified in found.nodes)
    parts = []
    if faults:
        parts.append(f"{faults} fault{'s' if faults > 1 else ''} in the stores")
    if found.matrices:
        parts.append(
            f"{len(found.matrices)} matri{'ces' if len(found.matrices) > 1 else 'x'} without all copies"
        )
    if silent:
        parts.append(f"{silent} node{'s' if silent > 1 else ''} not asked")
    return ", ".join(parts)
