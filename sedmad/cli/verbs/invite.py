"""Print a token that admits one more node to the mesh; stdout holds nothing else. It needs the running daemon."""

from __future__ import annotations

import argparse
import time

from sedmad.cli.options import duration
from sedmad.cli.terminal import messages, output
from sedmad.client import connect
from sedmad.durations import format_duration
from sedmad.errors import UsageError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--expires",
        metavar="24h",
        type=duration,
        default=24 * 3600.0,
        help="how long it admits (default: 24h)",
    )


def run(arguments: argparse.Namespace) -> int:
    expires_s = int(arguments.expires)
    if expires_s < 1:
        raise UsageError(
            "the token would have expired already",
            why=f"--expires is {arguments.expires:g} s",
            hint="Give it a second or more: --expires 24h",
        )
    with connect(arguments.home) as mesh:
        invitation = mesh.invite(expires_s)
    if arguments.json:
        from sedmad.cli.json_contract import print_document

        print_document({"token": invitation.token, "expires_at_s": invitation.expires_at_s})
        return 0
    output().print(invitation.token)
    if messages().is_terminal:
        until = time.strftime("%Y-%m-%d %H:%M", time.localtime(invitation.expires_at_s))
        messages().print(
            f"It admits one node within {format_duration(expires_s)}, until {until}. On that node: sedmad join TOKEN"
        )
    return 0
