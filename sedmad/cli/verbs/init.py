"""Make an identity for this node where there is none, and a new mesh whose root key lies in its home."""

from __future__ import annotations

import argparse
import os

from sedmad.cli.terminal import messages, output, printable
from sedmad.home import Home


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--name", metavar="NAME", help="what the others call this node (default: the host's name)"
    )


def run(arguments: argparse.Namespace) -> int:
    from sedmad.node.setup import init_mesh

    made = init_mesh(Home.locate(arguments.home, os.environ), arguments.name)
    if arguments.json:
        from sedmad.cli.json_contract import print_document

        print_document({"peer_id": made.peer_id, "name": made.name, "mesh_id": made.mesh_id})
        return 0
    output().print(
        f"{printable(made.name)} ({made.peer_id}) is the first node of the new mesh {made.mesh_id}"
    )
    messages().print("Start it with: sedmad start — then invite others with: sedmad invite")
    return 0
