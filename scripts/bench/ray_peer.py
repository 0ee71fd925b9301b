"""The same products on Ray, for comparison: three actors that hold a third of the rows each.

The class starts this file with another interpreter, one that has Ray, and tells it by lines what to measure. What
is below it runs there, and imports nothing of ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import deque
from time import perf_counter
from types import TracebackType
from typing import Any, Self

ACTORS = 3
INPUTS = 8
OBJECT_STORE_BYTES = 256 << 20
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class RayPeer:
    """Ray in a process of its own; leaving the `with` block ends it.

    Args:
        python: interpreter that has Ray and NumPy.
        size: rows and columns of the matrix.
    """

    def __init__(self, python: str, size: int) -> None:
        self._process = subprocess.Popen(
            [python, __file__, str(size)],
            env=os.environ | ONE_THREAD | {"RAY_USAGE_STATS_ENABLED": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The end of its input ends it, and Ray's own processes with it.
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def products_per_s(self, in_flight: int, seconds: float) -> float:
        """Multiply for some seconds with so many products in flight, and return how many a second were done."""
        assert self._process.stdin is not None
        print(json.dumps([in_flight, seconds]), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> float:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            # Ray prints what it likes; ours begin like this.
            if line.startswith("figure "):
                return float(line.split()[1])
        raise SystemExit("Ray ended before its time")


class Block:
    """An actor: some rows, kept where it runs."""

    def __init__(self, weights: Any) -> None:
        # Its own copy: what comes lies in the object store, read-only, at any address.
        self.weights = weights.copy()

    def multiply(self, x: Any) -> Any:
        return self.weights @ x


def serve(size: int) -> None:
    import numpy as np
    import ray  # type: ignore[import-not-found,unused-ignore] # not in our environment

    ray.init(
        address="local",
        num_cpus=ACTORS,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        _node_ip_address="127.0.0.1",
        log_to_driver=False,
        logging_level="ERROR",
    )

    actor: Any = ray.remote(num_cpus=1)(Block)
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((size, size), dtype=np.float32)
    inputs = list(rng.standard_normal((INPUTS, size), dtype=np.float32))
    blocks = [actor.remote(block) for block in np.array_split(weights, ACTORS)]

    def ask(index: int) -> list[Any]:
        return [block.multiply.remote(inputs[index % INPUTS]) for block in blocks]

    answer = np.concatenate(ray.get(ask(0)))
    assert np.allclose(answer, weights @ inputs[0], rtol=1e-3, atol=1e-2)
    print("figure 0", flush=True)
    for line in sys.stdin:
        in_flight, seconds = json.loads(line)
        asked, done, under_way = 0, 0, deque[list[Any]]()
        began = perf_counter()
        while perf_counter() - began < seconds:
            while len(under_way) < in_flight:
                under_way.append(ask(asked))
                asked += 1
            np.concatenate(ray.get(under_way.popleft()))
            done += 1
        elapsed_s = perf_counter() - began
        for references in under_way:
            ray.get(references)
        print(f"figure {done / elapsed_s}", flush=True)
    ray.shutdown()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
