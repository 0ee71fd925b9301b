"""Store a .npy file (two dimensions; float16, float32, float64 or int8) as a matrix of the mesh.

It is streamed, so it may be larger than this machine's memory. The command ends when the bytes are safe on as many
nodes as was asked for. The same content under the same name is a success.
"""

from __future__ import annotations

import argparse
import os

from sedmad.cli import json_contract
from sedmad.cli.listings import survival
from sedmad.cli.options import node_count, target_error
from sedmad.cli.progress import progress_bar
from sedmad.cli.terminal import output, printable
from sedmad.client import connect
from sedmad.client.upload import PutProgress
from sedmad.sizes import format_bytes


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE.npy", help="what numpy.save wrote")
    parser.add_argument("--name", metavar="NAME", required=True, help="what the matrix is called in the mesh")
    parser.add_argument(
        "--survive",
        metavar="N",
        type=node_count,
        default=1,
        help="how many nodes may be lost at once without losing the matrix (default: 1)",
    )
    parser.add_argument(
        "--scale", metavar="S.npy", help="for int8: a factor for each row, with which products are multiplied"
    )
    parser.add_argument(
        "--target-error",
        metavar="E",
        type=target_error,
        default=0.0,
        help="relative error that products may have on average, as 0.01: nodes with simulated crossbars compute on "
        "them (default: 0, exact everywhere)",
    )
    parser.add_argument(
        "--profile",
        metavar="NAME",
        default="",
        help="with a target: compute on devices of this profile alone (sedmad profiles lists them)",
    )
    parser.add_argument(
        "--replace", action="store_true", help="make it a new version where the name is taken"
    )
    parser.add_argument("--allow-nonfinite", action="store_true", help="take NaN and infinities as they are")


def run(arguments: argparse.Namespace) -> int:
    size_bytes = os.path.getsize(arguments.file) if os.path.isfile(arguments.file) else 0
    with (
        connect(arguments.home) as mesh,
        progress_bar("checking for room", size_bytes, wanted=not arguments.json) as advance,
    ):

        def show(progress: PutProgress) -> None:
            # What the daemon has received is safe a moment later; the slower of both is what people wait for.
            share = progress.safe_bytes / progress.total_copy_bytes if progress.total_copy_bytes else 1.0
            sent = progress.received_bytes >= progress.size_bytes
            advance(
                min(progress.received_bytes, int(progress.size_bytes * share)),
                progress.phase or ("making safe" if sent else "sending"),
            )

        response = mesh.upload(
            arguments.name,
            arguments.file,
            survive=arguments.survive,
            replace=arguments.replace,
            allow_nonfinite=arguments.allow_nonfinite,
            scale=arguments.scale,
            target_error=arguments.target_error,
            profile=arguments.profile,
            progress=show,
        )
    matrix = response.matrix
    if arguments.json:
        document = json_contract.matrix_document(matrix)
        json_contract.print_document({**document, "already_stored": response.already_stored})
        return 0
    verb = "was stored already" if response.already_stored else "is stored"
    output().print(
        f"{printable(matrix.name)} {verb}: version {matrix.version}, {matrix.rows} x {matrix.columns} "
        f"{json_contract.dtype_name(matrix.data_type)}, {format_bytes(matrix.size_bytes)}, "
        f"survives {survival(matrix.survive)}"
    )
    return 0
