#!/usr/bin/env python
"""What clients cost: how long `sedmad status` takes, what `sedmad apply` has in memory, how long imports take.

    scripts/bench/client.py [--runs 11]

Times are wall times from the start of the interpreter to its end, medians. Memory is the most that the process of
`sedmad apply` was seen with, X being one column of 16 KiB; PSS counts libraries that the daemons use too in part.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
from figures import median_s, report
from meshes import memory_bytes, running_mesh

from sedmad.cli.demo.nodes import COMMAND

SAMPLE_S = 0.002
SIZE = 4096  # columns of float32: 16 KiB each
IMPORTS = ("pass", "import numpy", "import sedmad; sedmad.connect", "import sedmad.cli.main")


def run(command: list[str], home: Path) -> None:
    subprocess.run(
        command, env=os.environ | {"SEDMAD_HOME": str(home)}, stdout=subprocess.DEVNULL, check=True
    )


def largest_memory(command: list[str], home: Path) -> tuple[int, int]:
    """Run a command, and return the largest RSS and the largest PSS that its process was seen with, in bytes.

    Not by wait4: its maximum counts what the process had of its parent's before exec.
    """
    largest_rss_bytes, largest_pss_bytes = 0, 0
    with subprocess.Popen(
        command, env=os.environ | {"SEDMAD_HOME": str(home)}, stdout=subprocess.DEVNULL
    ) as process:
        while process.poll() is None:
            # A process that ends has no memory any more, and its files read as empty or not at all.
            with suppress(OSError):
                memory = memory_bytes(process.pid)
                largest_rss_bytes = max(largest_rss_bytes, memory.get("Rss", 0))
                largest_pss_bytes = max(largest_pss_bytes, memory.get("Pss", 0))
            time.sleep(SAMPLE_S)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return largest_rss_bytes, largest_pss_bytes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=11)
    arguments = parser.parse_args()
    for statement in IMPORTS:
        command = [sys.executable, "-c", statement]
        began_s = median_s(lambda command=command: run(command, Path()), arguments.runs)  # type: ignore[misc]
        report("client", "interpreter", statement=statement, s=began_s)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="sedmad-bench-") as folder, running_mesh(3) as nodes:
        home = nodes["a"].home
        status_s = median_s(lambda: run([*COMMAND, "status"], home), arguments.runs)
        report("client", "status", s=status_s)
        x_path, y_path = Path(folder) / "x.npy", Path(folder) / "y.npy"
        weights = rng.standard_normal((SIZE, SIZE), dtype=np.float32)
        x = rng.standard_normal((SIZE, 1), dtype=np.float32)
        np.save(x_path, x)
        with nodes["a"].connect() as mesh:
            mesh.put("w", weights, survive=0)
        command = [*COMMAND, "apply", "w", str(x_path), "-o", str(y_path)]
        samples, took_s = [], []
        for _ in range(arguments.runs):
            began = time.perf_counter()
            samples.append(largest_memory(command, home))
            took_s.append(time.perf_counter() - began)
        if not np.allclose(np.load(y_path), weights @ x, rtol=1e-3, atol=1e-2):
            raise SystemExit("sedmad apply has written a wrong product")
        report(
            "client",
            "apply",
            rss_MiB=statistics.median(rss for rss, _ in samples) / 2**20,
            pss_MiB=statistics.median(pss for _, pss in samples) / 2**20,
            s=statistics.median(took_s),
        )


if __name__ == "__main__":
    main()
