"""`sedmad demo` as a person runs it: real daemons, a real kill, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sedmad.cli.demo.questions import Reference
from sedmad.cli.demo.words import WordMatrix, installed_words, synthetic_words
from sedmad.errors import StateError

COMMAND = (sys.executable, "-m", "sedmad.cli.main", "demo", "--synthetic", "16384")


@pytest.fixture
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the demo runs with: a folder of its own for temporary files, short enough for sockets."""
    return os.environ | {"TMPDIR": str(tmp_path_factory.mktemp("d"))}


def daemons_in(folder: Path) -> list[int]:
    """Return the processes whose home is below a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            variables = (process / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(variable.startswith(b"SEDMAD_HOME=" + bytes(folder)) for variable in variables):
            found.append(int(process.name))
    return found


def test_the_demo_tells_its_story_and_leaves_nothing(environment: dict[str, str]) -> None:
    done = subprocess.run(COMMAND, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for line in (
        "all four know each other",
        '>>> words = mesh.put("words", matrix, survive=1)',
        "All were answered.",
        "from its spare",
        "Every answer was right.",
        "All nodes are stopped, and their files are removed.",
    ):
        assert line in done.stdout
    assert "\x1b" not in done.stdout, "colours are for terminals"
    folder = Path(environment["TMPDIR"])
    assert not list(folder.iterdir())
    assert not daemons_in(folder)


def test_the_demo_can_be_interrupted(environment: dict[str, str]) -> None:
    folder = Path(environment["TMPDIR"])
    with subprocess.Popen(COMMAND, env=environment, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "sedmad join" in line:
                break
        assert daemons_in(folder)
        demo.send_signal(signal.SIGINT)
        demo.stdout.read()
        assert demo.wait(30) == 130
    assert not list(folder.iterdir())
    assert not daemons_in(folder)


def test_missing_words_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sedmad.cli.demo.words.MODULE", "a_package_that_nobody_has")
    with pytest.raises(StateError) as raised:
        installed_words()
    assert "pip install" in raised.value.hint
    assert "--synthetic" in raised.value.hint


def test_the_nearest_words_are_whole_and_others() -> None:
    words = WordMatrix(
        ("king", "##ing", "[PAD]", "queen", "tree"), np.zeros((5, 2), np.float32), ("king",), origin=""
    )
    scores = np.array([1.0, 0.9, 0.8, 0.7, 0.1], np.float32)
    assert words.nearest("king", scores, 3) == [("queen", pytest.approx(0.7)), ("tree", pytest.approx(0.1))]


def test_made_up_words_are_nearest_to_their_topic() -> None:
    words = synthetic_words(1200)
    near = words.nearest("topic7.0", words.rows @ words.row("topic7.0"), 5)
    assert all(other.startswith("topic7.") for other, _ in near)


def test_an_answer_that_is_no_number_is_wrong() -> None:
    reference = Reference(np.zeros(2, np.float32), np.zeros(3, np.float32), np.full(3, 1e-6))
    assert reference.difference(np.array([0, 1e-7, 0], np.float32))[1] < 1
    assert reference.difference(np.array([0, np.nan, 0], np.float32))[1] > 1
