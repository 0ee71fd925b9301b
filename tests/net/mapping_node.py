"""A machine that keeps one port mapped, as a process of its own: it answers there, and prints each state as JSON.

    mapping_node.py PORT PROTOCOL LIFETIME_S

It ends, removing its mapping, when its standard input does.
"""

from __future__ import annotations

import json
import random
import sys

import structlog
import trio

from sedmad.net.mapping.keeper import KeeperSettings, MappingState, PortMappingKeeper
from sedmad.net.mapping.nat_pmp_gateway import find_nat_pmp
from sedmad.net.mapping.upnp import find_upnp

FINDERS = {"nat-pmp": (find_nat_pmp,), "upnp": (find_upnp,), "both": (find_nat_pmp, find_upnp)}


def tell(state: MappingState) -> None:
    mapped = state.mapped
    line = {
        "protocol": mapped and mapped.protocol,
        "address": state.address,
        "lifetime_s": mapped and mapped.lifetime_s,
        "problem": state.problem,
    }
    print(json.dumps(line), flush=True)


async def answer(stream: trio.SocketStream) -> None:
    async with stream:
        await stream.send_all(b"here")


async def main(port: int, protocol: str, lifetime_s: int) -> None:
    settings = KeeperSettings(lifetime_s, check_every_s=0.5, shortest_pause_s=0.3, retry_after_s=0.5)
    keeper = PortMappingKeeper(
        port, random.Random(port), finders=FINDERS[protocol], settings=settings, on_change=tell
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_tcp, answer, port)
        nursery.start_soon(keeper.run)
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    trio.run(main, int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
