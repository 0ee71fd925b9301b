"""Show this node, the mesh around it and the matrices in it."""

from __future__ import annotations

import argparse
from collections import Counter

from sedmad.cli import json_contract
from sedmad.cli.listings import matrix_table, peer_table
from sedmad.cli.short_ids import short_ids
from sedmad.cli.table import print_facts
from sedmad.cli.terminal import STATE_COLOURS, Terminal, output, printable
from sedmad.client import connect
from sedmad.durations import format_duration
from sedmad.sizes import format_bytes
from sedmad.wire.messages import GetStatusResponse

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
        ],
    )
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


def _share(used_bytes: int, pledged_bytes: int) -> str:
    """Return a bar and its figures."""
    share = min(1.0, used_bytes / pledged_bytes) if pledged_bytes else 0.0
    filled = round(share * BAR_CHARACTERS)
    bar = "#" * filled + "." * (BAR_CHARACTERS - filled)
    return f"[{bar}] {format_bytes(used_bytes)} used of {format_bytes(pledged_bytes)} pledged"
