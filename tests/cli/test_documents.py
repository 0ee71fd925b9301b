"""What scripts and people read, compared with files: a change of these is a change of the contract."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import numpy as np
import pytest
from fake_daemon import PEER_ID, FakeDaemon

from sedmad.cli.main import main

Golden = Callable[[str, str], None]
Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    "command", ["status", "peers", "ls", "inspect encoder/w1", "invite", "rm encoder/w1"]
)
def test_json_documents(mesh_of_three: FakeDaemon, capsys: Capture, golden: Golden, command: str) -> None:
    assert main([*command.split(), "--json"]) == 0
    captured = capsys.readouterr()
    json.loads(captured.out)
    golden(f"{command.split()[0]}.json", captured.out)
    assert not captured.err


@pytest.mark.parametrize(
    "command", ["status", "peers", "ls", "inspect encoder/w1", "invite", "rm encoder/w1"]
)
def test_tables(mesh_of_three: FakeDaemon, capsys: Capture, golden: Golden, command: str) -> None:
    assert main(command.split()) == 0
    captured = capsys.readouterr()
    golden(f"{command.split()[0]}.txt", captured.out)
    assert "\x1b" not in captured.out
    assert not captured.err


def test_what_others_rely_on_in_status(mesh_of_three: FakeDaemon, capsys: Capture) -> None:
    main(["--json", "status"])
    status = json.loads(capsys.readouterr().out)
    assert {"peer_id": PEER_ID, "name": "alpha", "state": "ready"}.items() <= status["node"].items()
    assert [(peer["name"], peer["state"], peer["path"], peer["rtt_ms"]) for peer in status["peers"]] == [
        ("beta", "alive", "direct", 0.8125),
        ("gamma", "dead", None, None),
    ]
    assert status["memory"] == {"pledged_bytes": 2 << 30, "used_bytes": 200 * 96 * 4 + 64 * 3 * 8}
    assert [matrix["name"] for matrix in status["matrices"]] == ["encoder/w1", "wörter"]


def test_what_others_rely_on_in_inspect(mesh_of_three: FakeDaemon, capsys: Capture) -> None:
    main(["inspect", "encoder/w1", "--json"])
    document = json.loads(capsys.readouterr().out)
    plain = {key: document[key] for key in ("name", "version", "shape", "dtype", "survive", "epoch", "seq")}
    assert plain == {
        "name": "encoder/w1",
        "version": 1,
        "shape": [200, 96],
        "dtype": "float32",
        "survive": 1,
        "epoch": 1,
        "seq": 4,
    }
    assert document["owner"] == PEER_ID
    assert document["guardians"] == [PEER_ID]
    last = document["partitions"][-1]
    assert (last["index"], last["rows"]) == (3, [192, 200])
    assert [(copy["name"], copy["kind"]) for copy in last["copies"]] == [
        ("alpha", "resident"),
        ("beta", "standby"),
    ]


def test_put_get_apply_as_documents(daemon: FakeDaemon, home, capsys: Capture, golden: Golden) -> None:
    np.save(home / "w.npy", np.eye(70, dtype=np.float32))
    np.save(home / "x.npy", np.ones((70, 2)))
    documents = {}
    for command in (
        f"put {home}/w.npy --name w",
        f"get w -o {home}/out.npy",
        f"apply w {home}/x.npy -o {home}/y.npy --explain",
    ):
        assert main([*command.split(), "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        if "elapsed_ms" in document:
            document["elapsed_ms"] = document["explanation"]["elapsed_ms"] = 12.5
        documents[command.split()[0]] = document
    text = json.dumps(documents, indent=2) + "\n"
    golden("put_get_apply.json", text.replace(str(home), "HOME"))


def test_an_explanation_as_people_see_it(daemon: FakeDaemon, home, capsys: Capture, golden: Golden) -> None:
    daemon.store("w", np.eye(70))
    np.save(home / "x.npy", np.ones((70, 66)))
    assert main(["apply", "w", f"{home}/x.npy", "-o", f"{home}/y.npy", "--explain"]) == 0
    golden("explain.txt", re.sub(r"[0-9.]+ ms as seen", "12.5 ms as seen", capsys.readouterr().err))


def test_help(capsys: Capture, golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    golden("help.txt", capsys.readouterr().out)
