"""Show the matrices of the mesh."""

from __future__ import annotations

import argparse

from sedmad.cli import json_contract
from sedmad.cli.listings import matrix_table
from sedmad.cli.terminal import messages, output
from sedmad.client import connect


def configure(parser: argparse.ArgumentParser) -> None:
    pass


def run(arguments: argparse.Namespace) -> int:
    with connect(arguments.home) as mesh:
        matrices = mesh.summaries()
    if arguments.json:
        json_contract.print_document(json_contract.matrices_document(matrices))
    elif matrices:
        matrix_table(output(), matrices)
    else:
        messages().print("The mesh holds no matrix yet. Store one with: sedmad put FILE.npy --name NAME")
    return 0
