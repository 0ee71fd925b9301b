"""Examine this node: its settings, keys and store, this machine, and the way to the other nodes.

Checks run side by side and take ten seconds at most; nothing is changed. Some need the daemon, and say so. The exit
code is 1 where a check fails.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sedmad.cli.table import Cell, Column, print_table
from sedmad.cli.terminal import Terminal, output
from sedmad.client import connect
from sedmad.home import Home

if TYPE_CHECKING:
    from sedmad.node.checks.verdict import Verdict
    from sedmad.wire.messages import GetStatusResponse

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def configure(parser: argparse.ArgumentParser) -> None:
    pass


def run(arguments: argparse.Namespace) -> int:
    from sedmad.node.checks.examination import examine_node, is_healthy

    def ask_status() -> GetStatusResponse:
        with connect(arguments.home) as mesh:
            return mesh.status()

    verdicts = examine_node(Home.locate(arguments.home, os.environ), os.environ, ask_status)
    if arguments.json:
        from sedmad.cli.checks_contract import doctor_document
        from sedmad.cli.json_contract import print_document

        print_document(doctor_document(verdicts))
    else:
        _print(output(), verdicts)
    return 0 if is_healthy(verdicts) else 1


def _print(terminal: Terminal, verdicts: Sequence[Verdict]) -> None:
    columns = [Column("CHECK"), Column("GRADE"), Column("FOUND")]
    rows: list[list[str | Cell]] = []
    for verdict in verdicts:
        grade = Cell(verdict.grade.value.upper(), _COLOURS[verdict.grade.value])
        rows.append([Cell(verdict.check, "bold"), grade, verdict.finding])
        if verdict.fix:
            rows.append(["", "", Cell(f"fix: {verdict.fix}", "dim")])
    print_table(terminal, columns, rows)
