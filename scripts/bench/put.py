#!/usr/bin/env python
"""Storing a float32 file over three daemons: MB/s at survive 0 and 1, beside what the parts of the way can do.

    scripts/bench/put.py [--mebibytes 512] [--rounds 2]

Beside it, in the same run: Noise + yamux between two processes (`host`), raw TLS, and the disk, written once and
fsynced. Reports how far the owner's anonymous memory grows while the file goes in, and what all daemons together have
in memory afterwards (PSS, which counts mapped resident copies), against the bytes of the user; and what they wrote to
disks and computed for it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from figures import report
from meshes import Background, cpu_s, memory_bytes, running_mesh, written_bytes

from sedmad.cli.demo.nodes import LocalMesh
from sedmad.wire.messages import InspectMatrixResponse

COLUMNS = 4096
SURVIVE = (0, 1)
SAMPLE_S = 0.05
CHUNK_BYTES = 1 << 20
# Until mapped pages of what was removed are given back, and clocks of two steps have passed.
SETTLE_S = 2.0


@dataclass(frozen=True, slots=True)
class Used:
    """Sums over all daemons."""

    pss_bytes: int
    written_bytes: int
    cpu_s: float


class AnonymousGrowth(Background):
    """Watches by how much a process's anonymous memory grows inside a `with` block."""

    def __init__(self, process_id: int) -> None:
        super().__init__(self._watch)
        self._process_id = process_id
        self._before = memory_bytes(process_id)["Anonymous"]
        self.growth_bytes = 0

    def _watch(self, done: threading.Event) -> None:
        while not done.wait(SAMPLE_S):
            now = memory_bytes(self._process_id)["Anonymous"]
            self.growth_bytes = max(self.growth_bytes, now - self._before)


def write_file(path: Path, size_bytes: int, seed: int) -> None:
    """Write a matrix of that size, row block by row block."""
    rng = np.random.default_rng(seed)
    rows = size_bytes // (COLUMNS * 4)
    file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, COLUMNS))
    for start in range(0, rows, 1024):
        file[start : start + 1024] = rng.standard_normal(file[start : start + 1024].shape, dtype=np.float32)
    file.flush()


def disk_mb_per_s(folder: Path, source: Path) -> float:
    """Copy the file once, with fsync at the end."""
    path = folder / "disk"
    size_bytes = 0
    with source.open("rb") as reader, path.open("wb", buffering=0) as writer:
        began = time.perf_counter()
        while chunk := reader.read(CHUNK_BYTES):
            size_bytes += writer.write(chunk)
        os.fsync(writer.fileno())
        elapsed_s = time.perf_counter() - began
    path.unlink()
    return size_bytes / 1e6 / elapsed_s


def transport_mb_per_s() -> dict[str, float]:
    """Run transport.py, and return its bulk figures by transport."""
    script = Path(__file__).with_name("transport.py")
    done = subprocess.run(
        [sys.executable, str(script), "--seconds", "1"], stdout=subprocess.PIPE, text=True, check=True
    )
    figures = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {line["transport"]: line["MB_per_s"] for line in figures if line["figure"] == "bulk"}


def moved_copies(place: InspectMatrixResponse, owner: str) -> float:
    """Return how many times the matrix went from its owner to others, partitions counted by their rows."""
    rows = sum(
        partition.row_stop - partition.row_start
        for partition in place.partitions
        for copy in partition.copies
        if copy.name != owner
    )
    return float(rows / place.matrix.rows)


def used(nodes: LocalMesh) -> Used:
    """Return what all daemons together have in memory, and have used until now."""
    process_ids = [node.process_id for node in nodes.nodes.values()]
    return Used(
        pss_bytes=sum(memory_bytes(process_id)["Pss"] for process_id in process_ids),
        written_bytes=sum(map(written_bytes, process_ids)),
        cpu_s=sum(map(cpu_s, process_ids)),
    )


def measure_put(nodes: LocalMesh, path: Path, survive: int) -> dict[str, float]:
    """Store the file, measure, and remove it."""
    with nodes["a"].connect() as mesh:
        before = used(nodes)
        with AnonymousGrowth(nodes["a"].process_id) as watch:
            began = time.perf_counter()
            matrix = mesh.put("file", path, survive=survive)
            elapsed_s = time.perf_counter() - began
        time.sleep(SETTLE_S)
        after = used(nodes)
        figures = {
            "MB_per_s": matrix.nbytes / 1e6 / elapsed_s,
            "moved_copies": moved_copies(mesh.inspect("file"), "a"),
            "owner_anonymous_growth_MiB": watch.growth_bytes / 2**20,
            "pss_growth_over_user": (after.pss_bytes - before.pss_bytes) / matrix.nbytes,
            "written_over_user": (after.written_bytes - before.written_bytes) / matrix.nbytes,
            "cpu_s_per_GB": (after.cpu_s - before.cpu_s) / matrix.nbytes * 1e9,
        }
        mesh.remove("file")
        time.sleep(SETTLE_S)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mebibytes", type=int, default=512, help="size of the file")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    parts: defaultdict[str, list[float]] = defaultdict(list)
    puts: defaultdict[int, list[dict[str, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="sedmad-bench-") as folder, running_mesh(3) as nodes:
        path = Path(folder) / "file.npy"
        for round_number in range(arguments.rounds):
            print(f"put: round {round_number + 1} of {arguments.rounds}", file=sys.stderr)
            write_file(path, arguments.mebibytes << 20, seed=round_number)
            parts["disk"].append(disk_mb_per_s(Path(folder), path))
            for transport, figure in transport_mb_per_s().items():
                parts[transport].append(figure)
            for survive in SURVIVE:
                puts[survive].append(measure_put(nodes, path, survive))
    medians = {part: statistics.median(samples) for part, samples in parts.items()}
    for part, figure in medians.items():
        report("put", part, MB_per_s=figure)
    for survive, rounds in puts.items():
        figures = {name: statistics.median(found[name] for found in rounds) for name in rounds[0]}
        # What Noise + yamux would need for the copies that leave the owner, or for all of them.
        possible = medians["host"] / max(figures["moved_copies"], 1e-9)
        report(
            "put",
            "sedmad",
            survive=survive,
            mebibytes=arguments.mebibytes,
            **figures,
            of_noise_yamux_over_moved=figures["MB_per_s"] / possible,
            of_noise_yamux_over_copies=figures["MB_per_s"] / (medians["host"] / (survive + 1)),
        )


if __name__ == "__main__":
    main()
