"""Show this node, the mesh around it and the matrices in it."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence

from sedmad.cli import json_contract
from sedmad.cli.listings import matrix_table, peer_table
from sedmad.cli.short_ids import short_ids
from sedmad.cli.table import Cell, Column, print_facts, print_table
from sedmad.cli.terminal import STATE_COLOURS, Terminal, output, printable
from sedmad.client import connect
from sedmad.durations import format_duration
from sedmad.sizes import format_bytes
from sedmad.wire.messages import GetStatusResponse, RepairSummary

BAR_CHARACTERS = 20


def configure(parser: argparse.ArgumentParser) -> None:
    pass


def run(arguments: argparse.Namespace) -> int:
    with connect(arguments.home) as mesh:
        status = mesh.status()
    if arguments.json:
        json_contract.print_document(json_contract.status_document(status))
    else:
        _print(output(), status)
    return 0


def _print(terminal: Terminal, status: GetStatusResponse) -> None:
    ids = short_ids([status.peer_id, *(peer.peer_id for peer in status.peers)])
    state = json_contract.node_state(status.state)
    mesh = status.mesh_id[:12]
    print_facts(
        terminal,
        [
            (
                "node",
                f"{terminal.paint(printable(status.name), 'bold')} ({ids[status.peer_id]}), "
                f"{terminal.paint(state, STATE_COLOURS.get(state))} for {format_duration(status.uptime_s)}",
            ),
            ("mesh", f"{mesh}: {_peer_count(status)}, {_matrix_count(status)}"),
            ("reached at", printable(", ".join(status.addresses)) or "no address yet"),
            ("memory", _share(status.memory_used_bytes, status.memory_pledged_bytes)),
            ("disk", _share(status.disk_used_bytes, status.disk_pledged_bytes)),
            *([("crossbars", _crossbars(status))] if status.cells_pledged else []),
            ("copies", _copies(status)),
            ("process", _process(status)),
        ],
    )
    if status.repairs:
        terminal.print()
        _repair_table(terminal, status.repairs)
    if status.peers:
        terminal.print()
        peer_table(terminal, status.peers, ids)
    if status.matrices:
        terminal.print()
        matrix_table(terminal, status.matrices)
    if status.warnings:
        terminal.print()
        for warning in status.warnings:
            terminal.print(f"{terminal.paint('warning:', 'yellow')} {printable(warning)}")


def _peer_count(status: GetStatusResponse) -> str:
    if not status.peers:
        return "no other node yet (add one with: sedmad invite)"
    states = Counter(json_contract.peer_state(peer.state) for peer in status.peers)
    plural = "s" if len(status.peers) > 1 else ""
    counted = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    return f"{len(status.peers)} other node{plural} ({counted})"


def _matrix_count(status: GetStatusResponse) -> str:
    if not status.matrices:
        return "no matrix yet (store one with: sedmad put)"
    total = format_bytes(sum(matrix.size_bytes for matrix in status.matrices))
    return f"{len(status.matrices)} matri{'ces' if len(status.matrices) > 1 else 'x'} of {total}"


def _copies(status: GetStatusResponse) -> str:
    """Return what the disk is used for."""
    resident = format_bytes(status.disk_used_bytes - status.standby_bytes)
    text = f"{resident} resident, {format_bytes(status.standby_bytes)} standby"
    return f"{text}; this node owns {format_bytes(status.owned_bytes)}"


def _crossbars(status: GetStatusResponse) -> str:
    share = status.cells_used / status.cells_pledged
    return (
        f"{printable(status.device_profile)}: {status.cells_used:,} of {status.cells_pledged:,} cells taken "
        f"({share:.0%})"
    )


def _process(status: GetStatusResponse) -> str:
    """Return what the daemon has in memory, and what it is for."""
    return (
        f"{format_bytes(status.anonymous_bytes)} of its own, "
        f"{format_bytes(status.mapped_bytes)} of mapped files (copies and programs)"
    )


def _repair_table(terminal: Terminal, repairs: Sequence[RepairSummary]) -> None:
    columns = [Column("REPAIR"), Column("MADE", right=True), Column("OF", right=True), Column("WAITING FOR")]
    rows: list[list[str | Cell]] = [
        [
            Cell(printable(", ".join(repair.names)), "bold"),
            format_bytes(repair.made_bytes) if repair.step_bytes else "-",
            format_bytes(repair.step_bytes) if repair.step_bytes else "-",
            printable(repair.waiting_for.replace("\n", "; ")),
        ]
        for repair in repairs
    ]
    print_table(terminal, columns, rows)


def _share(used_bytes: int, pledged_bytes: int) -> str:
    """Return a bar and its figures."""
    share = min(1.0, used_bytes / pledged_bytes) if pledged_bytes else 0.0
    filled = round(share * BAR_CHARACTERS)
    bar = "#" * filled + "." * (BAR_CHARACTERS - filled)
    return f"[{bar}] {format_bytes(used_bytes)} used of {format_bytes(pledged_bytes)} pledged"
