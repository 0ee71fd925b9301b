"""Show the matrices of the mesh: the present version of each name, and what of it lies on this node.

Where two nodes stored matrices under one name while they could not hear each other, one of them keeps the name, the
same one everywhere; the other goes by name@author until it is removed or stored under another name.
"""

from __future__ import annotations

import argparse

from sedmad.cli import json_contract
from sedmad.cli.listings import matrix_table
from sedmad.cli.terminal import messages, output, printable
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
        _tell_conflicts([matrix.name for matrix in matrices if json_contract.is_conflict(matrix)])
    else:
        messages().print("The mesh holds no matrix yet. Store one with: sedmad put FILE.npy --name NAME")
    return 0


def _tell_conflicts(names: list[str]) -> None:
    if names:
        terminal = messages()
        terminal.print(
            f"{terminal.paint('conflict:', 'yellow')} another node's matrix has the name of "
            f"{printable(', '.join(names))}; sedmad get and rm take it as it stands here"
        )
