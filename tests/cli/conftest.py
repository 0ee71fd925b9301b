from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

# The daemon of threads that the client's tests use.
sys.path.insert(0, str(Path(__file__).parent.parent / "client"))

from fake_daemon import OTHER_PEER_ID, FakeDaemon

from sedmad.wire import messages as wire

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEDMAD_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def daemon(home: Path) -> Iterator[FakeDaemon]:
    daemon = FakeDaemon(home / "control.sock")
    yield daemon
    daemon.close()


@pytest.fixture
def mesh_of_three(daemon: FakeDaemon) -> FakeDaemon:
    """A node with two peers, one of them dead, and two matrices."""
    daemon.store("encoder/w1", np.arange(200 * 96, dtype=np.float32).reshape(200, 96))
    daemon.store("wörter", np.ones((64, 3)), survive=0)
    daemon.peers = [
        wire.PeerSummary(
            peer_id=OTHER_PEER_ID,
            name="beta",
            state=wire.PEER_STATE_ALIVE,
            path="direct",
            rtt_ms=0.8125,
            addresses=["/ip4/192.0.2.8/tcp/4640"],
            software_version="0.1.0",
            memory_pledged_bytes=4 << 30,
            memory_used_bytes=1 << 29,
            disk_pledged_bytes=50 << 30,
            disk_used_bytes=2 << 30,
            compute_gflops=88.25,
            memory_bandwidth_bytes_per_s=2e10,
            device_profile="ideal",
            labels={"zone": "cellar"},
            last_heard_s=0.5,
            node_state=wire.NODE_STATE_READY,
            clock_skew_s=3601.5,
        ),
        wire.PeerSummary(
            peer_id="12D3KooWGammaGammaGammaGammaGammaGammaGammaGammaGamma",
            name="gamma",
            state=wire.PEER_STATE_DEAD,
            last_heard_s=412.0,
        ),
    ]
    daemon.warnings = ["the clock of beta is 3602 s ahead of this node's"]
    return daemon


@pytest.fixture
def golden(request: pytest.FixtureRequest):
    """Compare text with a file of tests/cli/golden; UPDATE_GOLDEN=1 writes the files instead."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if os.environ.get("UPDATE_GOLDEN"):
            path.write_text(text)
        assert text == path.read_text(), f"{path} differs; if that is wanted: UPDATE_GOLDEN=1"

    return check


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20250101)
