"""Remove a matrix from the mesh, and free its bytes on all nodes that are up.

Nodes that are not up are told when they come back.
"""

from __future__ import annotations

import argparse

from sedmad.cli.json_contract import print_document
from sedmad.cli.terminal import messages, output, printable
from sedmad.client import connect
from sedmad.sizes import format_bytes


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of the matrix; sedmad ls lists them")


def run(arguments: argparse.Namespace) -> int:
    with connect(arguments.home) as mesh:
        response = mesh.remove(arguments.name)
    if arguments.json:
        print_document(
            {
                "name": arguments.name,
                "freed_bytes": response.freed_bytes,
                "unreachable": list(response.unreachable),
            }
        )
        return 0
    output().print(
        f"{printable(arguments.name)} is removed; {format_bytes(response.freed_bytes)} are free again"
    )
    if response.unreachable:
        names = printable(", ".join(response.unreachable))
        messages().print(f"These nodes could not be told now, and free theirs when they are back: {names}")
    return 0
