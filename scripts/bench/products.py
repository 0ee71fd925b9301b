#!/usr/bin/env python
"""Products with a 4096 x 4096 float32 matrix over three daemons, beside NumPy in one process, and beside Ray.

    scripts/bench/products.py [--seconds 5] [--rounds 3] [--free] [--ray-python PYTHON]

One client process asks, with 1, 8 and 24 products in flight: as many threads on one connection. BLAS runs on one thread
everywhere. The runs are interleaved, round by round; a figure is the median of its rounds. `communication_share` is
what is left of a product's latency without the service time of its slowest holder; one product in eight is explained.
CPU time is that of the client's process, of the node that it asks, and of the other two together.

Each node pledges memory for its third of the matrix, because on one machine the mesh would see, rightly, that it is
fastest to keep most of it on the node that is asked; --free lets it.

PYTHON is an interpreter that has Ray and NumPy: there, three actors hold a third of the rows each.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from crossbar.threads import single_threaded_blas

single_threaded_blas()  # before numpy: it must not start threads

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
from figures import median_s, percentile, report  # noqa: E402
from meshes import cpu_s, running_mesh  # noqa: E402
from ray_peer import RayPeer  # noqa: E402

import sedmad  # noqa: E402
from crossbar.error_bound import product_error_bound  # noqa: E402
from sedmad.cli.demo.nodes import LocalMesh  # noqa: E402
from sedmad.core.partitioning import Partitioning  # noqa: E402
from sedmad.wire.messages import CopyKind  # noqa: E402

IN_FLIGHT = (1, 8, 24)
SURVIVE = (0, 1)
NODES = 3
EXPLAINED = 8  # one product in that many
INPUTS = 8
WARM_UP_S = 0.5
CHECKED = 64  # one answer in that many

Array = npt.NDArray[Any]


@dataclass
class Run:
    """Products of one configuration.

    Attributes:
        cpu_s: what they cost the client, the node that it asked, and the other nodes together.
    """

    elapsed_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    communication_shares: list[float] = field(default_factory=list)
    joined_columns: list[int] = field(default_factory=list)
    cpu_s: dict[str, float] = field(default_factory=dict)

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


@dataclass(frozen=True, slots=True)
class Stored:
    """A matrix in its mesh."""

    nodes: LocalMesh
    matrix: sedmad.Matrix
    workload: Workload


def used_cpu_s(nodes: LocalMesh) -> dict[str, float]:
    asked, *others = (cpu_s(node.process_id) for node in nodes.nodes.values())
    return {"client": time.process_time(), "asked": asked, "others": sum(others)}


def measure(stored: Stored, in_flight: int, seconds: float) -> Run:
    """Multiply in as many threads for some seconds, after a while that does not count."""
    ask(stored.matrix, stored.workload, in_flight, WARM_UP_S)
    before = used_cpu_s(stored.nodes)
    run = ask(stored.matrix, stored.workload, in_flight, seconds)
    run.cpu_s = {where: after - before[where] for where, after in used_cpu_s(stored.nodes).items()}
    return run


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
        cpu_ms_per_product={
            where: round(sum(run.cpu_s[where] for run in runs) / len(latencies_ms) * 1e3, 2)
            for where in runs[0].cpu_s
        },
        ratio_to_numpy=per_s / local_per_s,
        **against_ray,
    )


def report_places(survive: int, mesh: sedmad.Mesh) -> None:
    """Report how many partitions each node computes."""
    computing: defaultdict[str, int] = defaultdict(int)
    for partition in mesh.inspect("w").partitions:
        for copy in partition.copies:
            computing[copy.name] += copy.kind == CopyKind.COPY_KIND_RESIDENT
    report("products", "partitions", survive=survive, asked="a", computing=dict(sorted(computing.items())))


def pledge(size: int, *, spread: bool) -> str:
    """Return what each of three nodes pledges: room for its third of the matrix and no more, if it shall be spread."""
    partitioning = Partitioning(size, size, itemsize=4)
    third = -(-partitioning.count // NODES) * partitioning.size_bytes(0)
    return f"{(third >> 20) + 1}MiB" if spread else "1GiB"


@contextmanager
def stored(survive: int, size: int, memory: str) -> Iterator[Stored]:
    """Yield a matrix in a mesh of its own: what lies there already would change where it is placed."""
    workload = Workload(size, seed=survive)
    with running_mesh(NODES, memory=memory) as nodes, nodes["a"].connect() as mesh:
        matrix = mesh.put("w", workload.weights, survive=survive)
        report_places(survive, mesh)
        yield Stored(nodes, matrix, workload)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=4096, help="rows and columns of the matrix")
    parser.add_argument("--free", action="store_true", help="let the mesh place it as it likes")
    parser.add_argument("--ray-python", metavar="PYTHON", help="interpreter that has Ray")
    arguments = parser.parse_args()
    memory = pledge(arguments.size, spread=not arguments.free)
    runs: defaultdict[tuple[int, int], list[Run]] = defaultdict(list)
    ray_per_s: defaultdict[int, list[float]] = defaultdict(list)
    local_s = []
    with ExitStack() as stack:
        matrices = {
            survive: stack.enter_context(stored(survive, arguments.size, memory)) for survive in SURVIVE
        }
        ray = None
        if arguments.ray_python:
            ray = stack.enter_context(RayPeer(arguments.ray_python, arguments.size))
        for round_number in range(arguments.rounds):
            print(f"products: round {round_number + 1} of {arguments.rounds}", file=sys.stderr)
            for in_flight in IN_FLIGHT:
                local_s.append(matrices[0].workload.local_s())
                for survive in SURVIVE:
                    run = measure(matrices[survive], in_flight, arguments.seconds)
                    runs[survive, in_flight].append(run)
                if ray is not None:
                    ray.products_per_s(in_flight, WARM_UP_S)
                    ray_per_s[in_flight].append(ray.products_per_s(in_flight, arguments.seconds))
    local_per_s = 1 / statistics.median(local_s)
    report("products", "numpy", threads=1, per_s=local_per_s, ms=1e3 / local_per_s)
    ray_medians = {in_flight: statistics.median(samples) for in_flight, samples in ray_per_s.items()}
    for in_flight, per_s in ray_medians.items():
        rounds = [round(sample, 1) for sample in ray_per_s[in_flight]]
        report("products", "ray", in_flight=in_flight, per_s=per_s, per_s_rounds=rounds)
    for (survive, in_flight), samples in sorted(runs.items()):
        report_runs(survive, in_flight, samples, local_per_s, ray_medians.get(in_flight))


if __name__ == "__main__":
    main()
