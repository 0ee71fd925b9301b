"""Show where a matrix lies, partition by partition."""

from __future__ import annotations

import argparse

from sedmad.cli import json_contract
from sedmad.cli.listings import survival
from sedmad.cli.table import Cell, Column, print_facts, print_table
from sedmad.cli.terminal import STATE_COLOURS, Terminal, output, printable
from sedmad.client import connect
from sedmad.durations import format_duration
from sedmad.sizes import format_bytes
from sedmad.wire.messages import CopyKind, CopyReport, InspectMatrixResponse, PartitionReport, PeerState


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of the matrix; sedmad ls lists them")


def run(arguments: argparse.Namespace) -> int:
    with connect(arguments.home) as mesh:
        inspected = mesh.inspect(arguments.name)
    if arguments.json:
        json_contract.print_document(json_contract.inspect_document(inspected))
    else:
        _print(output(), inspected)
    return 0


def _print(terminal: Terminal, inspected: InspectMatrixResponse) -> None:
    matrix = inspected.matrix
    dtype = json_contract.dtype_name(matrix.data_type)
    guardians = ", ".join(guardian.name or guardian.peer_id for guardian in inspected.guardians)
    facts = [
        ("matrix", f"{terminal.paint(printable(matrix.name), 'bold')}, version {matrix.version}"),
        ("values", f"{matrix.rows} x {matrix.columns} {dtype}, {format_bytes(matrix.size_bytes)}"),
        *([("scale", "a factor for each row")] if inspected.scaled else []),
        *([("accuracy", _accuracy(inspected))] if inspected.target_error else []),
        ("survives", survival(matrix.survive)),
        ("owner", printable(matrix.owner_name or matrix.owner)),
        ("guardians", printable(guardians) or "-"),
        ("manifest", f"epoch {inspected.epoch}, seq {inspected.seq}"),
        ("content", matrix.matrix_digest.hex()),
    ]
    if inspected.degraded:
        facts.append((terminal.paint("degraded".ljust(9), "yellow"), printable(inspected.degraded)))
    print_facts(terminal, facts)
    terminal.print()
    columns = [
        Column("PARTITION", right=True),
        Column("ROWS", right=True),
        Column("IN THE MEMORY OF"),
        Column("STANDBY ON THE DISK OF"),
    ]
    rows: list[list[str | Cell]] = [
        [
            str(partition.index),
            f"{partition.row_start}-{partition.row_stop - 1}",
            _holders(partition, CopyKind.COPY_KIND_RESIDENT),
            _holders(partition, CopyKind.COPY_KIND_STANDBY),
        ]
        for partition in inspected.partitions
    ]
    print_table(terminal, columns, rows)
    if inspected.target_error:
        terminal.print()
        _print_devices(terminal, inspected)


def _accuracy(inspected: InspectMatrixResponse) -> str:
    text = f"products may be off by {inspected.target_error:.3g} on average"
    return f"{text}, on {printable(inspected.profile)}" if inspected.profile else text


def _print_devices(terminal: Terminal, inspected: InspectMatrixResponse) -> None:
    """Print how each resident copy is computed with: errors are relative, L2."""
    columns = [
        Column("PARTITION", right=True),
        Column("NODE"),
        Column("DEVICES"),
        Column("PREDICTED", right=True),
        Column("MEASURED", right=True),
        Column("CELLS USED", right=True),
        Column("OF", right=True),
        Column("AGE", right=True),
        Column("LEVERS"),
    ]
    rows: list[list[str | Cell]] = [
        [str(partition.index), copy.name or copy.peer_id, *_devices(copy)]
        for partition in inspected.partitions
        for copy in partition.copies
        if copy.kind == CopyKind.COPY_KIND_RESIDENT
    ]
    print_table(terminal, columns, rows)


def _devices(copy: CopyReport) -> list[str | Cell]:
    if not copy.HasField("devices"):
        return [Cell("unknown", "yellow"), "-", "-", "-", "-", "-", "its node does not answer"]
    devices = copy.devices
    if not devices.cells_allocated:
        return [devices.profile, "-", "-", "-", "-", "-", devices.digital_because or "-"]
    return [
        devices.profile,
        f"{devices.predicted_error:.2g}",
        f"{devices.measured_error:.2g}",
        f"{devices.cells_used:,}",
        f"{devices.cells_allocated:,}",
        format_duration(devices.age_s),
        ", ".join(devices.levers) or "-",
    ]


def _holders(partition: PartitionReport, kind: CopyKind.ValueType) -> Cell:
    names, colour = [], None
    for copy in partition.copies:
        if copy.kind != kind:
            continue
        name = copy.name or copy.peer_id
        if copy.state in (PeerState.PEER_STATE_SUSPECT, PeerState.PEER_STATE_DEAD):
            state = json_contract.peer_state(copy.state)
            name, colour = f"{name} ({state})", STATE_COLOURS[state]
        names.append(name)
    return Cell(", ".join(names) or "-", colour)
