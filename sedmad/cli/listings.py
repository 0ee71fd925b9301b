"""Tables that more than one verb shows: peers, matrices."""

from __future__ import annotations

from collections.abc import Sequence

from sedmad.cli.json_contract import dtype_name, is_conflict, node_state, peer_state
from sedmad.cli.table import Cell, Column, print_table
from sedmad.cli.terminal import STATE_COLOURS, Terminal
from sedmad.sizes import format_bytes
from sedmad.wire.messages import MatrixSummary, NodeState, PeerSummary


def peer_table(
    terminal: Terminal, peers: Sequence[PeerSummary], ids: dict[str, str], *, detailed: bool = False
) -> None:
    """Print one row per peer.

    Args:
        peers: what the daemon tells of them.
        ids: beginnings of their ids that tell them apart.
        detailed: also print what they offer and where they are.
    """
    columns = [
        Column("PEER"),
        Column("ID"),
        Column("STATE"),
        Column("PATH"),
        Column("RTT", right=True),
        Column("MEMORY"),
    ]
    if detailed:
        columns += [
            Column("DISK"),
            Column("GFLOP/S", right=True),
            Column("VERSION"),
            Column("LABELS"),
            Column("ADDRESS"),
        ]
    # Most meshes have no crossbars.
    crossbars = any(peer.cells_pledged for peer in peers)
    if crossbars:
        columns += [Column("DEVICES"), Column("CELLS TAKEN", right=True)]
    rows: list[list[str | Cell]] = []
    for peer in peers:
        row: list[str | Cell] = [
            Cell(peer.name, "bold"),
            ids[peer.peer_id],
            _state(peer),
            peer.path or "-",
            f"{peer.rtt_ms:.1f} ms" if peer.HasField("rtt_ms") else "-",
            _used_of(peer.memory_used_bytes, peer.memory_pledged_bytes),
        ]
        if detailed:
            row += [
                _used_of(peer.disk_used_bytes, peer.disk_pledged_bytes),
                f"{peer.compute_gflops:.1f}" if peer.compute_gflops else "-",
                peer.software_version or "-",
                ", ".join(f"{key}={value}" for key, value in sorted(peer.labels.items())) or "-",
                peer.addresses[0] if peer.addresses else "-",
            ]
        if crossbars:
            row += [peer.device_profile, _cells(peer)]
        rows.append(row)
    print_table(terminal, columns, rows)


def matrix_table(terminal: Terminal, matrices: Sequence[MatrixSummary]) -> None:
    """Print one row per matrix."""
    columns = [
        Column("MATRIX"),
        Column("VERSION", right=True),
        Column("SHAPE", right=True),
        Column("DTYPE"),
        Column("SIZE", right=True),
        Column("SURVIVES"),
        Column("OWNER"),
        Column("ON THIS NODE"),
    ]
    print_table(
        terminal,
        columns,
        [
            [
                Cell(matrix.name, "yellow" if is_conflict(matrix) else "bold"),
                str(matrix.version),
                f"{matrix.rows} x {matrix.columns}",
                dtype_name(matrix.data_type),
                format_bytes(matrix.size_bytes),
                survival(matrix.survive),
                matrix.owner_name or matrix.owner,
                _here(matrix),
            ]
            for matrix in matrices
        ],
    )


def survival(nodes: int) -> str:
    """Return how many nodes may be lost, as people say it."""
    return "no loss" if not nodes else f"the loss of {nodes} node{'s' if nodes > 1 else ''}"


def _state(peer: PeerSummary) -> Cell:
    state = peer_state(peer.state)
    colour = STATE_COLOURS.get(state)
    if state == "alive" and peer.node_state in (NodeState.NODE_STATE_STARTING, NodeState.NODE_STATE_DRAINING):
        return Cell(f"{state}, {node_state(peer.node_state)}", "yellow")
    return Cell(state, colour)


def _here(matrix: MatrixSummary) -> str:
    parts = []
    if matrix.resident_bytes_here:
        parts.append(f"{format_bytes(matrix.resident_bytes_here)} in memory")
    if matrix.standby_bytes_here:
        parts.append(f"{format_bytes(matrix.standby_bytes_here)} standby")
    return ", ".join(parts) or "-"


def _cells(peer: PeerSummary) -> str:
    return f"{peer.cells_used / peer.cells_pledged:.0%}" if peer.cells_pledged else "-"


def _used_of(used_bytes: int, pledged_bytes: int) -> str:
    return f"{format_bytes(used_bytes)} of {format_bytes(pledged_bytes)}" if pledged_bytes else "-"
