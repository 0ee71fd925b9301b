#!/usr/bin/env python
"""What a daemon costs that has nothing to do, in a mesh of eight: memory (PSS) and CPU.

    scripts/bench/idle.py [--nodes 8] [--settle 30] [--seconds 20]

One figure per node, and their medians. A node measures its speed anew 5, 20 and 80 s after its start, for a twentieth
of a second each: --settle lets two of these pass, the third comes after the window.
"""

from __future__ import annotations

import argparse
import statistics
import time

from figures import report
from meshes import cpu_s, memory_bytes, running_mesh


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--settle", type=float, default=30.0, help="seconds to wait before measuring")
    parser.add_argument("--seconds", type=float, default=20.0, help="seconds to measure")
    arguments = parser.parse_args()
    with running_mesh(arguments.nodes) as mesh:
        time.sleep(arguments.settle)
        nodes = list(mesh.nodes.values())
        used_s = {node.name: cpu_s(node.process_id) for node in nodes}
        began = time.monotonic()
        time.sleep(arguments.seconds)
        elapsed_s = time.monotonic() - began
        cores, resident = [], []
        for node in nodes:
            cores.append((cpu_s(node.process_id) - used_s[node.name]) / elapsed_s * 100)
            memory = memory_bytes(node.process_id)
            resident.append(memory["Pss"] / 2**20)
            report(
                "idle",
                "node",
                node=node.name,
                pss_MiB=resident[-1],
                anonymous_MiB=memory["Anonymous"] / 2**20,
                core_percent=cores[-1],
            )
    report(
        "idle",
        "median",
        nodes=arguments.nodes,
        pss_MiB=statistics.median(resident),
        pss_largest_MiB=max(resident),
        core_percent=statistics.median(cores),
        core_largest_percent=max(cores),
    )


if __name__ == "__main__":
    main()
