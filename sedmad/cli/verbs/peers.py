"""Show the other nodes of the mesh, those that died of late among them."""

from __future__ import annotations

import argparse

from sedmad.cli import json_contract
from sedmad.cli.listings import peer_table
from sedmad.cli.short_ids import short_ids
from sedmad.cli.terminal import messages, output
from sedmad.client import connect


def configure(parser: argparse.ArgumentParser) -> None:
    pass


def run(arguments: argparse.Namespace) -> int:
    with connect(arguments.home) as mesh:
        peers = mesh.peers()
    if arguments.json:
        json_contract.print_document(json_contract.peers_document(peers))
    elif peers:
        peer_table(output(), peers, short_ids(peer.peer_id for peer in peers), detailed=True)
    else:
        messages().print("No other node is known. Add one with: sedmad invite")
    return 0
