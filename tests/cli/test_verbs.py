"""The verbs with files, errors and exit codes, as a shell sees them."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_daemon import FakeDaemon, ServedCall

from sedmad.cli import progress
from sedmad.cli.main import main
from sedmad.cli.report import EXIT_CODES
from sedmad.errors import InsufficientCapacity, by_reason

Capture = pytest.CaptureFixture[str]


def test_put_apply_get_rm(daemon: FakeDaemon, home: Path, capsys: Capture, rng: np.random.Generator) -> None:
    weights = rng.standard_normal((90, 40))
    np.save(home / "w.npy", weights)
    np.save(home / "x.npy", rng.standard_normal((40, 3)))
    np.save(home / "t.npy", rng.standard_normal(90))
    assert main(["put", f"{home}/w.npy", "--name", "w", "--survive", "0"]) == 0
    assert main(["apply", "w", f"{home}/x.npy", "-o", f"{home}/y.npy"]) == 0
    assert (
        main(["apply", "w", f"{home}/t.npy", "-o", f"{home}/z.npy", "--transpose", "--deadline", "5s"]) == 0
    )
    assert main(["get", "w", "-o", f"{home}/out.npy"]) == 0
    np.testing.assert_allclose(np.load(home / "y.npy"), weights @ np.load(home / "x.npy"))
    np.testing.assert_allclose(np.load(home / "z.npy"), weights.T @ np.load(home / "t.npy"))
    assert (home / "out.npy").read_bytes() == (home / "w.npy").read_bytes()
    assert main(["rm", "w"]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 5
    assert not captured.err
    assert not daemon.stored


def test_errors_have_three_lines_and_their_exit_code(daemon: FakeDaemon, home: Path, capsys: Capture) -> None:
    np.save(home / "w.npy", np.ones((9, 4)))
    assert main(["apply", "absent", f"{home}/w.npy", "-o", f"{home}/y.npy"]) == os.EX_NOINPUT
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["sedmad: there is no matrix absent", "try: List the names in this mesh with: sedmad ls"]
    main(["put", f"{home}/w.npy", "--name", "w"])
    np.save(home / "w.npy", np.zeros((9, 4)))
    capsys.readouterr()
    assert main(["put", f"{home}/w.npy", "--name", "w"]) == os.EX_CANTCREAT
    assert [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()] == [
        "sedmad",
        "why",
        "try",
    ]
    assert main(["put", f"{home}/w.npy", "--name", "w", "--replace"]) == 0
    assert main(["apply", "w", f"{home}/w.npy", "-o", f"{home}/y.npy"]) == os.EX_DATAERR
    assert main(["apply", "w", f"{home}/absent.npy", "-o", f"{home}/y.npy"]) == os.EX_DATAERR
    np.save(home / "x.npy", np.ones(4))
    capsys.readouterr()
    assert main(["apply", "w", f"{home}/x.npy", "-o", f"{home}/y.npy", "--deadline", "0s"]) == os.EX_TEMPFAIL
    assert main(["apply", "w", f"{home}/x.npy", "-o", f"{home}/y.npy", "--deadline=-3s"]) == os.EX_TEMPFAIL
    assert not (home / "y.npy").exists()
    assert not any(call.request.method.endswith("ApplyMatrix") for call in daemon.calls)


def test_a_long_why_keeps_its_lines(daemon: FakeDaemon, home: Path, capsys: Capture) -> None:
    def refuse(call: ServedCall) -> None:
        raise InsufficientCapacity("no room", why="needed  4.0 GiB\nalpha   1.0 GiB\x1b[2J")

    daemon.faults["PutMatrix"] = refuse
    np.save(home / "w.npy", np.ones((9, 4)))
    assert main(["put", f"{home}/w.npy", "--name", "w"]) == os.EX_UNAVAILABLE
    assert capsys.readouterr().err.splitlines()[:3] == [
        "sedmad: no room",
        "why: needed  4.0 GiB",
        "     alpha   1.0 GiB\\x1b[2J",
    ]


def test_no_daemon(home: Path, capsys: Capture) -> None:
    assert main(["status"]) == os.EX_UNAVAILABLE
    assert capsys.readouterr().err.splitlines() == [
        f"sedmad: no daemon answers at {home}/control.sock",
        "why: No such file or directory",
        "try: Start it with: sedmad start",
    ]
    assert main(["status", "--json"]) == os.EX_UNAVAILABLE
    captured = capsys.readouterr()
    assert not captured.out
    error = json.loads(captured.err)["error"]
    assert (error["reason"], error["exit_code"]) == ("DAEMON_NOT_RUNNING", os.EX_UNAVAILABLE)


def test_the_option_for_the_home_goes_before_and_after_the_verb(
    daemon: FakeDaemon, home: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEDMAD_HOME", str(tmp_path_factory.mktemp("other")))
    assert main(["status"]) == os.EX_UNAVAILABLE
    assert main(["--home", str(home), "status"]) == 0
    assert main(["status", "--home", str(home)]) == 0


@pytest.mark.parametrize(
    "command",
    [
        "",
        "statsu",
        "put",
        "put w.npy",
        "put w.npy --name w --survive -1",
        "put w.npy --name w --survive many",
        "apply w x.npy -o y.npy --deadline soon",
        "get w",
        "invite --expires 24x",
        "start --label zone",
        "start --label =attic",
        "status --jso",
        "--verbose status",
    ],
)
def test_wrong_command_lines_end_with_2(home: Path, capsys: Capture, command: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(command.split())
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert not captured.out
    assert "usage: sedmad" in captured.err


def test_a_name_may_begin_like_an_option(daemon: FakeDaemon, home: Path, capsys: Capture) -> None:
    daemon.store("-w", np.ones((2, 2)))
    assert main(["--home", str(home), "rm", "--", "-w"]) == 0
    assert "-w is removed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("where", "exit_code", "told"),
    [(">&-", 0, ""), (">/dev/full", os.EX_IOERR, "sedmad: a file, or the output, could not be written")],
)
def test_closed_and_full_outputs_are_no_bug(
    where: str, exit_code: int, told: str, daemon: FakeDaemon, home: Path
) -> None:
    command = f'"{sys.executable}" -m sedmad.cli.main status {where}'
    ended = subprocess.run(["/bin/sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == exit_code
    assert ended.stderr.partition("\n")[0] == told


def test_a_nearly_right_verb_is_recognised(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["inspct"])
    assert "did you mean inspect?" in capsys.readouterr().err


def test_every_exit_code_is_in_the_table() -> None:
    assert {error.exit_code for error in by_reason().values()} <= EXIT_CODES.keys()


def test_a_bug_says_so(daemon: FakeDaemon, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sedmad.cli.verbs.ls.matrix_table", None)
    daemon.store("w", np.ones((2, 2)))
    assert main(["ls"]) == os.EX_SOFTWARE
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert "sedmad: something went wrong that should not" in error


def test_an_interrupt_ends_with_130(
    daemon: FakeDaemon, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sedmad.cli.verbs.ls.connect", interrupt)
    assert main(["ls"]) == 130
    assert not capsys.readouterr().out


def test_invite_prints_the_token_alone(daemon: FakeDaemon, capsys: Capture) -> None:
    assert main(["invite", "--expires", "90m"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "sedmad1abcdef\n"
    assert not captured.err
    assert daemon.last("CreateInvitation").request.message == b"\x08\x98\x2a"
    assert main(["invite", "--expires", "0s"]) == os.EX_DATAERR


def test_stop_waits_until_the_home_is_free(daemon: FakeDaemon, home: Path, capsys: Capture) -> None:
    with (home / "daemon.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        unlock = threading.Timer(0.3, fcntl.flock, (lock, fcntl.LOCK_UN))
        unlock.start()
        assert main(["stop"]) == 0
        unlock.join()
    assert daemon.stopping.is_set()
    assert capsys.readouterr().out == "stopped\n"
    assert main(["stop"]) == os.EX_UNAVAILABLE


def test_stop_says_when_the_daemon_does_not_end(
    daemon: FakeDaemon, home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sedmad.cli.verbs.stop.WAIT_S", 0.1)
    with (home / "daemon.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["stop", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"stopped": False}


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stand-ins for what makes and runs daemons; the list holds how they were called."""
    called: list[Any] = []
    result = SimpleNamespace(peer_id="12D3KooWAlpha", name="alpha", mesh_id="5f2c")

    def record(*arguments: object) -> SimpleNamespace:
        called.append(arguments[1:])
        return result

    monkeypatch.setitem(sys.modules, "sedmad.node.setup", SimpleNamespace(init_mesh=record, join_mesh=record))
    monkeypatch.setitem(sys.modules, "sedmad.node.run", SimpleNamespace(run_daemon=record))
    return called


def test_init_and_join(node: list[Any], home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["init", "--name", "alpha"]) == 0
    assert "12D3KooWAlpha" in capsys.readouterr().out
    assert main(["join", "sedmad1token\n", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "peer_id": "12D3KooWAlpha",
        "name": "alpha",
        "mesh_id": "5f2c",
    }
    monkeypatch.setattr("sys.stdin", SimpleNamespace(read=lambda count: "sedmad1other\n"))
    assert main(["join", "-"]) == 0
    assert node == [("alpha",), ("sedmad1token", None), ("sedmad1other", None)]


def test_start_hands_on_only_what_was_given(node: list[Any], home: Path) -> None:
    assert main(["start"]) == 0
    command = "start --listen /ip4/0.0.0.0/tcp/1 --listen /ip4/0.0.0.0/tcp/2 --memory 2GiB --disk 80%"
    assert main([*command.split(), "--label", "zone=attic", "--label", "rack=a=b"]) == 0
    assert node == [
        ({},),
        (
            {
                "listen": ["/ip4/0.0.0.0/tcp/1", "/ip4/0.0.0.0/tcp/2"],
                "memory": "2GiB",
                "disk": "80%",
                "labels": {"zone": "attic", "rack": "a=b"},
            },
        ),
    ]


def test_empty_lists_say_what_to_do(daemon: FakeDaemon, capsys: Capture) -> None:
    assert main(["ls"]) == 0
    assert main(["peers"]) == 0
    captured = capsys.readouterr()
    assert not captured.out
    assert "sedmad put" in captured.err
    assert "sedmad invite" in captured.err
    assert main(["status"]) == 0
    assert "no other node yet" in capsys.readouterr().out


def test_a_bar_is_shown_on_a_terminal_when_there_is_much_to_do(
    daemon: FakeDaemon, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(progress, "WORTHWHILE_BYTES", 1)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    np.save(home / "w.npy", np.ones((90, 40)))
    for is_terminal in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda answer=is_terminal: answer)
        assert main(["put", f"{home}/w.npy", "--name", f"w{is_terminal}"]) == 0
        assert main(["get", f"w{is_terminal}", "-o", f"{home}/out.npy"]) == 0
        assert bool(capsys.readouterr().err) == is_terminal
