"""Empty a node of its copies before it leaves, or have it stay after all.

The node takes nothing new from now on; the owners of what it holds make those copies elsewhere, and other guardians
take over what it owns. That goes on when this command ends, and after a restart of the node. Its daemon can be stopped
when nothing is left there.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack

from sedmad.cli import json_contract
from sedmad.cli.progress import Advance, progress_bar
from sedmad.cli.terminal import messages, output, printable
from sedmad.client import connect
from sedmad.wire.messages import DrainNodeResponse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "node", nargs="?", default="", metavar="NODE", help="name or peer id (default: this node)"
    )
    parser.add_argument("--cancel", action="store_true", help="let it stay: it takes copies again")


def run(arguments: argparse.Namespace) -> int:
    with connect(arguments.home) as mesh, ExitStack() as stack:
        shown = _Shown(stack, wanted=not arguments.json)
        last = DrainNodeResponse()
        for last in mesh.drain(arguments.node, cancel=arguments.cancel):
            shown.update(last)
    if arguments.json:
        json_contract.print_document(json_contract.drain_document(last, cancelled=arguments.cancel))
    else:
        outcome = (
            "stays: it takes copies again" if arguments.cancel else "is empty: its daemon can be stopped"
        )
        output().print(f"{printable(last.node.name)} {outcome}")
    return 0


class _Shown:
    """What of a drain's progress is on the terminal."""

    def __init__(self, stack: ExitStack, *, wanted: bool) -> None:
        self._stack = stack
        self._wanted = wanted
        self._advance: Advance | None = None
        self._total_bytes = 0
        self._waiting_for = ""

    def update(self, progress: DrainNodeResponse) -> None:
        left = progress.left
        if self._advance is None:
            self._total_bytes = left.bytes_left
            bar = progress_bar("moving copies", left.bytes_left, wanted=self._wanted)
            self._advance = self._stack.enter_context(bar)
        description = f"{left.copies_left} copies and {left.owned_left} ownerships left"
        # Copies may have come in between the decision and the news of it.
        self._advance(max(0, self._total_bytes - left.bytes_left), description)
        if self._wanted and left.waiting_for != self._waiting_for:
            self._waiting_for = left.waiting_for
            for line in left.waiting_for.splitlines():
                messages().print(f"waiting: {printable(line)}")
