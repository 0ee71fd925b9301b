"""Write a matrix into a .npy file, bit for bit as it was stored."""

from __future__ import annotations

import argparse

from sedmad.cli.json_contract import print_document
from sedmad.cli.progress import progress_bar
from sedmad.cli.terminal import output, printable
from sedmad.client import connect
from sedmad.sizes import format_bytes


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of the matrix; sedmad ls lists them")
    parser.add_argument(
        "-o", "--output", metavar="W.npy", required=True, help="the file to write, whole or not at all"
    )


def run(arguments: argparse.Namespace) -> int:
    with connect(arguments.home) as mesh:
        matrix = mesh[arguments.name]
        with progress_bar("receiving", matrix.nbytes, wanted=not arguments.json) as advance:
            matrix.save(
                arguments.output, progress=lambda received_bytes: advance(received_bytes, "receiving")
            )
    rows, columns = matrix.shape
    if arguments.json:
        print_document(
            {
                "name": matrix.name,
                "version": matrix.version,
                "shape": [rows, columns],
                "dtype": matrix.dtype.name,
                "size_bytes": matrix.nbytes,
                "output": arguments.output,
            }
        )
        return 0
    output().print(
        f"{printable(matrix.name)} version {matrix.version}, {rows} x {columns} {matrix.dtype.name}, "
        f"{format_bytes(matrix.nbytes)}, is in {printable(arguments.output)}"
    )
    return 0
