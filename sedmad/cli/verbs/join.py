"""Make an identity for this node where there is none, and have it admitted to a mesh."""

from __future__ import annotations

import argparse
import os
import sys

from sedmad.cli.terminal import messages, output, printable
from sedmad.home import Home

# Tokens have at most 4096 characters; whatever else stands on stdin is not read.
TOKEN_CHARACTERS_MAX = 8192


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "token", metavar="TOKEN", help="what `sedmad invite` printed on a member; - reads it from stdin"
    )
    parser.add_argument(
        "--name", metavar="NAME", help="what the others call this node (default: the host's name)"
    )


def run(arguments: argparse.Namespace) -> int:
    from sedmad.node.setup import join_mesh

    # Arguments can be seen by every user of the machine: - keeps the token from them.
    given: str = arguments.token
    token = sys.stdin.read(TOKEN_CHARACTERS_MAX) if given == "-" else given
    joined = join_mesh(Home.locate(arguments.home, os.environ), token.strip(), arguments.name)
    if arguments.json:
        from sedmad.cli.json_contract import print_document

        print_document({"peer_id": joined.peer_id, "name": joined.name, "mesh_id": joined.mesh_id})
        return 0
    output().print(f"{printable(joined.name)} ({joined.peer_id}) is a member of the mesh {joined.mesh_id}")
    messages().print("Start it with: sedmad start")
    return 0
