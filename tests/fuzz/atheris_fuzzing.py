"""Fuzz one target with atheris, guided by what of our code its input reaches; `scripts/fuzz` starts this.

Input that ends in a bug is kept, and replayed by giving it as an argument: `scripts/fuzz frames --replay FILE`.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "node")]

with atheris.instrument_imports(include=["sedmad"]):
    from mallory import attack
    from parsers import PARSERS, seeds

NODE = "node"
TARGETS = {**PARSERS, NODE: attack}
# A frame is larger, but a fuzzer learns faster from little; an attack on a node ends after so many choices.
INPUT_BYTES_MAX = 4096
# For one input. An attack starts a node, on a machine that may be busy.
TIMEOUT_S = 60
RSS_MIB = 2048


def _choices() -> Iterator[bytes]:
    """Yield attacks to begin with, of a few dozen requests each."""
    chance = random.Random(0)
    for _ in range(20):
        yield chance.randbytes(1000)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, default=Path(".fuzz"), help="where input is kept: .fuzz")
    parser.add_argument("--replay", type=Path, help="run one input and nothing else")
    arguments = parser.parse_args()
    target = TARGETS[arguments.target]
    if arguments.replay:
        target(arguments.replay.read_bytes())
        return
    corpus = arguments.corpus / arguments.target
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in _choices() if arguments.target == NODE else seeds(arguments.target):
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    options = {
        "max_total_time": arguments.seconds,
        "max_len": INPUT_BYTES_MAX,
        "timeout": TIMEOUT_S,
        "rss_limit_mb": RSS_MIB,
        "artifact_prefix": f"{arguments.corpus}/{arguments.target}-",
        "print_final_stats": 1,
    }
    atheris.Setup(
        [sys.argv[0], *(f"-{name}={value}" for name, value in options.items()), str(corpus)], target
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
