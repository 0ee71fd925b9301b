"""Run this node's daemon in the foreground until SIGTERM, Ctrl-C or `sedmad stop`.

Options here go before the environment (SEDMAD_LISTEN, SEDMAD_ANNOUNCE, SEDMAD_MEMORY, SEDMAD_DISK, SEDMAD_PROFILE,
SEDMAD_ARRAYS, SEDMAD_LABELS, SEDMAD_LOG_LEVEL), and that before config.toml in the home, which has the same names in
lower case: memory = "2GiB".
"""

from __future__ import annotations

import argparse
import os

from sedmad.cli.options import array_count, label
from sedmad.home import Home


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--listen",
        metavar="MULTIADDR",
        action="append",
        help="where others reach this node (default: /ip4/0.0.0.0/tcp/4717)",
    )
    parser.add_argument(
        "--announce",
        metavar="MULTIADDR",
        action="append",
        help="an address to tell others instead of those found",
    )
    parser.add_argument(
        "--memory", metavar="2GiB", help="memory pledged to the mesh: a size, or a share (default: 25%%)"
    )
    parser.add_argument(
        "--disk",
        metavar="200GiB",
        help="disk pledged to the mesh: a size, or a share of what is free (default: 80%%)",
    )
    parser.add_argument(
        "--profile",
        metavar="NAME",
        help="devices of this node's simulated crossbar arrays; sedmad profiles lists them (default: ideal)",
    )
    parser.add_argument(
        "--arrays",
        metavar="N",
        type=array_count,
        help="crossbar arrays of this node (default: as many as its memory can simulate)",
    )
    parser.add_argument(
        "--label",
        metavar="KEY=VALUE",
        action="append",
        type=label,
        help="what placement may ask for: zone=attic",
    )


def run(arguments: argparse.Namespace) -> int:
    from sedmad.node.run import run_daemon

    settings = {
        "listen": arguments.listen,
        "announce": arguments.announce,
        "memory": arguments.memory,
        "disk": arguments.disk,
        "profile": arguments.profile,
        "arrays": arguments.arrays,
        "labels": None if arguments.label is None else dict(arguments.label),
    }
    overrides: dict[str, object] = {key: value for key, value in settings.items() if value is not None}
    run_daemon(Home.locate(arguments.home, os.environ), overrides)
    return 0
