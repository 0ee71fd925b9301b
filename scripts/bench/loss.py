#!/usr/bin/env python
"""What a lost holder costs: products in a loop on one thread, and holders that die or freeze one after the other.

    scripts/bench/loss.py [--losses 20] [--size 4096]

For every loss: the time from it to the end of the first correct product that began after it, and the longest product
that was under way then or later, until the holder is back. A killed holder (SIGKILL) tells its peers by a closed
connection; a frozen one (SIGSTOP) says nothing, as a cable that is pulled. Between losses the holder comes back.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import sys
import time

from asking import Products, random_matrix
from figures import percentile, report
from meshes import running_mesh

from sedmad.cli.demo.nodes import LocalMesh, LocalNode
from sedmad.cli.demo.questions import Reference
from sedmad.wire.messages import CopyKind

BEFORE_S = 1.0
AFTER_S = 5.0
SETTLE_S = 3.0
NODES = 4
# What one node may use of its memory: the matrix has to lie on several.
MEMORY_SHARE = 0.4


def lose(node: LocalNode, number: signal.Signals, loop: Products) -> dict[str, float]:
    """Take a holder away under a running loop, and return what that cost."""
    with loop:
        time.sleep(BEFORE_S)
        lost_at = time.perf_counter()
        if number == signal.SIGKILL:
            node.kill()
        else:
            node.signal(number)
        time.sleep(AFTER_S)
    after = [ended for began, ended in loop.times if began > lost_at]
    if not after:
        raise SystemExit(f"no product succeeded within {AFTER_S} s of the loss")
    return {
        "rerouted_ms": (after[0] - lost_at) * 1e3,
        "longest_ms": max(ended - began for began, ended in loop.times if ended > lost_at) * 1e3,
        "usual_ms": percentile([ended - began for began, ended in loop.times if ended < lost_at], 0.5) * 1e3,
    }


def bring_back(nodes: LocalMesh, node: LocalNode, number: signal.Signals) -> None:
    if number == signal.SIGKILL:
        node.start()
    else:
        node.signal(signal.SIGCONT)
    nodes.wait_complete()
    # Its peers try it again a moment after it is back.
    time.sleep(SETTLE_S)


def measure(nodes: LocalMesh, references: list[Reference], number: signal.Signals, losses: int) -> None:
    """Lose holders in turn, and report every loss and the percentiles of all."""
    with nodes["a"].connect() as mesh:
        partitions = mesh.inspect("w").partitions
        holders = sorted(
            {
                copy.name
                for partition in partitions
                for copy in partition.copies
                if copy.kind == CopyKind.COPY_KIND_RESIDENT and copy.name != "a"
            }
        )
        costs = []
        for loss, name in zip(range(losses), itertools.cycle(holders), strict=False):
            print(f"loss: {number.name} {loss + 1} of {losses}", file=sys.stderr)
            loop = Products(mesh["w"], references)
            costs.append(lose(nodes[name], number, loop))
            report(
                "loss",
                number.name,
                node=name,
                **costs[-1],
                products=len(loop.times),
                failed=loop.failed,
                wrong=loop.wrong,
            )
            bring_back(nodes, nodes[name], number)
    summary: dict[str, float] = {}
    for figure in ("rerouted_ms", "longest_ms"):
        samples = [cost[figure] for cost in costs]
        summary |= {f"{figure}_p50": percentile(samples, 0.5), f"{figure}_p99": percentile(samples, 0.99)}
    report("loss", f"{number.name} of all", losses=losses, **summary)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--losses", type=int, default=20, help="of each kind")
    parser.add_argument("--size", type=int, default=4096, help="rows and columns of the matrix")
    arguments = parser.parse_args()
    weights, references = random_matrix(arguments.size, arguments.size, seed=0)
    memory = f"{max(9, int(weights.nbytes * MEMORY_SHARE) >> 20)}MiB"
    with running_mesh(NODES, memory=memory) as nodes:
        with nodes["a"].connect() as mesh:
            mesh.put("w", weights, survive=1)
        for number in (signal.SIGKILL, signal.SIGSTOP):
            measure(nodes, references, number, arguments.losses)


if __name__ == "__main__":
    main()
