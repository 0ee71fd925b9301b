#!/usr/bin/env python
"""Products with a 4096 x 4096 float32 matrix over three daemons, beside NumPy in one process, and beside Ray.

    scripts/bench/products.py [--seconds 5] [--rounds 3] [--ray-python PYTHON]

One client process asks, with 1, 8 and 24 products in flight: as many threads on one connection. BLAS runs on one thread
everywhere. The runs are interleaved, round by round; a figure is the median of its rounds. `communication_share` is
what is left of a product's latency without the service time of its slowest holder; one product in eight is explained.

PYTHON is an interpreter that has Ray and NumPy: there, three actors hold a third of the rows each.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from crossbar.threads import single_threaded_blas

single_threaded_blas()  # before numpy: it must not start threads

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
from figures import median_s, percentile, report  # noqa: E402
from meshes import running_mesh  # noqa: E402
from ray_peer import RayPeer  # noqa: E402

import sedmad  # noqa: E402
from crossbar.error_bound import product_error_bound  # noqa: E402

IN_FLIGHT = (1, 8, 24)
SURVIVE = (0, 1)
EXPLAINED = 8  # one product in that many
INPUTS = 8
CHECKED = 64  # one answer in that many, outside the measured time of others but not of its own thread

Array = npt.NDArray[Any]


@dataclass
class Run:
    """Products of one configuration."""

    elapsed_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    communication_shares: list[float] = field(default_factory=list)
    joined_columns: list[int] = field(default_factory=list)

    @property
    def per_s(self) -> float:
        return len(self.latencies_s) / self.elapsed_s


class Workload:
    """A matrix, what it is multiplied with, and what must come out."""

    def __init__(self, size: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.weights: Array = rng.standard_normal((size, size), dtype=np.float32)
        self.inputs: Array = rng.standard_normal((INPUTS, size), dtype=np.float32)
        self.outputs: Array = self.inputs.astype(np.float64) @ self.weights.T.astype(np.float64)
        self.bounds = product_error_bound(self.weights, self.inputs)

    def check(self, index: int, answer: Array) -> None:
        if not (np.abs(answer - self.outputs[index]) <= self.bounds[index]).all():
            raise SystemExit("a product is wrong")

    def local_s(self) -> float:
        """Return the seconds that NumPy takes for one product, on one thread."""
        return median_s(lambda: self.weights @ self.inputs[0], runs=20)


def ask(matrix: sedmad.Matrix, workload: Workload, in_flight: int, seconds: float) -> Run:
    """Multiply in as many threads for some seconds."""
    run, lock, start = Run(), threading.Lock(), threading.Barrier(in_flight + 1)
    failures: list[BaseException] = []

    def work(thread: int) -> None:
        latencies, shares, joined = [], [], []
        start.wait()
        until, count = perf_counter() + seconds, thread
        try:
            while (began := perf_counter()) < until:
                index = count % INPUTS
                if count % EXPLAINED:
                    answer = matrix @ workload.inputs[index]
                    latencies.append(perf_counter() - began)
                else:
                    answer, explanation = matrix.apply(workload.inputs[index], explain=True)
                    latencies.append(perf_counter() - began)
                    panel = explanation.panels[0]
                    slowest_ms = max(part.service_ms for part in panel.answers)
                    shares.append(1 - slowest_ms * 1e-3 / latencies[-1])
                    joined.append(panel.joined_columns)
                if count % CHECKED == 0:
                    workload.check(index, answer)
                count += 1
        except BaseException as error:
            failures.append(error)
        with lock:
            run.latencies_s += latencies
            run.communication_shares += shares
            run.joined_columns += joined

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(in_flight)]
    for thread in threads:
        thread.start()
    start.wait()
    began = perf_counter()
    for thread in threads:
        thread.join()
    run.elapsed_s = perf_counter() - began
    if failures:
        raise failures[0]
    return run


def report_runs(
    survive: int, in_flight: int, runs: list[Run], local_per_s: float, ray_per_s: float | None
) -> None:
    """Report the median over the rounds; percentiles are over all products of all rounds."""
    per_s = statistics.median(run.per_s for run in runs)
    latencies_ms = [latency * 1e3 for run in runs for latency in run.latencies_s]
    against_ray = {} if ray_per_s is None else {"ratio_to_ray": per_s / ray_per_s}
    report(
        "products",
        "sedmad",
        survive=survive,
        in_flight=in_flight,
        per_s=per_s,
        per_s_rounds=[round(run.per_s, 1) for run in runs],
        p50_ms=percentile(latencies_ms, 0.5),
        p99_ms=percentile(latencies_ms, 0.99),
        communication_share=statistics.median(share for run in runs for share in run.communication_shares),
        joined_columns=statistics.mean(joined for run in runs for joined in run.joined_columns),
        ratio_to_numpy=per_s / local_per_s,
        **against_ray,
    )


def report_places(mesh: sedmad.Mesh, matrices: dict[int, sedmad.Matrix]) -> None:
    """Report how many partitions each node computes: the share of the asked node decides much."""
    for survive, matrix in matrices.items():
        counts: defaultdict[str, int] = defaultdict(int)
        for partition in mesh.inspect(matrix.name).partitions:
            counts[partition.copies[0].name] += 1
        report("products", "partitions", survive=survive, asked="a", computing=dict(sorted(counts.items())))


@contextmanager
def ray_peer(python: str | None, size: int) -> Iterator[RayPeer | None]:
    if python is None:
        yield None
        return
    with RayPeer(python, size) as peer:
        yield peer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=4096, help="rows and columns of the matrix")
    parser.add_argument("--ray-python", metavar="PYTHON", help="interpreter that has Ray")
    arguments = parser.parse_args()
    # Different contents: a node keeps equal bytes once, whatever their names.
    workloads = {survive: Workload(arguments.size, seed=survive) for survive in SURVIVE}
    with (
        running_mesh(3) as nodes,
        nodes["a"].connect() as mesh,
        ray_peer(arguments.ray_python, arguments.size) as ray,
    ):
        matrices = {
            survive: mesh.put(f"w{survive}", workload.weights, survive=survive)
            for survive, workload in workloads.items()
        }
        report_places(mesh, matrices)
        runs: defaultdict[tuple[int, int], list[Run]] = defaultdict(list)
        ray_per_s: defaultdict[int, list[float]] = defaultdict(list)
        local_s = []
        for round_number in range(arguments.rounds):
            print(f"products: round {round_number + 1} of {arguments.rounds}", file=sys.stderr)
            for in_flight in IN_FLIGHT:
                local_s.append(workloads[0].local_s())
                for survive in SURVIVE:
                    ask(matrices[survive], workloads[survive], in_flight, 0.5)
                    run = ask(matrices[survive], workloads[survive], in_flight, arguments.seconds)
                    runs[survive, in_flight].append(run)
                if ray is not None:
                    ray.products_per_s(in_flight, 0.5)
                    ray_per_s[in_flight].append(ray.products_per_s(in_flight, arguments.seconds))
    local_per_s = 1 / statistics.median(local_s)
    report("products", "numpy", threads=1, per_s=local_per_s, ms=1e3 / local_per_s)
    ray_medians = {in_flight: statistics.median(samples) for in_flight, samples in ray_per_s.items()}
    for in_flight, per_s in ray_medians.items():
        report("products", "ray", in_flight=in_flight, per_s=per_s, per_s_rounds=ray_per_s[in_flight])
    for (survive, in_flight), samples in sorted(runs.items()):
        report_runs(survive, in_flight, samples, local_per_s, ray_medians.get(in_flight))


if __name__ == "__main__":
    main()
