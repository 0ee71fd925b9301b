"""Swarms of guardians, by the hundred. SEDMAD_SWARM_SEEDS=1000 runs more; SEDMAD_SWARM_FIRST=5000 runs others."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from sedmad.core.ownership import Standing
from sedmad.core.ownership.ownership import Ownership
from sedmad.testing import guardian as guardian_module
from sedmad.testing.guardian import Stored, first_standing
from sedmad.testing.ledger import Ledger
from sedmad.testing.ownership_swarm import main, run

SEEDS = int(os.environ.get("SEDMAD_SWARM_SEEDS", "70"))
FIRST_SEED = int(os.environ.get("SEDMAD_SWARM_FIRST", "0"))
CHUNK = 10


@pytest.mark.parametrize("first", range(FIRST_SEED, FIRST_SEED + SEEDS, CHUNK))
def test_swarm(first: int) -> None:
    for seed in range(first, first + CHUNK):
        run(seed)  # the error names the seed and how to replay it


def test_a_seed_replays_alike_in_another_process() -> None:
    stories = [
        subprocess.run(
            [sys.executable, "-m", "sedmad.testing.ownership_swarm", "--seed", "0", "--trace"],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert stories[0] == stories[1]
    assert "Won" in stories[0]


def test_a_broken_rule_is_found_and_says_how_to_replay_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # An owner that holds its manifests for established too early promises users what it cannot keep.
    monkeypatch.setattr(guardian_module, "has_majorities", lambda votes, standing: True)
    assert main(["--seed", "0", "--count", "10"]) == 1
    said = capsys.readouterr().out
    assert "is held for established, and is not" in said
    assert "python -m sedmad.testing.ownership_swarm --seed 0" in said
    assert "Faults(" in said


@pytest.mark.parametrize(("defect", "first"), [("reclaim", 20), ("peer_down", 27)])
def test_a_matrix_without_an_owner_is_found(
    defect: str, first: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Owners stay shut out by promises to candidates that died, or nobody stands at all."""
    monkeypatch.setattr(Ownership, defect, lambda *args: None)
    monkeypatch.setattr("sedmad.testing.ownership_swarm.SETTLE_SECONDS", 20.0)
    assert main(["--seed", str(first), "--count", "40"]) == 1
    assert "no owner 20 s after the last fault" in capsys.readouterr().out


FIRST = first_standing("w", "abc")


def written(before: Standing, owner: str, epoch: int) -> Standing:
    line = (*before.manifest, (epoch, before.seq + 1, owner))
    return before.succeeded_by(owner, epoch, manifest=line)


def test_the_ledger_knows_what_most_have_kept_for_established() -> None:
    ledger = Ledger(FIRST)
    second = written(FIRST, "a", 0)
    assert ledger.add(Stored("a", second)) == ""
    assert ledger.established is FIRST
    assert ledger.add(Stored("b", second)) == ""
    assert ledger.established.order == (0, 1)


def test_the_ledger_finds_what_is_wrong() -> None:
    second, rival = written(FIRST, "a", 0), written(FIRST, "b", 1)
    ledger = Ledger(FIRST)
    ledger.add(Stored("a", second), Stored("c", second))
    assert "is lost in manifest 1.1 of b" in ledger.add(Stored("b", rival), Stored("c", rival))
    ledger = Ledger(FIRST)
    ledger.add(Stored("b", rival), Stored("c", rival))
    assert "a deposed owner establishes manifest 0.1" in ledger.add(Stored("a", second), Stored("c", second))
    assert "epoch 1 has two owners" in ledger.add(Stored("c", written(second, "c", 1)))
    ledger = Ledger(FIRST)
    ledger.add(Stored("c", written(rival, "c", 2)))
    assert "two manifests of order (2, 2)" in ledger.add(Stored("a", written(second, "c", 2)))
