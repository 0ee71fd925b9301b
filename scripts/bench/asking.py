"""Products without a pause, every answer checked: the users whom faults are measured by."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from meshes import Background

import sedmad
from crossbar.error_bound import product_error_bound
from sedmad.cli.demo.questions import Reference
from sedmad.errors import SedmadError

INPUTS = 4
# A mesh that fails is asked this often: without a pause failures would crowd out everything else.
FAILURE_PAUSE_S = 0.05
FAILURES_KEPT = 100


class Products(Background):
    """Multiplies without a pause inside a `with` block.

    Args:
        matrix: by what.
        references: what is asked, in turn.
        in_flight: products at a time.

    Attributes:
        times: when each right product began and ended, by time.perf_counter, in the order of their ends.
        failures: why others failed; the first of them.
        failed, wrong: how many.
    """

    def __init__(self, matrix: sedmad.Matrix, references: Sequence[Reference], in_flight: int = 1) -> None:
        super().__init__(self._run, in_flight)
        self.times: list[tuple[float, float]] = []
        self.failures: list[str] = []
        self.failed = 0
        self.wrong = 0
        self._matrix = matrix
        self._references = references

    def took_ms(self, since_s: float, until_s: float) -> list[float]:
        """Return how long the products took that began between two times."""
        return [(ended - began) * 1e3 for began, ended in self.times if since_s <= began < until_s]

    def first_after_s(self, at_s: float) -> float | None:
        """Return the seconds from a time to the end of the first product that began after it; None without one."""
        ended = [ended for began, ended in self.times if began >= at_s]
        return min(ended) - at_s if ended else None

    def _run(self, done: threading.Event) -> None:
        for reference in itertools.cycle(self._references):
            if done.is_set():
                return
            began = time.perf_counter()
            try:
                answer = self._matrix @ reference.x
            except SedmadError as error:
                self.failed += 1
                if len(self.failures) < FAILURES_KEPT:
                    self.failures.append(f"{error.what}: {error.why}")
                done.wait(FAILURE_PAUSE_S)
                continue
            ended = time.perf_counter()
            if reference.difference(answer)[1] > 1:
                self.wrong += 1
            else:
                self.times.append((began, ended))


def random_matrix(rows: int, columns: int, seed: int) -> tuple[npt.NDArray[np.float32], list[Reference]]:
    """Return a (rows, columns) float32 matrix, and some vectors with NumPy's products and their bounds."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((rows, columns), dtype=np.float32)
    inputs = rng.standard_normal((INPUTS, columns), dtype=np.float32)
    bounds = product_error_bound(weights, inputs)
    return weights, [Reference(*parts) for parts in zip(inputs, inputs @ weights.T, bounds, strict=True)]
