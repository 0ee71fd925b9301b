"""Whether this machine multiplies right."""

from __future__ import annotations

import numpy as np

from crossbar.ideal import IdealEngine
from crossbar.threads import single_threaded_blas
from sedmad.node.checks.daemon import in_thread
from sedmad.node.checks.subject import Subject
from sedmad.node.checks.verdict import Finding, fail, ok

# Larger than any block of BLAS, and not a multiple of one; milliseconds of work.
SHAPE = (523, 389)
DTYPES = ("float16", "float32", "float64", "int8")


async def check_engine(subject: Subject) -> Finding:
    """Have the exact engine compare products of every dtype with float64."""
    return await in_thread(_check)


def _check() -> Finding:
    single_threaded_blas()
    rng = np.random.default_rng()
    wrong = []
    for dtype in DTYPES:
        scale = 100 if dtype == "int8" else 1
        weights = (rng.uniform(-1, 1, SHAPE) * scale).astype(dtype)
        if not IdealEngine().program(weights).self_test(rng).passed:
            wrong.append(dtype)
    if wrong:
        return fail(
            f"products of {', '.join(wrong)} are wrong",
            "Install NumPy again; if it stays so, this machine's memory or processor may be failing.",
        )
    return ok(f"products of {', '.join(DTYPES)} are right")
