"""`sedmad netcheck` and `sedmad doctor` beside a daemon behind a NAT, whose mesh has a public node."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from lab_sockets import WAIT_FOR_LAB_S
from nat_lab import NatLab

ENDS_WITHIN_S = 40.0
# Two daemons on a busy machine.
MEETS_WITHIN_S = 60.0
PORT = 4717


class Nodes:
    """Nodes of one mesh on hosts of the lab, each with a home of its own."""

    def __init__(self, lab: NatLab, folder: Path, stack: ExitStack) -> None:
        self._lab = lab
        self._folder = folder
        self._stack = stack

    def sedmad(self, host: str, *words: str) -> subprocess.CompletedProcess[str]:
        return self._lab.run(host, self._command(host, *words), timeout_s=ENDS_WITHIN_S)

    def document(self, host: str, *words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.sedmad(host, *words, "--json").stdout)
        return found

    def start(self, host: str) -> None:
        with (self._folder / f"{host}.log").open("wb") as log:
            daemon = subprocess.Popen(
                self._lab.command(host, self._command(host, "start", "--listen", f"/ip4/0.0.0.0/tcp/{PORT}")),
                stdout=log,
                stderr=log,
            )
        self._stack.callback(daemon.wait)
        self._stack.callback(daemon.kill)

    def _command(self, host: str, *words: str) -> list[str]:
        home = self._folder / host
        return [sys.executable, "-m", "sedmad.cli.main", "--home", str(home), *words]


@pytest.fixture
def nodes(lab_can_be_built: None, tmp_path: Path) -> Iterator[Nodes]:
    with NatLab("port_restricted", wait_s=WAIT_FOR_LAB_S) as lab, ExitStack() as stack:
        yield Nodes(lab, tmp_path, stack)


def answer(nodes: Nodes, host: str, *words: str, until: Callable[[Any], bool] = bool) -> dict[str, Any]:
    """Return what a daemon answers once that is as it should be; it may be starting."""
    deadline = time.monotonic() + MEETS_WITHIN_S
    while True:
        done = nodes.sedmad(host, *words, "--json")
        if done.returncode == 0 and until(found := json.loads(done.stdout)):
            document: dict[str, Any] = found
            return document
        assert time.monotonic() < deadline, done
        time.sleep(0.3)


def test_a_node_behind_a_nat_is_well_and_knows_whom_it_can_dial(nodes: Nodes, tmp_path: Path) -> None:
    assert nodes.sedmad("public", "init", "--name", "attic").returncode == 0
    nodes.start("public")
    token = answer(nodes, "public", "invite")["token"]
    joined = nodes.sedmad("a1", "join", token, "--name", "cellar")
    assert joined.returncode == 0, joined.stderr
    nodes.start("a1")
    answer(nodes, "a1", "peers", until=lambda found: [peer["state"] for peer in found["peers"]] == ["alive"])

    found = nodes.document("a1", "netcheck")
    assert [relay["name"] for relay in found["relays"]] == ["attic"]
    assert found["relays"][0]["rtt_ms"] is not None

    examined = nodes.document("a1", "doctor")
    checks = {check["check"]: check for check in examined["checks"]}
    assert examined["healthy"]
    assert not any(check["needs_daemon"] for check in checks.values())
    for name in ("identity-permissions", "store-integrity", "clock-skew", "version-skew", "relay"):
        assert checks[name]["grade"] == "ok", checks[name]
    assert "attic" in checks["relay"]["finding"]
