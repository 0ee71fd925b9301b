#!/usr/bin/env python
"""What it takes until a lost holder's copies are made again: five daemons, survive 1, two products always under way.

    scripts/bench/repair.py [--mebibytes 256] [--rounds 2]

In each round the matrix is stored, the node that holds most of it is killed (SIGKILL), and the times are counted from
there: until it is suspected, until the first product that began afterwards is answered, until it is held for dead,
until its copies begin to be made again elsewhere, and until every partition has all its copies without it. `MB_per_s`
is what was restored over the last of these stretches. Products are told apart as before, during (until all is whole)
and after.

The node that is killed holds about two fifths of the matrix's size: --mebibytes 640 has about 256 MiB restored.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass

from asking import Products, random_matrix
from figures import percentile, report
from meshes import running_mesh

import sedmad
from sedmad.cli.demo.nodes import LocalMesh
from sedmad.cli.demo.questions import Reference
from sedmad.wire.messages import InspectMatrixResponse, PeerState

COLUMNS = 4096
NODES = 5
SURVIVE = 1
IN_FLIGHT = 2
BEFORE_S = 5.0
AFTER_S = 5.0
POLL_S = 0.05
TIMEOUT_S = 180.0
OWNER = "a"
IN_MEDIAN = (
    *("suspected_s", "rerouted_s", "dead_s", "begun_s", "whole_s", "restored_MiB", "MB_per_s"),
    *("before_p50_ms", "before_p99_ms", "during_p50_ms", "during_p99_ms", "after_p50_ms", "after_p99_ms"),
)


@dataclass(slots=True)
class Milestones:
    """Seconds since the kill, and what was restored until the last one."""

    suspected_s: float | None = None
    dead_s: float | None = None
    begun_s: float | None = None
    whole_s: float | None = None
    restored_bytes: int = 0


def held_bytes(place: InspectMatrixResponse) -> dict[str, int]:
    """Return how much each node holds of a matrix, by name."""
    row_bytes = place.matrix.size_bytes // place.matrix.rows
    held: dict[str, int] = {}
    for partition in place.partitions:
        for copy in partition.copies:
            rows = partition.row_stop - partition.row_start
            held[copy.name] = held.get(copy.name, 0) + rows * row_bytes
    return held


def is_whole(place: InspectMatrixResponse, without: str) -> bool:
    """Whether every partition has as many copies as were promised, a node that is lost not counted."""
    return all(
        sum(copy.name != without for copy in partition.copies) > place.matrix.survive
        for partition in place.partitions
    )


def watch(mesh: sedmad.Mesh, lost: str, killed_at: float) -> Milestones:
    """Watch what the owner makes of a loss, until everything is whole."""
    seen = Milestones()
    before_bytes = mesh.status().restored_bytes
    while seen.whole_s is None:
        status = mesh.status()
        now_s = time.perf_counter() - killed_at
        state = next(peer.state for peer in status.peers if peer.name == lost)
        if seen.suspected_s is None and state != PeerState.PEER_STATE_ALIVE:
            seen.suspected_s = now_s
        if seen.dead_s is None and state == PeerState.PEER_STATE_DEAD:
            seen.dead_s = now_s
        if seen.begun_s is None and any(repair.step_bytes for repair in status.repairs):
            seen.begun_s = now_s
        if seen.dead_s is not None and is_whole(mesh.inspect("w"), lost):
            seen.whole_s = now_s
        if now_s > TIMEOUT_S:
            raise SystemExit(f"not whole {TIMEOUT_S:g} s after the loss: {status.repairs}")
        time.sleep(POLL_S)
    # The owner counts a step when it is over, which is a moment after others can see what came of it.
    while not seen.restored_bytes and time.perf_counter() - killed_at < TIMEOUT_S:
        time.sleep(POLL_S)
        seen.restored_bytes = mesh.status().restored_bytes - before_bytes
    return seen


def measure(nodes: LocalMesh, references: list[Reference]) -> dict[str, float | None]:
    """Kill the node that holds most, watch the repair, start it again, and return what was seen."""
    with nodes[OWNER].connect() as mesh:
        held = held_bytes(mesh.inspect("w"))
        held.pop(OWNER, None)
        lost = max(held, key=lambda name: held[name])
        with Products(mesh["w"], references, IN_FLIGHT) as products:
            began_at = time.perf_counter()
            time.sleep(BEFORE_S)
            killed_at = time.perf_counter()
            nodes[lost].kill()
            seen = watch(mesh, lost, killed_at)
            whole_at = time.perf_counter()
            time.sleep(AFTER_S)
            ended_at = time.perf_counter()
    figures: dict[str, float | None] = {
        "lost_MiB": held[lost] / 2**20,
        "suspected_s": seen.suspected_s,
        "rerouted_s": products.first_after_s(killed_at),
        "dead_s": seen.dead_s,
        "begun_s": seen.begun_s,
        "whole_s": seen.whole_s,
        "restored_MiB": seen.restored_bytes / 2**20,
        "MB_per_s": None,
    }
    if seen.begun_s is not None and seen.whole_s is not None:
        figures["MB_per_s"] = seen.restored_bytes / 1e6 / (seen.whole_s - seen.begun_s)
    stretches = {
        "before": (began_at, killed_at),
        "during": (killed_at, whole_at),
        "after": (whole_at, ended_at),
    }
    for stretch, (since_s, until_s) in stretches.items():
        took_ms = products.took_ms(since_s, until_s)
        for share in (0.5, 0.99):
            figures[f"{stretch}_p{share * 100:.0f}_ms"] = percentile(took_ms, share) if took_ms else None
    figures |= {"products": len(products.times), "wrong": products.wrong, "failed": products.failed}
    for failure in products.failures[:3]:
        print(f"repair: a product failed: {failure}", file=sys.stderr)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mebibytes", type=int, default=256, help="size of the matrix")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    size_bytes = arguments.mebibytes << 20
    weights, references = random_matrix(size_bytes // (COLUMNS * 4), COLUMNS, seed=0)
    rounds = []
    for number in range(arguments.rounds):
        print(f"repair: round {number + 1} of {arguments.rounds}", file=sys.stderr)
        # A mesh of its own for each: a node that died often lately is waited for longer.
        with running_mesh(NODES) as nodes:
            with nodes[OWNER].connect() as mesh:
                mesh.put("w", weights, survive=SURVIVE)
            rounds.append(measure(nodes, references))
        report("repair", "round", mebibytes=arguments.mebibytes, **rounds[-1])
    medians = {}
    for name in IN_MEDIAN:
        seen = [figure for figures in rounds if (figure := figures[name]) is not None]
        medians[name] = percentile(seen, 0.5) if seen else None
    for name in ("wrong", "failed"):
        medians[name] = sum(figures[name] or 0 for figures in rounds)
    report("repair", "median", mebibytes=arguments.mebibytes, rounds=len(rounds), **medians)


if __name__ == "__main__":
    main()
