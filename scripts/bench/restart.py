#!/usr/bin/env python
"""What it takes to come back: five daemons that are killed (SIGKILL) at once and started again, and an owner for good.

    scripts/bench/restart.py [--mebibytes 256] [--rounds 2]

Four matrices, each of a quarter of the size and put by another node, survive 1. Times are counted from the moment the
last daemon has been started: until every node has answered one product with every matrix, rightly, and until every node
has as many bytes resident as before. The pages of their files are still in the machine's cache, as after a kill and not
as after a power cut. Then an owner is killed and stays away: `owned_s` is from the kill until another node says that it
owns the matrix, `whole_s` until all its copies are there without the dead one.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from asking import random_matrix
from figures import percentile, report
from meshes import running_mesh
from repair import is_whole

from sedmad.cli.demo.nodes import LocalMesh, LocalNode
from sedmad.cli.demo.questions import Reference
from sedmad.errors import SedmadError
from sedmad.wire.messages import PeerState

COLUMNS = 4096
NODES = 5
SURVIVE = 1
MATRICES = 4
POLL_S = 0.05
TIMEOUT_S = 120.0


def serves_s(node: LocalNode, references: Mapping[str, Reference], since: float) -> float:
    """Return the seconds from `since` until a node has answered with every matrix."""
    left = dict(references)
    why = "nothing was asked"
    while left:
        try:
            with node.connect() as mesh:
                for name, reference in list(left.items()):
                    answer = mesh[name] @ reference.x
                    if reference.difference(answer)[1] > 1:
                        raise SystemExit(f"{node.name} answered wrongly with {name}")
                    del left[name]
        except SedmadError as error:
            why = str(error)
            time.sleep(POLL_S)
        if time.perf_counter() - since > TIMEOUT_S:
            raise SystemExit(f"{node.name} does not answer with {', '.join(left)}: {why}")
    return time.perf_counter() - since


def ready_s(node: LocalNode, since: float) -> float:
    """Return the seconds from `since` until a node answers its own clients."""
    node.wait_ready()
    return time.perf_counter() - since


def resident_bytes(nodes: LocalMesh) -> dict[str, int]:
    """Return what each node has resident, as far as it answers."""
    found = {}
    for node in nodes.nodes.values():
        with node.connect() as mesh:
            found[node.name] = mesh.status().memory_used_bytes
    return found


def restart(nodes: LocalMesh, references: Mapping[str, Reference]) -> dict[str, float]:
    """Kill all, start all, and return what it took."""
    before = resident_bytes(nodes)
    for node in nodes.nodes.values():
        node.kill()
    began = time.perf_counter()
    for node in nodes.nodes.values():
        node.start()
    started = time.perf_counter()
    with ThreadPoolExecutor(2 * NODES) as threads:
        ready = [threads.submit(ready_s, node, started) for node in nodes.nodes.values()]
        serving = [threads.submit(serves_s, node, references, started) for node in nodes.nodes.values()]
        figures = {
            "started_s": started - began,
            "ready_s": max(future.result() for future in ready),
            "serving_s": max(future.result() for future in serving),
        }
    while resident_bytes(nodes) != before:
        if time.perf_counter() - started > TIMEOUT_S:
            raise SystemExit(f"not everything is resident again: {resident_bytes(nodes)}, and was {before}")
        time.sleep(POLL_S)
    return figures | {"resident_s": time.perf_counter() - started}


def lose_owner(nodes: LocalMesh, name: str, owner: str) -> dict[str, float]:
    """Kill the owner of a matrix for good, and return the seconds until others did what it would have done."""
    killed = time.perf_counter()
    nodes[owner].kill()
    figures: dict[str, float] = {}
    with next(node for node in nodes.nodes.values() if node.name != owner).connect() as mesh:
        while "whole_s" not in figures:
            now_s = time.perf_counter() - killed
            place = mesh.inspect(name)
            if any(peer.name == owner and peer.state == PeerState.PEER_STATE_DEAD for peer in mesh.peers()):
                figures.setdefault("dead_s", now_s)
            if place.matrix.owner_name != owner:
                figures.setdefault("owned_s", now_s)
                if is_whole(place, owner):
                    figures["whole_s"] = now_s
            if now_s > TIMEOUT_S:
                raise SystemExit(f"{TIMEOUT_S:g} s after the loss of {owner} there is only {figures}")
            time.sleep(POLL_S)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mebibytes", type=int, default=256, help="size of all matrices")
    parser.add_argument("--rounds", type=int, default=2, help="restarts of the whole mesh")
    arguments = parser.parse_args()
    rows = (arguments.mebibytes << 20) // MATRICES // (COLUMNS * 4)
    references = {}
    rounds = []
    with running_mesh(NODES) as nodes:
        owners = dict(zip((f"w{number}" for number in range(MATRICES)), nodes.nodes, strict=False))
        for number, (name, owner) in enumerate(owners.items()):
            weights, (reference, *_) = random_matrix(rows, COLUMNS, seed=number)
            with nodes[owner].connect() as mesh:
                mesh.put(name, weights, survive=SURVIVE)
            references[name] = reference
        nodes.wait_complete()
        for number in range(arguments.rounds):
            print(f"restart: round {number + 1} of {arguments.rounds}", file=sys.stderr)
            rounds.append(restart(nodes, references))
            report("restart", "mesh", mebibytes=arguments.mebibytes, nodes=NODES, **rounds[-1])
            nodes.wait_complete()
        medians = {figure: percentile([found[figure] for found in rounds], 0.5) for figure in rounds[0]}
        report("restart", "median", mebibytes=arguments.mebibytes, rounds=len(rounds), **medians)
        name, owner = list(owners.items())[-1]
        print(f"restart: {owner}, which owns {name}, is killed for good", file=sys.stderr)
        report("restart", "owner", **lose_owner(nodes, name, owner))


if __name__ == "__main__":
    main()
