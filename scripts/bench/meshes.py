"""Meshes to measure: daemons as child processes in a temporary folder, and what their processes use."""

from __future__ import annotations

import os
import random
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from sedmad.cli.demo.nodes import LocalMesh, LocalNode

HOST = "127.0.0.1"
# Below those that Linux gives to connections.
SETTLED_PORTS = range(20_000, 32_000)
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class SettledNode(LocalNode):
    """A node that listens at the same port whenever it is started: a whole mesh that was off finds itself again."""

    def __init__(self, name: str, folder: Path, *, memory: str, disk: str) -> None:
        super().__init__(name, folder, memory=memory, disk=disk)
        self._port = _settled_port()

    def _address_options(self) -> tuple[str, ...]:
        return ("--listen", f"/ip4/{HOST}/tcp/{self._port}")


def _settled_port() -> int:
    """Return a port that nobody has, and that no connection is given while its node is down."""
    for port in random.sample(SETTLED_PORTS, len(SETTLED_PORTS)):
        with suppress(OSError), socket.create_server((HOST, port)):
            return port
    raise SystemExit(f"all TCP ports from {SETTLED_PORTS.start} to {SETTLED_PORTS.stop} are in use")


@contextmanager
def running_mesh(count: int, *, memory: str = "1GiB", disk: str = "8GiB") -> Iterator[LocalMesh]:
    """Yield a mesh of nodes called a, b, c, ... that all know each other; nothing remains of it."""
    with tempfile.TemporaryDirectory(prefix="sedmad-bench-") as folder:
        names = "abcdefghijklmnopqrstuvwxyz"[:count]
        nodes = (SettledNode(name, Path(folder), memory=memory, disk=disk) for name in names)
        with LocalMesh(nodes) as mesh:
            mesh.form()
            yield mesh


class Background:
    """Runs a function on threads of its own, from entering its `with` block to leaving it.

    Args:
        run: returns soon once the event that it is given is set.
        threads: how many run it.
    """

    def __init__(self, run: Callable[[threading.Event], None], threads: int = 1) -> None:
        self._done = threading.Event()
        self._threads = [
            threading.Thread(target=run, args=(self._done,), daemon=True) for _ in range(threads)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()


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
