"""Many seeds in one command."""

from __future__ import annotations

from pathlib import Path

import pytest

from sedmad.testing import seeds


def test_every_swarm_is_found_and_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert "sedmad.testing.swarm" in seeds.swarms()
    assert seeds.main(["--seeds", "2", "--seed", "7", "--jobs", "2"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("2 of 2 seeds from 7") == len(seeds.swarms())


BROKEN = """
from sedmad.testing.mesh import InvariantBroken

def run(seed):
    if seed in (13, 14):
        raise InvariantBroken(f"two owners in {seed}")
    if seed == 30:
        raise KeyError(seed)
"""


def test_the_first_seed_that_fails_is_told_with_how_to_replay_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken_swarm.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(seeds, "swarms", lambda: ["broken_swarm"])
    assert seeds.main(["--seeds", "20", "--seed", "5"]) == 1
    shown = capsys.readouterr().out
    assert "two owners in 13" in shown
    assert "two owners in 14" not in shown
    assert "python -m broken_swarm --seed 13 --trace" in shown
    assert "KeyError: 30" in seeds.failure_of("broken_swarm", 30)
