"""Kernels are compiled once, in a child, into a folder of the caller's choice."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from crossbar import irdrop
from crossbar.errors import KernelsUnavailable
from crossbar.kernels import compiling
from crossbar.kernels.compiling import Compiled, cache_folder, compile_in_child, is_whole
from crossbar.kernels.groups import GROUPS, SIMULATION, WIRES

_USE = """
import dataclasses, json, pathlib, sys
from crossbar.kernels import compiling
from crossbar.kernels.groups import GROUPS, SIMULATION
compiling.load(pathlib.Path(sys.argv[1]), SIMULATION)
import importlib, numpy as np, crossbar
from crossbar.planning.plan import Plan
weights = np.ones((40, 50), np.float32)
fixed = weights.copy()
fixed.flags.writeable = False
generic, pcm = crossbar.profile("generic"), crossbar.profile("pcm_nandakumar2019")
plan = dataclasses.replace(Plan.default(pcm), encoding="offset", write_verify_tolerance=0.01, write_verify_tries=3)
for made in (
    crossbar.program(weights, generic, seed=1),
    crossbar.program(fixed, generic, seed=1),
    crossbar.program(weights, pcm, seed=1, plan=plan).aged(60.0),
):
    for vectors in (1, 9):
        made.apply(np.ones((50, vectors), np.float32))
        made.apply_transposed(np.ones((40, vectors), np.float32))
found = {}
for module, name, _ in GROUPS[SIMULATION]:
    kernel = getattr(importlib.import_module("crossbar.kernels." + module), name)
    stats = kernel.stats
    found[module + "." + name] = [sum(stats.cache_misses.values()), len(kernel.signatures)]
print(json.dumps(found))
"""


def used_with(caches: Path) -> dict[str, list[int]]:
    """Return for each kernel how often another process had to compile it, and for how many argument types."""
    done = subprocess.run(
        [sys.executable, "-c", _USE, str(caches)], capture_output=True, text=True, check=True, timeout=300
    )
    found: dict[str, list[int]] = json.loads(done.stdout)
    return found


def test_a_child_compiles_everything_and_others_load_it(tmp_path: Path) -> None:
    reported: list[Compiled] = []
    folder = compile_in_child(tmp_path, SIMULATION, reported.append)
    assert folder == cache_folder(tmp_path, SIMULATION)
    total = len(GROUPS[SIMULATION])
    assert [each.done for each in reported] == list(range(1, total + 1))
    assert {each.total for each in reported} == {total}
    assert is_whole(folder)
    for name, (misses, signatures) in used_with(tmp_path).items():
        assert misses == 0, f"{name} was compiled although it is in the cache, for {signatures} types"
    again: list[Compiled] = []
    compile_in_child(tmp_path, SIMULATION, again.append)
    assert not again  # nothing to do

    damaged = next(folder.rglob("*.nbc"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert not is_whole(folder)


def test_a_damaged_cache_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    def compile_into(folder: Path, *_: object) -> None:
        made.append(folder)
        (folder / "kernel.nbc").write_bytes(b"compiled")

    monkeypatch.setattr(compiling, "_compile_into", compile_into)  # the real one takes 10 s
    folder = compile_in_child(tmp_path, WIRES)
    compile_in_child(tmp_path, WIRES)
    assert len(made) == 1
    (folder / "kernel.nbc").write_bytes(b"damaged")
    (folder / "stranger").write_bytes(b"of another machine")
    assert compile_in_child(tmp_path, WIRES) == folder
    assert len(made) == 2
    assert sorted(path.name for path in folder.iterdir()) == ["kernel.nbc", "kernels.json"]
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]  # no half-made folder is left


@pytest.mark.parametrize("listing", [b"", b"\xff\xfe", b"[]", b"{}", b"[" * 100_000, b'{"a.nbi": 3}'])
def test_a_listing_that_makes_no_sense_is_not_whole(tmp_path: Path, listing: bytes) -> None:
    (tmp_path / "kernels.json").write_bytes(listing)
    assert not is_whole(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(KernelsUnavailable, match="cannot be kept"):
        compile_in_child(tmp_path / "file", WIRES)


def test_a_compiler_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(KernelsUnavailable, match="not compiled"):
        compile_in_child(tmp_path, WIRES, timeout_s=0.01)
    assert not is_whole(cache_folder(tmp_path, WIRES))


def test_wires_are_relaxed_by_the_kernel_that_is_listed() -> None:
    irdrop.solve(np.full((4, 5), 1e-5), np.ones((4, 2)), 1.0, 1.0, method="relaxation")
    (listed,) = GROUPS[WIRES]
    kernel = getattr(importlib.import_module(f"crossbar.kernels.{listed.module}"), listed.name)
    assert compiling.numba_types(listed) in kernel.signatures


def test_numba_stays_out_until_it_is_needed() -> None:
    script = "import sys, crossbar, crossbar.engine, crossbar.kernels; print('numba' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert done.stdout.strip() == "False"
