"""Meshes to measure: daemons as child processes in a temporary folder, and what their processes use."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sedmad.cli.demo.nodes import LocalMesh, LocalNode

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@contextmanager
def running_mesh(count: int, *, memory: str = "1GiB", disk: str = "8GiB") -> Iterator[LocalMesh]:
    """Yield a mesh of nodes called a, b, c, ... that all know each other; nothing remains of it."""
    with tempfile.TemporaryDirectory(prefix="sedmad-bench-") as folder:
        names = "abcdefghijklmnopqrstuvwxyz"[:count]
        nodes = (LocalNode(name, Path(folder), memory=memory, disk=disk) for name in names)
        with LocalMesh(nodes) as mesh:
            mesh.form()
            yield mesh


def memory_bytes(process_id: int) -> dict[str, int]:
    """Return what a process has of memory, by the names of /proc/PID/smaps_rollup: Rss, Pss, Anonymous, ...

    Pss counts a page shared by n processes as 1/n of a page in each.
    """
    sizes = {}
    for line in Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines()[1:]:
        name, kibibytes, _ = line.split()
        sizes[name.rstrip(":")] = int(kibibytes) * 1024
    return sizes


def cpu_s(process_id: int) -> float:
    """Return the CPU seconds that a process has used, in user mode and in the kernel."""
    # The name is in brackets and may hold anything; utime and stime are fields 14 and 15.
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def written_bytes(process_id: int) -> int:
    """Return the bytes that a process has had written to disks, as the kernel counts them."""
    lines = Path(f"/proc/{process_id}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes:"))
