"""Plays tests/core/scenarios/*.txt. SEDMAD_REWRITE_SCENARIOS=1 writes what came out into the files, for review."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sedmad.testing.scenario import ScenarioInvalid, play

SCENARIOS = sorted(Path(__file__).with_name("scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    story = path.read_text()
    played = play(story)
    if os.environ.get("SEDMAD_REWRITE_SCENARIOS"):
        path.write_text(played)
    else:
        assert played == story


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 9


def test_an_unknown_verb_is_refused() -> None:
    with pytest.raises(ScenarioInvalid, match="line 2"):
        play("nodes a b\nexplode a")
