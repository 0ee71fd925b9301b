"""Every swarm over many seeds, several at a time: `scripts/swarm --seeds 5000`.

A swarm is a module of this package whose name ends in `swarm`. Its `run(seed)` raises where something happened that
must not, and `python -m MODULE --seed N --trace` replays a seed.
"""

from __future__ import annotations

import argparse
import pkgutil
import sys
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from functools import partial
from importlib import import_module
from multiprocessing import get_context

import sedmad.testing
from sedmad.testing.mesh import InvariantBroken

# A seed takes tenths of a second: a chunk is long beside what it costs to hand it out, and short to wait for.
CHUNK_SEEDS = 5
SHOWN_EVERY_S = 0.5


def swarms() -> list[str]:
    """Return the full names of all swarms' modules."""
    found = pkgutil.iter_modules(sedmad.testing.__path__, f"{sedmad.testing.__name__}.")
    return sorted(module.name for module in found if module.name.endswith("swarm"))


def failure_of(swarm: str, seed: int) -> str:
    """Run one seed; return what went wrong, nothing where all is well."""
    try:
        import_module(swarm).run(seed)
    except InvariantBroken as failure:
        return str(failure)
    except Exception:
        # A core that raises has failed no less, and this process has other seeds to run.
        return traceback.format_exc()
    return ""


def run_seeds(swarm: str, seeds: Sequence[int], *, jobs: int) -> bool:
    """Run a swarm's seeds until one fails, and tell how it went; return whether all were well."""
    name = swarm.rpartition(".")[2]
    began_s = time.monotonic()

    def rate(done: int) -> str:
        elapsed_s = time.monotonic() - began_s
        return f"{name}: {done:,} of {len(seeds):,} seeds from {seeds[0]}, {done / max(elapsed_s, 1e-9):.1f} a second"

    # Spawned, not forked: whoever calls this may have threads.
    with ProcessPoolExecutor(jobs, get_context("spawn")) as processes:
        failures = processes.map(partial(failure_of, swarm), seeds, chunksize=CHUNK_SEEDS)
        with closing(_shown(zip(seeds, failures, strict=True), rate)) as results:
            failed = next(((seed, failure) for seed, failure in results if failure), None)
        processes.shutdown(cancel_futures=True)
    if failed is None:
        print(f"{rate(len(seeds))}, all well")
        return True
    seed, failure = failed
    print(f"{rate(seed - seeds[0])}\n{failure.rstrip()}\n\nseed {seed} fails; replay it with:")
    print(f"  python -m {swarm} --seed {seed} --trace")
    return False


def _shown(
    results: Iterable[tuple[int, str]], rate: Callable[[int], str]
) -> Generator[tuple[int, str], None, None]:
    """Pass results on, and show on a terminal how many there were."""
    is_terminal = sys.stderr.isatty()
    shown_s = 0.0
    try:
        for done, result in enumerate(results, 1):
            now_s = time.monotonic()
            if is_terminal and now_s - shown_s > SHOWN_EVERY_S:
                print(f"\r\x1b[K{rate(done)}", end="", file=sys.stderr, flush=True)
                shown_s = now_s
            yield result
    finally:
        if is_terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run seeds from the command line; exit status 1 if one failed."""
    known = {swarm.rpartition(".")[2]: swarm for swarm in swarms()}
    parser = argparse.ArgumentParser(
        prog="scripts/swarm", description="Run simulated meshes in bad weather, many seeds of each swarm."
    )
    parser.add_argument("--seeds", type=_count, default=200, metavar="N", help="of each swarm (default 200)")
    parser.add_argument("--seed", type=int, default=0, metavar="FIRST", help="the first one (default 0)")
    parser.add_argument("--jobs", type=_count, default=2, metavar="N", help="processes (default 2)")
    parser.add_argument("--only", choices=known, help="one swarm instead of all")
    options = parser.parse_args(arguments)
    seeds = range(options.seed, options.seed + options.seeds)
    chosen = [known[options.only]] if options.only else known.values()
    # All of them, even if one fails: they are about different things.
    well = [run_seeds(swarm, seeds, jobs=options.jobs) for swarm in chosen]
    return 0 if all(well) else 1


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("one at least")
    return number


if __name__ == "__main__":
    sys.exit(main())
