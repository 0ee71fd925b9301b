#!/usr/bin/env python
"""What a relay costs: a circuit against a direct connection, over loopback, three processes, one JSON line each.

    scripts/bench/relay.py [--seconds N]

Figures are those of transport.py. `cpu_s_per_GB` is of the two ends; what the relay itself used is told apart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import trio
from transport import PROTOCOL, measure, report, serve_stream

from sedmad.net.host import PeerHost, open_host
from sedmad.net.identity import Identity
from sedmad.net.relay.hop import Relay

LOOPBACK = ["/ip4/127.0.0.1/tcp/0"]


def unix_time_s() -> float:
    return time.clock_gettime(time.CLOCK_REALTIME)


async def run_relay() -> None:
    async with open_host(Identity.make(), LOOPBACK) as host:
        Relay(host, is_member=lambda peer_id: True, wall_time=unix_time_s)
        print(json.dumps(host.listen_addresses), flush=True)
        await trio.sleep_forever()


async def run_server(relay: str) -> None:
    """Serve, directly and through the relay; print both addresses."""
    async with open_host(Identity.make(), LOOPBACK) as host:
        host.serve(PROTOCOL, serve_stream)
        await host.reserve(relay.rpartition("/p2p/")[2], [relay], now_s=unix_time_s())
        print(json.dumps(host.listen_addresses), flush=True)
        await trio.sleep_forever()


async def measure_both(addresses: list[str], relay: psutil.Process, seconds: float) -> None:
    peer_id = addresses[0].rpartition("/p2p/")[2]
    async with open_host(Identity.make(), []) as host:
        for address, path in zip(addresses, ("direct", "relayed"), strict=True):
            await measure_one(host, peer_id, address, path, relay, seconds)
            await host.disconnect(peer_id)


async def measure_one(
    host: PeerHost, peer_id: str, address: str, path: str, relay: psutil.Process, seconds: float
) -> None:
    began = time.perf_counter()
    await host.connect(peer_id, [address], timeout_s=5)
    report(path, "connect", ms=round((time.perf_counter() - began) * 1e3, 2))
    stream = await host.open_stream(peer_id, PROTOCOL, timeout_s=5)
    assert stream.path == path
    cpu_s = sum(relay.cpu_times()[:2])
    await measure(path, stream, seconds)
    report(
        path,
        "relay",
        cpu_s=round(sum(relay.cpu_times()[:2]) - cpu_s, 2),
        rss_MB=relay.memory_info().rss >> 20,
    )
    await stream.reset()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each figure is measured")
    parser.add_argument("--run", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if arguments.run:
        kind, *rest = arguments.run
        trio.run(*((run_relay,) if kind == "relay" else (run_server, *rest)))
        return
    with ExitStack() as stack:

        def start(*words: str) -> tuple[subprocess.Popen[str], list[str]]:
            command = [sys.executable, str(Path(__file__)), "--run", *words]
            process = stack.enter_context(
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            return process, json.loads(process.stdout.readline())

        relay, (relay_address, *_) = start("relay")
        _, addresses = start("server", relay_address)
        trio.run(measure_both, addresses, psutil.Process(relay.pid), arguments.seconds)


if __name__ == "__main__":
    main()
