"""Deliberate defects, and whether the tests notice: `scripts/mutants`.

Each mutant of mutants.toml is applied to a copy of the tree, in which its tests run; they have to fail.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_name("mutants.toml")
COPIED = ("sedmad", "crossbar", "tests", "scripts", "proto", "pyproject.toml")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
# Tests of a mutant that hang have noticed it as well.
TIME_LIMIT_S = 300.0
TESTS_FAILED = 1


@dataclass(frozen=True, slots=True)
class Mutant:
    """One defect: `old` becomes `new` in a file, and one of `tests` has to fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def apply(self, tree: Path) -> None:
        path = tree / self.file
        path.write_text(path.read_text("utf-8").replace(self.old, self.new), "utf-8")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one run: `killed_by` names the first test that failed; empty where none did."""

    name: str
    killed_by: str
    seconds: float


def load_mutants() -> list[Mutant]:
    table = tomllib.loads(TABLE.read_text("utf-8"))
    return [Mutant(name, **{**row, "tests": tuple(row["tests"])}) for name, row in table.items()]


def try_out(mutant: Mutant) -> Verdict:
    """Run a mutant's tests on a copy of the tree that has the defect."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as directory:
        tree = Path(directory)
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, tree / name, ignore=LEFT_OUT)
            else:
                shutil.copy(ROOT / name, tree)
        mutant.apply(tree)
        killed_by = _first_failure(tree, mutant.tests)
    return Verdict(mutant.name, killed_by, time.monotonic() - began)


def _first_failure(tree: Path, tests: tuple[str, ...]) -> str:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", *tests]
    environ = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        command, cwd=tree, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=TIME_LIMIT_S)
    except subprocess.TimeoutExpired:
        # Only what was started here: its own session, with the daemons that tests start.
        os.killpg(process.pid, 9)
        process.communicate()
        return "no end"
    if process.returncode not in (0, TESTS_FAILED):
        raise SystemExit(f"pytest could not run {' '.join(tests)}:\n{output}")
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    return found[1].rpartition("/")[2] if found else "" if process.returncode == 0 else "a test"


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/mutants", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", help="this mutant; may be repeated")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time: 2")
    arguments = parser.parse_args()
    mutants = [mutant for mutant in load_mutants() if not arguments.only or mutant.name in arguments.only]
    if not mutants:
        parser.error("there is no such mutant")
    tests = tuple(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    if failed := try_out(Mutant("none", mutants[0].file, mutants[0].old, mutants[0].old, tests)).killed_by:
        raise SystemExit(f"{failed} fails without any mutant")
    survived = 0
    print(f"{'mutant':45} {'seconds':>7}  killed by")
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for verdict in pool.map(try_out, mutants):
            survived += not verdict.killed_by
            print(f"{verdict.name:45} {verdict.seconds:7.1f}  {verdict.killed_by or 'SURVIVED'}", flush=True)
    print(f"{len(mutants) - survived} of {len(mutants)} killed")
    sys.exit(1 if survived else 0)


if __name__ == "__main__":
    main()
