"""Chaos in small: three daemons, a few faults, and every answer right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sedmad.errors import UsageError
from sedmad.testing.chaos.__main__ import main
from sedmad.testing.chaos.faults import FaultKind
from sedmad.testing.chaos.run import Settings


def test_a_short_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "report.json"
    arguments = (
        "--nodes 3 --seconds 8 --fault-every 2 --longest-fault 1.5 --faults kill,stop,cut,split --seed 3"
    )
    exit_code = main([*arguments.split(), "--report", str(path)])
    shown = capsys.readouterr()
    assert exit_code == 0, shown.out + shown.err
    report = json.loads(path.read_text())
    assert report["clean"]
    assert report["products"]["total"] > 0
    assert report["faults"][0]["routed_around_s"] > 0
    assert {fault["kind"] for fault in report["faults"]} <= {"kill", "stop", "cut", "split"}
    assert "0 wrong, 0 failed" in shown.out


def test_what_cannot_be_run_is_refused() -> None:
    with pytest.raises(UsageError, match="2 nodes will not do"):
        Settings(nodes=2).check()
    with pytest.raises(UsageError):
        Settings(in_flight=0).check()


def test_unknown_faults_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--faults", "kill,fire"])
    shown = capsys.readouterr().err
    assert all(kind in shown for kind in FaultKind)
